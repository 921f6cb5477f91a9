//! The one place that keeps secrets out of events and logs (spec 7): everything that a
//! server or a proxy said passes [`Redactor::redact`] before it is stored in a value that
//! can reach either.

/// What stands in place of a secret.
const MASK: &[u8] = b"***";
/// How often an answer may have escaped what it quotes, one time in the other: in a URL that
/// stands in another's query, in a page.
const ESCAPES_MAX: usize = 3;
/// Bytes of the longest escape, `&quot;` or `\u0026`, that may be cut.
const ESCAPE_MAX: usize = 6;
/// HTML's spellings of what it cannot hold as it is.
const ENTITIES: [(&[u8], u8); 8] = [
    (b"&amp;", b'&'),
    (b"&lt;", b'<'),
    (b"&gt;", b'>'),
    (b"&quot;", b'"'),
    (b"&#34;", b'"'),
    (b"&#39;", b'\''),
    (b"&#x27;", b'\''),
    (b"&apos;", b'\''),
];

/// The secrets of one exchange: keys, user and password of the URLs.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Without any escapes, the longest first: one may hold the other.
    secrets: Vec<Vec<u8>>,
}

impl Redactor {
    /// One of these secrets; an empty one is none.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Redactor {
        secrets.into_iter().fold(Redactor::default(), Redactor::and)
    }

    /// One of a further secret.
    #[must_use]
    pub fn and(mut self, secret: &str) -> Redactor {
        // Blanks around it are no part of a header's value.
        let units = unescaped(secret.trim().as_bytes());
        let secret: Vec<u8> = units.iter().map(|unit| unit.byte).collect();
        if !secret.is_empty() && !self.secrets.contains(&secret) {
            let is_longer = |other: &Vec<u8>| other.len() >= secret.len();
            let place = self.secrets.partition_point(is_longer);
            self.secrets.insert(place, secret);
        }
        self
    }

    /// `text` without the secrets, however a URL, a JSON string or a page escapes them, and
    /// without user and password of any URL. One that `is_cut` may end in the middle of a
    /// secret.
    #[must_use]
    pub fn redact(&self, text: &[u8], is_cut: bool) -> String {
        let units = unescaped(text);
        let bytes: Vec<u8> = units.iter().map(|unit| unit.byte).collect();
        let mut redacted = Vec::with_capacity(text.len());
        let (mut at, mut shown) = (0, 0);
        while let (Some(rest), Some(unit)) = (bytes.get(at..), units.get(at)) {
            let secret = self.secrets.iter().find(|secret| rest.starts_with(secret));
            if let Some(secret) = secret {
                redacted.extend(MASK);
                at += secret.len();
            } else if is_cut && self.secrets.iter().any(|secret| is_cut_off(secret, rest)) {
                redacted.extend(MASK);
                break;
            } else {
                // An escape of several bytes is shown once.
                let from = unit.start.max(shown);
                redacted.extend(text.get(from..unit.end).unwrap_or_default());
                at += 1;
            }
            shown = units.get(at - 1).map_or(shown, |unit| unit.end);
        }
        without_userinfo(&String::from_utf8_lossy(&redacted))
    }
}

/// A byte of a text without its escapes, and where it stands in the text.
#[derive(Clone, Copy)]
struct Unit {
    byte: u8,
    start: usize,
    end: usize,
}

/// `text` without its escapes.
fn unescaped(text: &[u8]) -> Vec<Unit> {
    let units = text.iter().enumerate().map(|(start, &byte)| Unit {
        byte,
        start,
        end: start + 1,
    });
    let mut units: Vec<Unit> = units.collect();
    for _ in 0..ESCAPES_MAX {
        let before = units.len();
        units = unescaped_once(&units);
        if units.len() == before {
            break;
        }
    }
    units
}

fn unescaped_once(units: &[Unit]) -> Vec<Unit> {
    let mut out = Vec::with_capacity(units.len());
    let mut rest = units;
    while let [first, ..] = rest {
        let mut next = [0; ESCAPE_MAX];
        for (byte, unit) in next.iter_mut().zip(rest) {
            *byte = unit.byte;
        }
        let mut utf8 = [0; 4];
        let (meant, length): (&[u8], usize) = match next {
            [b'%', high, low, ..] if hex(&[high, low]).is_some() => {
                utf8[0] = hex(&[high, low]).unwrap_or_default() as u8;
                (&utf8[..1], 3)
            }
            [b'\\', b'u', a, b, c, d] if hex(&[a, b, c, d]).is_some() => {
                let code = hex(&[a, b, c, d]).and_then(char::from_u32);
                (code.unwrap_or('?').encode_utf8(&mut utf8).as_bytes(), 6)
            }
            [b'\\', escaped @ (b'"' | b'\\' | b'/' | b'\''), ..] => {
                utf8[0] = escaped;
                (&utf8[..1], 2)
            }
            // A blank, in a form.
            [b'+', ..] => (b" ", 1),
            _ => {
                let entity = ENTITIES.iter().find(|(name, _)| next.starts_with(name));
                let (length, byte) =
                    entity.map_or((1, first.byte), |(name, byte)| (name.len(), *byte));
                utf8[0] = byte;
                (&utf8[..1], length)
            }
        };
        let (escape, others) = rest.split_at(length.min(rest.len()));
        let end = escape.last().map_or(first.end, |last| last.end);
        out.extend(meant.iter().map(|&byte| Unit {
            byte,
            start: first.start,
            end,
        }));
        rest = others;
    }
    out
}

