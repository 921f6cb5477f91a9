//! The one place that keeps secrets out of events and logs (spec 7): everything that a
//! server or a proxy said passes [`Redactor::redact`] before it is stored in a value that
//! can reach either.

/// What stands in place of a secret.
const MASK: &str = "***";
/// Bytes of a character at most (RFC 3629): as many may be missing from a text
/// that was cut between two.
const LONGEST_CHAR: usize = 4;

/// The secrets of one exchange: keys, user and password of the URLs.
#[derive(Clone, Default)]
pub struct Redactor {
    /// In each of the ways in which a server may write them.
    spellings: Vec<String>,
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
        if !secret.is_empty() {
            self.spellings.extend(spellings(secret));
            // One may hold the other.
            self.spellings
                .sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
            self.spellings.dedup();
        }
        self
    }

    /// `text` without the secrets, and without user and password of any URL. One that
    /// reaches `limit` bytes was cut there, maybe in the middle of a secret.
    #[must_use]
    pub fn redact(&self, text: &str, limit: usize) -> String {
        let was_cut = text.len() + LONGEST_CHAR > limit;
        let mut redacted = text.to_owned();
        for secret in &self.spellings {
            // Most texts hold none, and need no copy.
            if redacted.contains(secret) {
                redacted = redacted.replace(secret, MASK);
            }
        }
        if was_cut && let Some(start) = self.cut_secret(&redacted) {
            redacted.truncate(start);
            redacted.push_str(MASK);
        }
        without_userinfo(&redacted)
    }

    /// Where a secret starts whose rest is missing at the end of `text`.
    fn cut_secret(&self, text: &str) -> Option<usize> {
        let starts = text.char_indices().map(|(start, _)| start);
        let longest = self.spellings.first().map_or(0, String::len);
        starts
            .skip_while(|start| start + longest < text.len())
            .find(|start| {
                let end = text.get(*start..).unwrap_or_default();
                self.spellings.iter().any(|secret| secret.starts_with(end))
            })
    }
}

/// The ways in which a server may write `secret`: as it is, in a JSON string, in one whose
/// encoder escapes the slash, and in a URL.
fn spellings(secret: &str) -> [String; 4] {
    // A string always serialises.
    let quoted = serde_json::to_string(secret).unwrap_or_default();
    let json = quoted
        .get(1..quoted.len() - 1)
        .unwrap_or_default()
        .to_owned();
    let url = secret.bytes().fold(String::new(), |url, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            url + char::from(byte).encode_utf8(&mut [0; 4])
        }
        _ => format!("{url}%{byte:02X}"),
    });
    [secret.to_owned(), json.replace('/', "\\/"), json, url]
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
            Some((_userinfo, host)) => redacted.extend([MASK, "@", host]),
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
        let redactor = Redactor::new(["", "kéy-123", "p/w", r#"a"b\c/d"#, "X&y+z", "p/w-and-more"]);
        for (text, limit, expected) in [
            ("no key", 100, "no key"),
            ("a kéy-123, kéy-123", 100, "a ***, ***"),
            ("a kéy-1", 100, "a kéy-1"),
            ("p/w and p\\/w of kéy-123", 100, "*** and *** of ***"),
            ("p/w-and-more", 100, "***"),
            ("a p\\/", 5, "a ***"),
            (r#""a\"b\\c/d" "#, 100, "\"***\" "),
            (r#""a\"b\\c\/d" "#, 100, "\"***\" "),
            ("/login?key=X%26y%2Bz&b", 100, "/login?key=***&b"),
            ("a kéy-1", 8, "a ***"),
            ("a ké", 5, "a ***"),
            ("a k", 6, "a ***"),
            ("a kéy-123k", 11, "a ******"),
            ("a b", 3, "a b"),
            ("k", 1, "***"),
            ("", 0, ""),
        ] {
            assert_eq!(redactor.redact(text, limit), expected, "{text} {limit}");
        }
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
            assert_eq!(Redactor::default().redact(text, 1000), expected, "{text}");
        }
    }
}
