//! What an answer of the main server means for the record that was sent.

/// What becomes of a record (spec 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The server has it.
    Delivered,
    /// The server will never take it: set aside, go on.
    Refused,
    /// The record or the server may be at fault: retry with patience.
    Doubtful,
    /// The server cannot take anything now: retry for ever.
    NotNow,
}

/// The disposition of an HTTP status (the table of spec 6). What is no status
/// (RFC 9110, 15: 100 to 599) is an unreadable answer.
#[must_use]
pub fn of_status(status: u16) -> Disposition {
    match status {
        200..=299 => Disposition::Delivered,
        408 | 421 | 423 | 425 | 429 => Disposition::NotNow,
        502..=504 | 507 | 509 | 520..=530 | 598 | 599 => Disposition::NotNow,
        401 | 403 | 409 | 500..=599 => Disposition::Doubtful,
        400..=499 => Disposition::Refused,
        _ => Disposition::NotNow,
    }
}

#[cfg(test)]
mod tests {
    use super::{Disposition, of_status};

    /// The rows of spec 6 as it words them; `x` is any digit, and a status that
    /// is named in full goes before one that is not.
    const TABLE: [(&str, Disposition); 4] = [
        ("2xx", Disposition::Delivered),
        (
            "400, 404, 405, 406, 410, 411, 413, 414, 415, 422, 4xx",
            Disposition::Refused,
        ),
        ("401, 403, 409, 500, 501, 505, 5xx", Disposition::Doubtful),
        (
            "408, 421, 423, 425, 429, 502, 503, 504, 507, 509, 520 to 530, 598, 599, 3xx, 1xx",
            Disposition::NotNow,
        ),
    ];

    fn names(row: &str, wanted: &str) -> bool {
        row.split(", ").any(|named| match named.split_once(" to ") {
            Some((first, last)) => (first..=last).contains(&wanted),
            None => named == wanted,
        })
    }

    fn expected(status: u16) -> Disposition {
        let full = status.to_string();
        let class = format!("{}xx", status / 100);
        for wanted in [full, class] {
            for (row, disposition) in TABLE {
                if names(row, &wanted) {
                    return disposition;
                }
            }
        }
        unreachable!("spec 6 names no disposition for {status}")
    }

    #[test]
    fn every_status_has_the_disposition_of_the_table() {
        for status in 100..=599 {
            assert_eq!(of_status(status), expected(status), "{status}");
        }
    }

    #[test]
    fn what_is_no_status_is_not_now() {
        for status in [0, 99, 600, 999, u16::MAX] {
            assert_eq!(of_status(status), Disposition::NotNow, "{status}");
        }
    }
}
