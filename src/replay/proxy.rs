//! The proxy that the environment names.

use std::ffi::OsString;
use std::net::IpAddr;

use hyper_util::client::proxy::matcher::Matcher;

use super::server::{Peer, ServerUrl};

/// A variable that names no proxy to use.
#[derive(Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its name.
    pub variable: &'static str,
    /// The reason, as one line that holds nothing of its value.
    pub why: String,
}

/// Finds the proxy for `server`; `variable` looks into the environment, where an empty
/// value counts as none.
///
/// # Errors
/// [`Unusable`] for a value that is no URL of an http, https or socks5 proxy, unless
/// `NO_PROXY` exempts the server. No other variable is tried in its place.
pub fn of_environment(
    server: &ServerUrl,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Peer>, Unusable> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let first = |names: [&'static str; 2]| {
        let mut names = names.into_iter();
        names.find_map(|name| Some((name, set(name)?)))
    };
    let named = match server.peer.scheme() {
        "https" => first(["HTTPS_PROXY", "https_proxy"]),
        // A CGI program's HTTP_PROXY is what a client sent as `Proxy:`
        // (https://httpoxy.org).
        _ if set("REQUEST_METHOD").is_some() => None,
        _ => first(["HTTP_PROXY", "http_proxy"]),
    };
    let Some((variable, value)) = named else {
        return Ok(None);
    };
    let exempt = first(["NO_PROXY", "no_proxy"]).unwrap_or_default().1;
    if is_exempt(&server.peer, &exempt.to_string_lossy()) {
        return Ok(None);
    }
    let parsed = value.to_str().ok_or_else(|| "is not UTF-8".to_owned());
    match parsed.and_then(parse) {
        Ok(proxy) => Ok(Some(proxy)),
        Err(why) => Err(Unusable { variable, why }),
    }
}

/// Reads `[http://|https://|socks5://|socks5h://][user:password@]host[:port]`; what
/// follows is of no meaning. A SOCKS5 proxy always resolves the server's name (`h` or not).
fn parse(value: &str) -> Result<Peer, String> {
    let parsed = match value.contains("://") {
        true => Peer::parse(value),
        false => Peer::parse(&format!("http://{value}")),
    };
    let proxy = parsed.map_err(|why| format!("names no proxy: {why}"))?;
    match proxy.scheme() {
        "http" | "https" | "socks5" | "socks5h" => Ok(proxy),
        _ => Err("names a proxy that is neither http, https nor socks5".into()),
    }
}

/// Tells whether `server` is reached without a proxy, with `list` from `NO_PROXY`.
fn is_exempt(server: &Peer, list: &str) -> bool {
    let address = server.host().parse::<IpAddr>();
    let is_loopback = server.host().eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|ip| ip.to_canonical().is_loopback());
    // The matcher takes `*` for names alone.
    is_loopback || list.split(',').any(|entry| entry.trim() == "*") || {
        let matcher = Matcher::builder().all("http://proxy").no(list).build();
        matcher.intercept(&server.url).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::{ServerUrl, Unusable, of_environment, parse};

    /// What is decided for `url` in an environment, as text.
    fn decided(url: &str, environment: &[(&str, &str)]) -> Result<String, Unusable> {
        let server = ServerUrl::parse(url).unwrap();
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        };
        let proxy = of_environment(&server, variable)?;
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
            (&[upper, ("no_proxy", "h")], "none"),
            (
                &[upper, ("NO_PROXY", "other"), ("no_proxy", "h")],
                "http://upper.test:1",
            ),
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
        ] {
            let proxy = decided("https://h", environment);
            assert_eq!(proxy.as_deref(), Ok(expected), "{environment:?}");
        }
    }

    /// Curl's rules, and loopback addresses.
    #[test]
    fn hosts_that_need_no_proxy() {
        for (list, host, is_exempt) in [
            ("", "localhost", true),
            ("", "LocalHost", true),
            ("", "127.9.9.9", true),
            ("", "[::1]", true),
            ("", "[::ffff:127.0.0.1]", true),
            ("", "localhost.test", false),
            ("foo.test", "foo.test", true),
            ("FOO.test", "bar.foo.test", true),
            (".foo.test", "foo.test", true),
            ("foo.test", "barfoo.test", false),
            ("a.test, * ,b.test", "foo.test", true),
            ("*", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4/8", "1.200.0.1", true),
            ("1.2.3.4/8", "2.2.3.4", false),
            ("2001:db8::/32", "[2001:db8::1]", true),
            (" , ,[", "foo.test", false),
        ] {
            let environment = [("HTTP_PROXY", "p.test"), ("NO_PROXY", list)];
            let expected = if is_exempt { "none" } else { "http://p.test" };
            let proxy = decided(&format!("http://{host}"), &environment);
            assert_eq!(proxy.as_deref(), Ok(expected), "{list} {host}");
        }
    }

    #[test]
    fn values_that_name_a_proxy() {
        for (value, expected, port, authorization) in [
            ("p.test", "http://p.test", 80, None),
            ("p.test:3128", "http://p.test:3128", 3128, None),
            ("HTTP://p.test:81/path?q", "http://p.test:81", 81, None),
            ("http://[::1]:3128/", "http://[::1]:3128", 3128, None),
            ("u:p@p.test", "http://***@p.test", 80, Some("Basic dTpw")),
            (
                "http://u%40:p%3a%2f@p.test",
                "http://***@p.test",
                80,
                Some("Basic dUA6cDov"),
            ),
            (
                "u:p@ss@p.test",
                "http://***@p.test",
                80,
                Some("Basic dTpwQHNz"),
            ),
            ("socks5://p.test", "socks5://p.test", 1080, None),
            ("SOCKS5H://p.test:1/", "socks5h://p.test:1", 1, None),
        ] {
            let proxy = parse(value).unwrap_or_else(|why| panic!("{value}: {why}"));
            assert_eq!(proxy.to_string(), expected, "{value}");
            assert_eq!(proxy.port(), port, "{value}");
            let header = proxy.authorization().map(|value| value.to_str().unwrap());
            assert_eq!(header, authorization, "{value}");
        }
    }

    #[test]
    fn values_that_do_not() {
        for value in [
            "socks4://s3cr3t:s3cr3t@p.test",
            "socks://p.test",
            "foo://p.test",
            "://p.test",
            "http://",
            "socks5://",
            " p.test",
            "s3cr3t:s3cr3t@p.test:x",
            #[cfg(not(feature = "tls"))]
            "https://p.test",
        ] {
            let unusable = decided("http://h", &[("http_proxy", value)]).unwrap_err();
            assert_eq!(unusable.variable, "http_proxy", "{value}");
            assert!(!unusable.why.contains("s3cr3t"), "{}", unusable.why);
        }
    }
}
