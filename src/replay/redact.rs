//! The one place that keeps secrets out of events and logs (spec 7): everything that a
//! server or a proxy said passes [`Redactor::redact`] before it is stored in a value that
//! can reach either.

/// What stands in place of a secret.
const MASK: &[u8] = b"***";
/// How often a text's escapes are undone: in a URL in another's query in a page, and more.
const NESTED_MAX: usize = 6;
/// Bytes of the longest escape, two of JSON's halves of a character: `\ud83d\ude00`.
const ESCAPE_MAX: usize = 12;

/// The secrets of one exchange: keys, user and password of the URLs.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Each as it was given, and with its escapes undone.
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
        let secret = secret.trim();
        // What a server that takes a header's bytes for Latin-1 makes of it.
        let latin: String = secret.bytes().map(char::from).collect();
        for units in readings(secret.as_bytes()).chain(readings(latin.as_bytes())) {
            let secret = bytes(&units);
            if !secret.is_empty() && !self.secrets.contains(&secret) {
                self.secrets.push(secret);
            }
        }
        self
    }

    /// `text` without the secrets, however a URL, a JSON string or a page escapes them, and
    /// without user and password of any URL. One that `is_cut` may end in the middle of a
    /// secret.
    #[must_use]
    pub fn redact(&self, text: &[u8], is_cut: bool) -> String {
        let mut is_secret = vec![false; text.len()];
        // In each reading: what stands before a secret may look like the begin of an escape.
        for units in readings(text) {
            let bytes = bytes(&units);
            for (at, first) in units.iter().enumerate() {
                let rest = bytes.get(at..).unwrap_or_default();
                let length = self.length_at_begin(rest, is_cut);
                let last = units.get((at + length).wrapping_sub(1));
                if let Some(last) = last.filter(|_| length > 0)
                    && let Some(part) = is_secret.get_mut(first.start..last.end)
                {
                    part.fill(true);
                }
            }
        }
        let mut redacted = Vec::with_capacity(text.len());
        let mut before = false;
        for (byte, is_secret) in text.iter().zip(is_secret) {
            match is_secret {
                false => redacted.push(*byte),
                true if before => {}
                true => redacted.extend(MASK),
            }
            before = is_secret;
        }
        without_userinfo(&String::from_utf8_lossy(&redacted))
    }

    /// Length of the longest secret with which `rest`, the end of a text, begins; 0 for none.
    fn length_at_begin(&self, rest: &[u8], is_cut: bool) -> usize {
        let lengths = self.secrets.iter().filter_map(|secret| {
            if rest.starts_with(secret) {
                Some(secret.len())
            } else {
                (is_cut && is_cut_off(secret, rest)).then_some(rest.len())
            }
        });
        lengths.max().unwrap_or(0)
    }
}

/// A byte of a text with its escapes undone, and where it stands in the text.
#[derive(Clone, Copy)]
struct Unit {
    byte: u8,
    start: usize,
    end: usize,
}

fn bytes(units: &[Unit]) -> Vec<u8> {
    units.iter().map(|unit| unit.byte).collect()
}

/// Reads `text` as it is, with its escapes undone, with the escapes of that undone, and so
/// on: in a URL that stands in another's query, in a page.
fn readings(text: &[u8]) -> impl Iterator<Item = Vec<Unit>> {
    let units = text.iter().enumerate().map(|(start, &byte)| Unit {
        byte,
        start,
        end: start + 1,
    });
    std::iter::successors(Some(units.collect()), |units: &Vec<Unit>| {
        let further = unescaped(units);
        (bytes(units) != bytes(&further)).then_some(further)
    })
    .take(1 + NESTED_MAX)
}

fn unescaped(units: &[Unit]) -> Vec<Unit> {
    let mut out = Vec::with_capacity(units.len());
    let mut rest = units;
    while let [first, others @ ..] = rest {
        let mut next = [0; ESCAPE_MAX];
        for (byte, unit) in next.iter_mut().zip(rest) {
            *byte = unit.byte;
        }
        rest = others;
        let Some((meant, length)) = escape(&next) else {
            out.push(*first);
            continue;
        };
        // The zeros beyond the text's end are part of no escape.
        let others_end = others.get(..length - 1).and_then(<[Unit]>::last);
        let end = others_end.map_or(first.end, |last| last.end);
        rest = others.get(length - 1..).unwrap_or_default();
        let mut utf8 = [0; 4];
        let meant: &[u8] = match meant {
            Meant::Byte(byte) => &[byte],
            Meant::Char(char) => char.encode_utf8(&mut utf8).as_bytes(),
        };
        out.extend(meant.iter().map(|&byte| Unit {
            byte,
            start: first.start,
            end,
        }));
    }
    out
}