fn hex(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok()?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Whether `rest`, the end of a text, is a start of `secret`, maybe with a part of an escape.
fn is_cut_off(secret: &[u8], rest: &[u8]) -> bool {
    let escape = rest
        .iter()
        .rposition(|byte| b"%\\&".contains(byte))
        .filter(|start| *start > 0 && rest.len() - start < ESCAPE_MAX);
    secret.starts_with(rest)
        || escape
            .and_then(|start| rest.get(..start))
            .is_some_and(|whole| secret.starts_with(whole))
}

/// `text` with the mask in place of what stands between `//` and `@` in one authority.
fn without_userinfo(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(slashes) = rest.find("//") {
        let (before, after) = rest.split_at(slashes + 2);
        let end = |c: char| c.is_whitespace() || "/?#\"'<>\\".contains(c);
        let (authority, more) = after.split_at(after.find(end).unwrap_or(after.len()));
        redacted += before;
        match authority.rsplit_once('@') {
            Some((_userinfo, host)) => redacted.extend(["***@", host]),
            None => redacted += authority,
        }
        rest = more;
    }
    redacted + rest
}

#[cfg(test)]
mod tests {
    use super::Redactor;

    #[test]
    fn a_secret_is_masked_whole_and_where_the_text_was_cut_in_it() {
        let redactor = Redactor::new([
            "",
            "kéy-123",
            "p/w",
            r#"a"b\c/d"#,
            " X&y+z\t",
            "p/w-and-more",
        ]);
        for (text, is_cut, expected) in [
            ("no key", false, "no key"),
            ("a kéy-123, kéy-123", false, "a ***, ***"),
            ("a kéy-1", false, "a kéy-1"),
            ("p/w and p\\/w of kéy-123", false, "*** and *** of ***"),
            ("p/w-and-more", false, "***"),
            ("a p\\/", true, "a ***"),
            (r#""a\"b\\c/d" "#, false, "\"***\" "),
            (r#""a\"b\\c\/d" "#, false, "\"***\" "),
            (
                r"X\u0026y+z, X\u0026y\u002Bz, X&amp;y+z",
                false,
                "***, ***, ***",
            ),
            ("/login?key=X%26y%2Bz&b", false, "/login?key=***&b"),
            ("/login?key=X%26y%2bz&b", false, "/login?key=***&b"),
            (
                "/login?next=%2Fa%3Fkey%3DX%2526y%252Bz",
                false,
                "/login?next=%2Fa%3Fkey%3D***",
            ),
            (
                r"k\u00e9y-123 and k%c3%a9y-123 and \u00e9",
                false,
                r"*** and *** and \u00e9",
            ),
            ("a kéy-1", true, "a ***"),
            ("a ké", true, "a ***"),
            (r"a k\u00e", true, "a ***"),
            ("a k%c3%a", true, "a ***"),
            ("a k", true, "a ***"),
            ("a kéy-123k", true, "a ******"),
            ("a b", true, "a b"),
            ("100% \\ & +", true, "100% \\ & +"),
            ("k", true, "***"),
            ("", true, ""),
        ] {
            let redacted = redactor.redact(text.as_bytes(), is_cut);
            assert_eq!(redacted, expected, "{text} {is_cut}");
        }
        // In the middle of a character.
        assert_eq!(redactor.redact(b"a k\xc3", true), "a ***");
        assert_eq!(redactor.redact(b"a \xff", false), "a \u{fffd}");
    }

    #[test]
    fn user_and_password_of_any_url_are_masked() {
        for (text, expected) in [
            ("http://u:p@h/x", "http://***@h/x"),
            ("//u:p@h", "//***@h"),
            (
                "/login?next=http://u:p@h/?a=b@c",
                "/login?next=http://***@h/?a=b@c",
            ),
            (
                "http://a.test/?u=http://u@b:p@h and http://v@i",
                "http://a.test/?u=http://***@h and http://***@i",
            ),
            ("http://h/a@b", "http://h/a@b"),
            ("mail a@b // c@d", "mail a@b // c@d"),
            ("\"http://h\",\"a@b\"", "\"http://h\",\"a@b\""),
            ("http:////u@h", "http:////***@h"),
            ("a//", "a//"),
        ] {
            let redacted = Redactor::default().redact(text.as_bytes(), false);
            assert_eq!(redacted, expected, "{text}");
        }
    }
}
