//! What a URL names: the main server and its paths, or a proxy.

use std::fmt;
use std::net::Ipv6Addr;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Authority;

use super::credentials::{Credentials, userinfo};

/// A server or a proxy, as its URL names it. `Display` is what events print: scheme, host
/// and port, without credentials.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Without credentials; its scheme is in lower case.
    pub(super) url: Uri,
    /// What the URL's user and password stand for.
    pub(super) credentials: Option<Credentials>,
}

/// The main server, as `-health-url` names it. `Display` is what events print: the URL
/// without credentials.
#[derive(Debug, Clone)]
pub struct ServerUrl {
    /// The server without its paths.
    pub(super) peer: Peer,
    /// The `Host` header.
    pub(super) host_header: HeaderValue,
    /// What a probe asks for: `<prefix>/`.
    pub(super) health: Uri,
    /// Where records go: `<prefix>/log`.
    pub(super) log: Uri,
}

impl Peer {
    /// Reads a URL that has a scheme and a host.
    ///
    /// # Errors
    /// The reason as one line that repeats nothing of the URL, whose credentials would
    /// show.
    pub(super) fn parse(url: &str) -> Result<Peer, String> {
        let mut url = url.to_owned();
        let mut credentials = None;
        if let Some(range) = userinfo(&url) {
            // They may hold characters that belong in no URL.
            let text: String = url.drain(range.start..=range.end).collect();
            credentials = Credentials::parse(text.strip_suffix('@').unwrap_or(&text))?;
        }
        if let Some((scheme, rest)) = url.split_once("://") {
            url = scheme.to_ascii_lowercase() + "://" + rest;
        }
        let url: Uri = url
            .parse()
            .map_err(|error| format!("it is no URL: {error}"))?;
        let peer = Peer { url, credentials };
        let host = peer.url.host().unwrap_or_default();
        if host.is_empty() {
            return Err("it has no host".into());
        }
        if host.starts_with('[') && peer.host().parse::<Ipv6Addr>().is_err() {
            return Err("what it has in brackets is no IPv6 address".into());
        }
        if peer.authority().len() > host.len() && peer.url.port_u16().is_none_or(|port| port == 0) {
            return Err("its port is no number from 1 to 65535".into());
        }
        if peer.scheme() == "https" && !cfg!(feature = "tls") {
            return Err("https needs the feature tls, which this build lacks".into());
        }
        Ok(peer)
    }

    /// Returns `http`, `https`, or another scheme of a proxy.
    pub(super) fn scheme(&self) -> &str {
        self.url.scheme_str().unwrap_or_default()
    }

    /// Tells a SOCKS5 proxy from an HTTP proxy.
    pub(super) fn is_socks(&self) -> bool {
        self.scheme().starts_with("socks")
    }

    /// Returns the host as it is resolved: an IPv6 address without brackets.
    pub(super) fn host(&self) -> &str {
        let host = self.url.host().unwrap_or_default();
        host.trim_matches(['[', ']'])
    }

    /// Returns the TCP port, the scheme's own where the URL names none.
    pub(super) fn port(&self) -> u16 {
        let usual = match self.scheme() {
            "http" => 80,
            "https" => 443,
            _ => 1080,
        };
        self.url.port_u16().unwrap_or(usual)
    }

    /// Returns host and port, as a tunnel's target is named.
    ///
    /// # Errors
    /// The reason as one line.
    pub(super) fn target(&self) -> Result<Uri, String> {
        let host = self.url.host().unwrap_or_default();
        let target = format!("{host}:{}", self.port());
        target.parse().map_err(|error| format!("{error}"))
    }

    /// Returns the value of an `Authorization` or `Proxy-Authorization` header.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        Some(&self.credentials.as_ref()?.basic)
    }

    fn authority(&self) -> &str {
        self.url.authority().map_or("", Authority::as_str)
    }

    fn at(&self, path: &str) -> Option<Uri> {
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = self.credentials.as_ref().map_or("", |_| "***@");
        write!(f, "{}://{mask}{}", self.scheme(), self.authority())
    }
}

impl ServerUrl {
    /// Reads the base URL of the main server.
    ///
    /// # Errors
    /// The reason as one line that repeats nothing of the URL.
    pub fn parse(url: &str) -> Result<ServerUrl, String> {
        // `Uri` leaves a fragment out.
        if url.contains(['?', '#']) {
            return Err("it must have no query and no fragment".into());
        }
        let peer = Peer::parse(url)?;
        if !matches!(peer.scheme(), "http" | "https") {
            return Err("it must start with http:// or https://".into());
        }
        let prefix = peer.url.path().trim_end_matches('/');
        let at = |path| peer.at(&format!("{prefix}{path}")).ok_or("it has no path");
        Ok(ServerUrl {
            health: at("/")?,
            log: at("/log")?,
            host_header: HeaderValue::from_str(peer.authority())
                .map_err(|error| error.to_string())?,
            peer,
        })
    }

