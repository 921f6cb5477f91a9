//! The proxy that the environment names, by the rules of Go's
//! `net/http.ProxyFromEnvironment`.

use std::ffi::OsString;
use std::fmt;

use hyper::header::HeaderValue;

use super::authority::{Authority, Scheme};
use super::credentials::basic;
use super::endpoint::Endpoint;
use super::no_proxy::is_exempt;
use super::socks::Login;

/// An HTTP or a SOCKS5 proxy. Its `Display` is what events print: without credentials.
#[derive(Debug, Clone)]
pub struct Proxy {
    authority: Authority,
    /// Of an HTTP proxy. Marked sensitive, so that `Debug` does not show it.
    authorization: Option<HeaderValue>,
    /// Of a SOCKS5 proxy.
    login: Option<Login>,
}

/// A variable that names no proxy to use.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its name.
    pub variable: &'static str,
    /// The reason, as one line that holds nothing of its value.
    pub why: String,
}

impl Proxy {
    /// The proxy for `endpoint`; `variable` looks into the environment, where
    /// an empty value counts as none.
    ///
    /// # Errors
    /// [`Unusable`] for a value that is no URL of an http, https or socks5 proxy,
    /// unless `NO_PROXY` exempts the endpoint. No other variable is tried in its place,
    /// nor does Go try one.
    pub fn of_environment(
        endpoint: &Endpoint,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Proxy>, Unusable> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let first = |names: [&'static str; 2]| {
            let found = names.into_iter().map(|name| (name, set(name)));
            found
                .into_iter()
                .find_map(|(name, value)| Some((name, value?)))
        };
        let named = match endpoint.authority().scheme {
            Scheme::Https => first(["HTTPS_PROXY", "https_proxy"]),
            // A CGI program's HTTP_PROXY is what a client sent as `Proxy:`
            // (https://golang.org/s/cgihttpproxy).
            _ if set("REQUEST_METHOD").is_some() => None,
            _ => first(["HTTP_PROXY", "http_proxy"]),
        };
        let Some((variable, value)) = named else {
            return Ok(None);
        };
        let exempt = first(["NO_PROXY", "no_proxy"])
            .map_or_else(String::new, |(_, list)| list.to_string_lossy().into_owned());
        if is_exempt(&exempt, endpoint.host(), endpoint.port()) {
            return Ok(None);
        }
        let parsed = value.to_str().ok_or_else(|| "is not UTF-8".to_owned());
        match parsed.and_then(Proxy::parse) {
            Ok(proxy) => Ok(Some(proxy)),
            Err(why) => Err(Unusable { variable, why }),
        }
    }

    /// Reads `[http://|https://|socks5://|socks5h://][user:password@]host[:port]`;
    /// what follows is of no meaning.
    pub(super) fn parse(value: &str) -> Result<Proxy, String> {
        let (scheme, rest) = match value.split_once("://") {
            None => (Scheme::Http, value),
            Some((name, rest)) => {
                let scheme = Scheme::of_proxy(name)
                    .ok_or("names a proxy that is neither http, https nor socks5")?;
                (scheme, rest)
            }
        };
        let location = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (userinfo, location) = location.rsplit_once('@').unwrap_or(("", location));
        let authority = Authority::parse(scheme, location)
            .and_then(|authority| authority.check_scheme().map(|()| authority))
            .map_err(|why| format!("names no proxy: {why}"))?;
        let (authorization, login) = match scheme {
            Scheme::Socks5 => Login::parse(userinfo).map(|login| (None, login)),
            _ => basic(userinfo).map(|value| (value, None)),
        }
        .map_err(|why| format!("names no proxy: {why}"))?;
        Ok(Proxy {
            authority,
            authorization,
            login,
        })
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The `Proxy-Authorization` header that the URL's user and password stand
    /// for.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// What the URL's user and password stand for with a SOCKS5 proxy.
    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credentials = self.authorization.is_some() || self.login.is_some();
        f.write_str(&self.authority.shown(credentials))
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, Proxy, Unusable};

