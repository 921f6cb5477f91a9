//! User and password in a URL: as a header, and out of sight.

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;

/// The user and the password of a URL, percent-decoded. `Debug` shows neither.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: String,
    /// The value of `Authorization` or `Proxy-Authorization` (RFC 7617), marked sensitive.
    pub(super) basic: HeaderValue,
}

impl Credentials {
    /// Reads `user:password`, each percent-encoded; the empty text has none.
    ///
    /// # Errors
    /// The reason as one line that repeats nothing of them.
    pub(super) fn parse(userinfo: &str) -> Result<Option<Credentials>, String> {
        if userinfo.is_empty() {
            return Ok(None);
        }
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map_err(|_| "its credentials are not UTF-8".to_owned())
        };
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let (user, password) = (decode(user)?, decode(password)?);
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let mut basic =
            HeaderValue::try_from(format!("Basic {encoded}")).map_err(|error| error.to_string())?;
        basic.set_sensitive(true);
        Ok(Some(Credentials {
            user: user.into(),
            password: password.into(),
            basic,
        }))
    }

    /// Lists what a server may quote: the header's value, then the longer one of user and
    /// password, which may hold the other.
    pub(super) fn secrets(&self) -> [String; 3] {
        let mut pair = [self.user.clone(), self.password.clone()];
        pair.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let [longer, shorter] = pair;
        let sent = self.basic.to_str().unwrap_or_default();
        [sent.replacen("Basic ", "", 1), longer, shorter]
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Finds `user:password` in `text`, a URL or a part of one; `@` follows it.
pub(super) fn userinfo(text: &str) -> Option<Range<usize>> {
    let start = text.find("//").map_or(0, |slashes| slashes + 2);
    let rest = text.get(start..)?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(start..start + authority.rfind('@')?)
}

/// Puts `***` in place of user and password in `text`, a URL or a part of one.
pub(super) fn mask(text: &str) -> String {
    let mut masked = text.to_owned();
    if let Some(range) = userinfo(text) {
        masked.replace_range(range, "***");
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::{Credentials, mask};

    #[test]
    fn user_and_password_become_basic_credentials() {
        for (userinfo, header) in [
            // RFC 7617, 2 and 2.1.
            (
                "Aladdin:open%20sesame",
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            ),
            ("test:123%C2%A3", "Basic dGVzdDoxMjPCow=="),
            ("u", "Basic dTo="),
            (":p", "Basic OnA="),
            ("u:a:b", "Basic dTphOmI="),
            ("u:a@b", "Basic dTphQGI="),
            ("u:a+b", "Basic dTphK2I="),
        ] {
            let credentials = Credentials::parse(userinfo).unwrap().unwrap();
            assert_eq!(credentials.basic, header, "{userinfo}");
            assert_eq!(format!("{credentials:?}"), "***");
        }
        assert!(Credentials::parse("u:%ff").is_err());
        let secrets = Credentials::parse("u:p%40ss").unwrap().unwrap().secrets();
        assert_eq!(secrets, ["dTpwQHNz", "p@ss", "u"]);
    }

    #[test]
    fn masked_urls() {
        for (text, masked) in [
            ("", ""),
            ("/a/b?c=d", "/a/b?c=d"),
            ("/@a", "/@a"),
            ("http://h:5000/a?b@c", "http://h:5000/a?b@c"),
            ("http://u:p@h:5000/a?b#c", "http://***@h:5000/a?b#c"),
            ("https://u@h", "https://***@h"),
            ("//u:p@q@h/", "//***@h/"),
            ("u:p@h", "***@h"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }
}