    /// Resolves a redirect to `location`, which is a path or a URL of this server; any other
    /// is `None`.
    pub(super) fn redirected(&self, location: &str) -> Option<Uri> {
        if location.starts_with('/') && !location.starts_with("//") {
            return self.peer.at(location);
        }
        let target = Peer::parse(location).ok()?;
        let is_same = target.scheme() == self.peer.scheme()
            && target.host().eq_ignore_ascii_case(self.peer.host())
            && target.port() == self.peer.port();
        is_same.then_some(target.url)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.health.path().trim_end_matches('/');
        write!(f, "{}{prefix}", self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::ServerUrl;
    use hyper::Uri;

    #[test]
    fn urls_that_name_a_server() {
        // URL, host, port, Host header, records, Display
        for (url, host, port, header, log, shown) in [
            (
                "http://data-nadhi-server:5000",
                "data-nadhi-server",
                5000,
                "data-nadhi-server:5000",
                "http://data-nadhi-server:5000/log",
                "http://data-nadhi-server:5000",
            ),
            ("http://h/", "h", 80, "h", "http://h/log", "http://h"),
            (
                "HTTP://h/a/B//",
                "h",
                80,
                "h",
                "http://h/a/B/log",
                "http://h/a/B",
            ),
            (
                "http://h/a%20b",
                "h",
                80,
                "h",
                "http://h/a%20b/log",
                "http://h/a%20b",
            ),
            (
                "http://h/@b",
                "h",
                80,
                "h",
                "http://h/@b/log",
                "http://h/@b",
            ),
            (
                "http://[::1]:8/x",
                "::1",
                8,
                "[::1]:8",
                "http://[::1]:8/x/log",
                "http://[::1]:8/x",
            ),
            ("http://@h", "h", 80, "h", "http://h/log", "http://h"),
            (
                "http://u:p ^@q@h/a",
                "h",
                80,
                "h",
                "http://h/a/log",
                "http://***@h/a",
            ),
            #[cfg(feature = "tls")]
            (
                "https://u@[::1]",
                "::1",
                443,
                "[::1]",
                "https://[::1]/log",
                "https://***@[::1]",
            ),
        ] {
            let server = ServerUrl::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
            assert_eq!(server.peer.host(), host, "{url}");
            assert_eq!(server.peer.port(), port, "{url}");
            assert_eq!(server.host_header, header, "{url}");
            assert_eq!(server.log.to_string(), log, "{url}");
            assert_eq!(server.to_string(), shown, "{url}");
        }
    }

    #[test]
    fn urls_that_do_not() {
        for url in [
            "",
            "h:5000",
            "//h",
            "http:/h",
            "ftp://h",
            " http://h",
            "unix:///s",
            "http://",
            "http:///log",
            "http://:5000",
            "http://s3cr3t@",
            "http://s3cr3t:s3cr3t@:80",
            "http://a b",
            "http://h\r\nX: y",
            "http://h%41",
            "http://h:0",
            "http://h:65536",
            "http://h:http",
            "http://h:80:80",
            "http://::1",
            "http://s3cr3t:s3cr3t/s3cr3t@h",
            "http://[::1",
            "http://[h]",
            "http://[fe80::1%25eth0]",
            "http://[::1]80",
            "http://h?x",
            "http://h/a#x",
            "http://s3cr3t:s3cr3t?s3cr3t@h",
            "http://h/a b",
            #[cfg(not(feature = "tls"))]
            "https://h",
        ] {
            let why = ServerUrl::parse(url).expect_err(url);
            assert!(!why.contains("s3cr3t") && !why.contains('\n'), "{why}");
        }
    }

    #[test]
    fn redirects_to_the_same_server_and_elsewhere() {
        let server = ServerUrl::parse("http://u:p@h:81/prefix").unwrap();
        for (location, expected) in [
            ("/x", Some("http://h:81/x")),
            (
                "/x?y=http://elsewhere/",
                Some("http://h:81/x?y=http://elsewhere/"),
            ),
            ("/x#fragment", Some("http://h:81/x")),
            ("HTTP://H:81/x?y", Some("http://H:81/x?y")),
            ("http://v:q@h:81/x", Some("http://h:81/x")),
            ("http://h:81", Some("http://h:81/")),
            ("http://h/x", None),
            ("http://other:81/x", None),
            ("//h:81/x", None),
            ("https://h:81/x", None),
            ("http://h:81@other/x", None),
            ("x", None),
            ("", None),
            ("/a b", None),
        ] {
            let target = server.redirected(location);
            let target = target.as_ref().map(Uri::to_string);
            assert_eq!(target.as_deref(), expected, "{location:?}");
        }
    }
}