/// What an escape stands for.
enum Meant {
    Byte(u8),
    Char(char),
}

/// Reads the escape at the begin of `next`: what it stands for, and its length.
fn escape(next: &[u8; ESCAPE_MAX]) -> Option<(Meant, usize)> {
    let (meant, length) = match *next {
        [b'%', high, low, ..] => {
            return Some((Meant::Byte(number(&[high, low], 16)? as u8), 3));
        }
        // A blank, in a form.
        [b'+', ..] => (' ', 1),
        [b'\\', b'u', a, b, c, d, b'\\', b'u', e, f, g, h]
            if let (Some(high @ 0xD800..0xDC00), Some(low @ 0xDC00..0xE000)) =
                (number(&[a, b, c, d], 16), number(&[e, f, g, h], 16)) =>
        {
            let code = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            (char::from_u32(code)?, 12)
        }
        [b'\\', b'u', a, b, c, d, ..] => (char::from_u32(number(&[a, b, c, d], 16)?)?, 6),
        // As nginx and Python write a byte.
        [b'\\', b'x', high, low, ..] => {
            return Some((Meant::Byte(number(&[high, low], 16)? as u8), 4));
        }
        [b'\\', escaped, ..] => match escaped {
            b'"' | b'\\' | b'/' | b'\'' => (escaped.into(), 2),
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            _ => return None,
        },
        [b'&', ..] => {
            let length = next.iter().position(|byte| *byte == b';')?;
            (entity(next.get(1..length)?)?, length + 1)
        }
        _ => return None,
    };
    Some((Meant::Char(meant), length))
}

/// The character of HTML's entity with this name.
fn entity(name: &[u8]) -> Option<char> {
    match name {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"quot" => Some('"'),
        b"apos" => Some('\''),
        b"sol" => Some('/'),
        b"plus" => Some('+'),
        b"equals" => Some('='),
        b"colon" => Some(':'),
        b"commat" => Some('@'),
        [b'#', b'x' | b'X', digits @ ..] => char::from_u32(number(digits, 16)?),
        [b'#', digits @ ..] => char::from_u32(number(digits, 10)?),
        _ => None,
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    // No sign, which from_str_radix would take.
    let is_number = digits
        .iter()
        .all(|digit| char::from(*digit).is_digit(radix));
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
    u32::from_str_radix(digits, radix).ok()
}

/// Whether `rest`, the end of a text, is a start of `secret`, maybe with a part of an escape.
fn is_cut_off(secret: &[u8], rest: &[u8]) -> bool {
    let pairs = secret.iter().zip(rest);
    let common = pairs.take_while(|(secret, rest)| secret == rest).count();
    (1..=common).any(|start| rest.get(start..).is_some_and(is_part_of_escape))
}

/// Whether `end` is empty, or may be the begin of an escape.
fn is_part_of_escape(end: &[u8]) -> bool {
    // One in another, cut in the middle, too.
    let is_of_escape = |byte: &u8| byte.is_ascii_alphanumeric() || b"#\\%&;".contains(byte);
    match end {
        [] => true,
        [b'%' | b'\\' | b'&', others @ ..] => {
            others.len() < ESCAPE_MAX - 1 && others.iter().all(is_of_escape)
        }
        _ => false,
    }
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
            "12ab-key",
            "night-key",
            "🔑\t",
            "a\tb🔑",
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
            (r"k&#233;y-123 k&#xe9;y-123 p&#x2F;w", false, "*** *** ***"),
            (r"\ud83d\udd11, a\tb\ud83d\udd11", false, "***, ***"),
            (r"k\xc3\xa9y-123", false, "***"),
            ("kÃ©y-123, k&Atilde;", false, "***, k&Atilde;"),
            ("p&sol;w X&amp;y&plus;z", false, "*** ***"),
            // Cut in an escape in an escape.
            (r#"a a\&quot"#, true, "a ***"),
            ("a X%26am%3", true, "a ***"),
            // What stands before it is no part of it.
            ("100%12ab-key, %2512ab-key", false, "100%***, %25***"),
            (r"C:\night-key", false, r"C:\***"),
            ("a kéy-1", true, "a ***"),
            ("a ké", true, "a ***"),
            (r"a k\u00e", true, "a ***"),
            ("a k%c3%a", true, "a ***"),
            ("a k", true, "a ***"),
            ("a kéy-123k", true, "a ***"),
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
