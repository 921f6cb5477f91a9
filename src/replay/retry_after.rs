//! The `Retry-After` header (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

use crate::limits::RETRY_AFTER_MAX;

/// How long the server asks to wait, from `now` by its own clock: delay-seconds or an HTTP-date,
/// at most [`RETRY_AFTER_MAX`]. A date in the past is zero; what is neither is
/// `None`.
#[must_use]
pub fn parse(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.trim_matches([' ', '\t']);
    if text.is_empty() {
        return None;
    }
    let wait = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit are a very long time, not garbage.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::limits::RETRY_AFTER_MAX;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn seconds_dates_and_garbage() {
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110, 5.6.7.
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let longest = Some(RETRY_AFTER_MAX);
        for (value, expected) in [
            (&b"0"[..], seconds(0)),
            (b"1", seconds(1)),
            (b"007", seconds(7)),
            (b"120", seconds(120)),
            (b" 120\t", seconds(120)),
            (b"600", seconds(600)),
            (b"601", longest),
            (b"18446744073709551615", longest),
            (b"18446744073709551616", longest),
            (b"99999999999999999999999999999999999999999", longest),
            (b"Sun, 06 Nov 1994 08:49:37 GMT", seconds(0)),
            (b"Sun, 06 Nov 1994 08:49:36 GMT", seconds(0)),
            (b"Tue, 01 Jan 1980 00:00:00 GMT", seconds(0)),
            (b"Sun, 06 Nov 1994 08:50:37 GMT", seconds(60)),
            (b" Sun, 06 Nov 1994 08:50:37 GMT ", seconds(60)),
            (b"Sunday, 06-Nov-94 08:50:37 GMT", seconds(60)),
            (b"Sun Nov  6 08:50:37 1994", seconds(60)),
            (b"Mon, 07 Nov 1994 08:49:37 GMT", longest),
            (b"Fri, 31 Dec 9999 23:59:59 GMT", longest),
            (b"", None),
            (b" ", None),
            (b"-1", None),
            (b"+1", None),
            (b"1.5", None),
            (b"1 2", None),
            (b"1s", None),
            (b"0x10", None),
            (b"soon", None),
            (b"Sun, 99 Nov 1994 08:50:37 GMT", None),
            (b"Sun, 06 Nov 1994 08:50:37", None),
            ("١٢".as_bytes(), None),
            ("é".as_bytes(), None),
            (b"\xff", None),
            (b"1\n", None),
        ] {
            assert_eq!(
                parse(value, now),
                expected,
                "{:?}",
                String::from_utf8_lossy(value)
            );
        }
    }
}
