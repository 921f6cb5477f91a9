//! Finds header lines that not every client reads alike. Pure.

/// Follows the bytes of an answer's head, those of interim answers before it included.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    place: Place,
    odd: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the status line, after so many bytes; `true` where it is an interim answer's.
    Status(usize, bool),
    /// At the start of a line; the same.
    Start(bool),
    Name(bool),
    Value(bool),
    Body,
}

impl Default for Place {
    fn default() -> Place {
        Place::Status(0, false)
    }
}

impl HeadScan {
    /// Whether a line was folded (RFC 9112, 5.2), had a blank before its colon (5.1), or was
    /// none at all.
    pub(super) fn is_odd(&self) -> bool {
        self.odd
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.place == Place::Body {
                return;
            }
            let (place, odd) = next(self.place, byte);
            self.place = place;
            self.odd |= odd;
        }
    }
}

/// The place after `byte`, and whether that byte is odd there.
fn next(place: Place, byte: u8) -> (Place, bool) {
    match (place, byte) {
        (Place::Status(_, interim) | Place::Value(interim), b'\n') => {
            (Place::Start(interim), false)
        }
        // The status follows `HTTP/1.1 `.
        (Place::Status(9, _), b'1') => (Place::Status(10, true), false),
        (Place::Status(length, interim), _) => (Place::Status(length + 1, interim), false),
        (Place::Start(_), b'\r') => (place, false),
        (Place::Start(true), b'\n') => (Place::default(), false),
        (Place::Start(false), b'\n') => (Place::Body, false),
        (Place::Start(interim) | Place::Name(interim), b':') => {
            (Place::Value(interim), matches!(place, Place::Start(_)))
        }
        (Place::Start(interim) | Place::Name(interim), _) => {
            let is_token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            match byte {
                b'\n' => (Place::Start(interim), true),
                _ => (Place::Name(interim), !is_token),
            }
        }
        (Place::Value(_), _) => (place, byte.is_ascii_control() && !b"\t\r".contains(&byte)),
        (Place::Body, _) => (place, false),
    }
}

#[cfg(test)]
mod tests {
    use super::HeadScan;

    #[test]
    fn heads_that_are_odd() {
        for (head, odd) in [
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 200 OK\n\n {\n x", false),
            ("HTTP/1.1 200 \r\nA: b\r\nC-d:\r\n\r\n bo dy\n :", false),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n : x",
                false,
            ),
            (
                "HTTP/1.1 103 Early\r\nLink : x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nA\t: b\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\n: b\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nno header\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nnone\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nA: \u{fc}\r\n\r\n", false),
        ] {
            for size in 1..=head.len() {
                let mut scan = HeadScan::default();
                head.as_bytes()
                    .chunks(size)
                    .for_each(|part| scan.feed(part));
                assert_eq!(scan.is_odd(), odd, "{head:?} by {size}");
            }
        }
    }
}
