//! User and password in a URL: as a header, and out of sight.

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;

/// The user and the password of a URL. `Debug` shows neither.
#[derive(Clone)]
pub(super) struct Credentials {
    /// Both as the URL has them, percent-encoded.
    written: String,
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
        let (user, password) = split(userinfo);
        let user = percent_decode_str(user).chain(*b":");
        let pair: Vec<u8> = user.chain(percent_decode_str(password)).collect();
        let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
            .map_err(|error| error.to_string())?;
        basic.set_sensitive(true);
        Ok(Some(Credentials {
            written: userinfo.to_owned(),
            basic,
        }))
    }

    /// User and password for a SOCKS5 proxy.
    ///
    /// # Errors
    /// What is not UTF-8, as one line that repeats nothing of it.
    pub(super) fn login(&self) -> Result<(String, String), String> {
        let (user, password) = split(&self.written);
        let decode = |text| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded.map_err(|_| "its credentials are not UTF-8".to_owned())
        };
        Ok((decode(user)?.into(), decode(password)?.into()))
    }

    /// Lists what a server may quote, with and without base64's padding.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let sent = self.basic.to_str().unwrap_or_default();
        let sent = sent.strip_prefix("Basic ").unwrap_or(sent);
        let (user, password) = split(&self.written);
        [sent, sent.trim_end_matches('='), user, password].into_iter()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn split(userinfo: &str) -> (&str, &str) {
    userinfo.split_once(':').unwrap_or((userinfo, ""))
}

/// Finds `user:password` in `text`, a URL or a part of one; `@` follows it.
pub(super) fn userinfo(text: &str) -> Option<Range<usize>> {
    let start = text.find("//").map_or(0, |slashes| slashes + 2);
    let rest = text.get(start..)?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(start..start + authority.rfind('@')?)
}

#[cfg(test)]
mod tests {
    use super::Credentials;

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
        let credentials = Credentials::parse("u:p%40ss").unwrap().unwrap();
        let secrets: Vec<_> = credentials.secrets().collect();
        assert_eq!(secrets, ["dTpwQHNz", "dTpwQHNz", "u", "p%40ss"]);
        let latin = Credentials::parse("us%E9r:p%ff").unwrap().unwrap();
        assert_eq!(latin.basic, "Basic dXPpcjpw/w==");
        assert!(latin.login().is_err());
    }
}