    /// What is decided for `url` in an environment, as text.
    fn decided(url: &str, environment: &[(&str, &str)]) -> Result<String, Unusable> {
        let endpoint = Endpoint::parse(url).unwrap();
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        };
        let proxy = Proxy::of_environment(&endpoint, variable)?;
        Ok(proxy.map_or_else(|| "none".to_owned(), |proxy| proxy.to_string()))
    }

    #[test]
    fn which_variable_counts() {
        let upper = ("HTTP_PROXY", "http://upper.test:1");
        let lower = ("http_proxy", "http://lower.test:2");
        let secure = ("HTTPS_PROXY", "http://secure.test:3");
        for (environment, expected) in [
            (&[][..], "none"),
            (&[upper, lower], "http://upper.test:1"),
            (&[lower], "http://lower.test:2"),
            (&[("HTTP_PROXY", ""), lower], "http://lower.test:2"),
            (&[secure], "none"),
            (&[("ALL_PROXY", "http://all.test")], "none"),
            (&[upper, ("NO_PROXY", "h")], "none"),
            (&[upper, ("no_proxy", "h")], "none"),
            (
                &[upper, ("NO_PROXY", "other"), ("no_proxy", "h")],
                "http://upper.test:1",
            ),
            (&[upper, ("NO_PROXY", "h:5001")], "http://upper.test:1"),
            (&[upper, ("NO_PROXY", "h:5000")], "none"),
            (&[upper, ("REQUEST_METHOD", "GET")], "none"),
            (&[upper, ("REQUEST_METHOD", "")], "http://upper.test:1"),
            // An exempt host needs no proxy that works.
            (
                &[("HTTP_PROXY", "socks4://s.test"), ("NO_PROXY", "*")],
                "none",
            ),
        ] {
            let proxy = decided("http://h:5000", environment);
            assert_eq!(proxy.as_deref(), Ok(expected), "{environment:?}");
        }
        assert_eq!(
            decided("http://localhost:5000", &[upper]).as_deref(),
            Ok("none")
        );
        assert_eq!(
            decided("http://127.9.9.9:5000", &[upper]).as_deref(),
            Ok("none")
        );
    }

    #[test]
    #[cfg(feature = "tls")]
    fn https_has_a_variable_of_its_own() {
        let upper = ("HTTPS_PROXY", "https://upper.test");
        let lower = ("https_proxy", "lower.test");
        for (environment, expected) in [
            (&[][..], "none"),
            (&[("HTTP_PROXY", "http://other.test")], "none"),
            (&[upper, lower], "https://upper.test"),
            (&[lower], "http://lower.test"),
            // Of no client's making.
            (&[upper, ("REQUEST_METHOD", "GET")], "https://upper.test"),
            (&[upper, ("NO_PROXY", "h:443")], "none"),
        ] {
            let proxy = decided("https://h", environment);
            assert_eq!(proxy.as_deref(), Ok(expected), "{environment:?}");
        }
    }

    #[test]
    fn values_that_name_a_proxy() {
        for (value, expected, authorization) in [
            ("p.test", "http://p.test", None),
            ("p.test:3128", "http://p.test:3128", None),
            ("localhost", "http://localhost", None),
            ("127.0.0.1:8080", "http://127.0.0.1:8080", None),
            ("HTTP://P.test:80/path?q", "http://p.test", None),
            ("http://[::1]:3128/", "http://[::1]:3128", None),
            ("u:p@p.test", "http://***@p.test", Some("Basic dTpw")),
            (
                "http://u%40:p%3a%2f@p.test",
                "http://***@p.test",
                Some("Basic dUA6cDov"),
            ),
            (
                "http://u@p.test:1",
                "http://***@p.test:1",
                Some("Basic dTo="),
            ),
            ("socks5://p.test:1080", "socks5://p.test", None),
            ("SOCKS5H://u:p@p.test:1/", "socks5://***@p.test:1", None),
        ] {
            let proxy = Proxy::parse(value).unwrap_or_else(|why| panic!("{value}: {why}"));
            assert_eq!(proxy.to_string(), expected, "{value}");
            let header = proxy.authorization().map(|value| value.to_str().unwrap());
            assert_eq!(header, authorization, "{value}");
            let debug = format!("{proxy:?}");
            assert!(authorization.is_none_or(|secret| !debug.contains(secret)));
        }
    }

    #[test]
    fn values_that_do_not() {
        let other = "names a proxy that is neither http, https nor socks5";
        for (value, why) in [
            ("socks4://s3cr3t:s3cr3t@p.test", other),
            ("socks://p.test", other),
            ("foo://p.test", other),
            ("://p.test", other),
            ("http://", "names no proxy: it has no host"),
            ("socks5://", "names no proxy: it has no host"),
            (
                "socks5://:s3cr3t@p.test",
                "names no proxy: its credentials have no user",
            ),
            (" p.test", "names no proxy: its host is no host name"),
            (
                "s3cr3t:s3cr3t@p.test:x",
                "names no proxy: its port is no number from 1 to 65535",
            ),
            (
                "s3cr3t%:p@p.test",
                "names no proxy: a % in its credentials is not followed by two hex digits",
            ),
            #[cfg(not(feature = "tls"))]
            (
                "https://p.test",
                "names no proxy: https needs the feature tls, which this build lacks",
            ),
        ] {
            let refused = Err(Unusable {
                variable: "http_proxy",
                why: why.to_owned(),
            });
            assert_eq!(
                decided("http://h", &[("http_proxy", value)]),
                refused,
                "{value}"
            );
        }
    }
}
