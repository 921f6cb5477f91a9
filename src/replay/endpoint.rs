//! The main server's address, as `-health-url` gives it.

use std::fmt;
use std::net::Ipv6Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;

const HTTP_PORT: u16 = 80;

/// Where the main server is. Its `Display` is what events print: without
/// credentials.
#[derive(Debug, Clone)]
pub struct Endpoint {
    authority: Authority,
    host_header: HeaderValue,
    health: Uri,
    log: Uri,
    /// Marked sensitive, so that `Debug` does not show it.
    authorization: Option<HeaderValue>,
}

/// Host and port, which together with the scheme say whose credentials are at
/// stake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// As it is resolved: lower case, an IPv6 address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    /// Reads the base URL of the main server.
    ///
    /// # Errors
    /// The reason as one line that holds nothing of the URL, whose credentials
    /// would show.
    pub fn parse(url: &str) -> Result<Endpoint, String> {
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err("https needs the feature tls, which this build lacks".into());
            }
            _ => return Err("it must start with http:// or https://".into()),
        };
        let (location, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains(['?', '#']) {
            return Err("it must have no query and no fragment".into());
        }
        let (userinfo, location) = match location.rsplit_once('@') {
            Some((userinfo, location)) => (userinfo, location),
            None => ("", location),
        };
        let authority = Authority::parse(location)?;
        let host_header = HeaderValue::try_from(authority.header())
            .map_err(|_| "its host is no host name".to_owned())?;
        let prefix = path.trim_end_matches('/');
        Ok(Endpoint {
            health: uri(&format!("{prefix}/"))?,
            log: uri(&format!("{prefix}/log"))?,
            authorization: basic(userinfo)?,
            host_header,
            authority,
        })
    }

    /// The host as it is resolved: an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.authority.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.port
    }

    /// The `Host` header: without the port where it is the scheme's own.
    #[must_use]
    pub fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// What a probe asks for: `<prefix>/`.
    #[must_use]
    pub fn health_path(&self) -> &Uri {
        &self.health
    }

    /// Where records go: `<prefix>/log`.
    #[must_use]
    pub fn log_path(&self) -> &Uri {
        &self.log
    }

    /// The `Authorization` header that the URL's user and password stand for.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Whether a redirect there stays on this server.
    pub(super) fn is_at(&self, authority: &Authority) -> bool {
        self.authority == *authority
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = if self.authorization.is_some() {
            "***@"
        } else {
            ""
        };
        let prefix = self.health.path().trim_end_matches('/');
        write!(f, "http://{mask}{}{prefix}", self.authority.header())
    }
}

impl Authority {
    /// Reads `host`, `host:port` or `[IPv6]:port` of an http URL.
    pub(super) fn parse(text: &str) -> Result<Authority, String> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (literal, port) = rest
                .split_once(']')
                .ok_or("its IPv6 address lacks the closing bracket")?;
            (ipv6(literal)?, port)
        } else {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            if host.is_empty() {
                return Err("it has no host".into());
            }
            if !host.bytes().all(is_host_byte) {
                return Err("its host is no host name".into());
            }
            (host.to_ascii_lowercase(), port)
        };
        let port = match port.strip_prefix(':') {
            // An empty port is the scheme's own (RFC 3986, 3.2.3).
            Some("") => HTTP_PORT,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().unwrap_or(0)
            }
            None if port.is_empty() => HTTP_PORT,
            _ => 0,
        };
        if port == 0 {
            return Err("its port is no number from 1 to 65535".into());
        }
        Ok(Authority { host, port })
    }

    /// As the `Host` header has it: without the zone, which means something on
    /// this machine alone (RFC 6874, 1).
    fn header(&self) -> String {
        let host = match self.host.split_once('%') {
            Some((address, _zone)) => address,
            None => &self.host,
        };
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        if self.port == HTTP_PORT {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// `text`, a URL or a part of one, with `***` in place of user and password.
#[must_use]
pub fn mask(text: &str) -> String {
    let start = text.find("//").map_or(0, |slashes| slashes + 2);
    let (before, rest) = text.split_at(start);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_credentials, host)) => format!("{before}***@{host}{after}"),
        None => text.to_owned(),
    }
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// An IPv6 address with its zone after `%`, where the URL has `%25` (RFC 6874).
fn ipv6(literal: &str) -> Result<String, String> {
    let (address, zone) = match literal.split_once("%25") {
        Some((address, zone)) => (address, Some(zone)),
        None => (literal, None),
    };
    let address: Ipv6Addr = address
        .parse()
        .map_err(|_| "what it has in brackets is no IPv6 address")?;
    match zone {
        None => Ok(address.to_string()),
        Some(zone) if !zone.is_empty() && zone.bytes().all(is_host_byte) => {
            Ok(format!("{address}%{zone}"))
        }
        Some(_) => Err("the zone of its IPv6 address is no name".into()),
    }
}

fn uri(path: &str) -> Result<Uri, String> {
    if !path.is_ascii() {
        return Err("its path holds characters that must be percent-encoded".into());
    }
    PathAndQuery::try_from(path)
        .map(Uri::from)
        .map_err(|_| "its path holds characters that must be percent-encoded".into())
}

/// The `Authorization` header of RFC 7617 for `user:password`, each
/// percent-encoded.
fn basic(userinfo: &str) -> Result<Option<HeaderValue>, String> {
    if userinfo.is_empty() {
        return Ok(None);
    }
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let mut pair = percent_decode(user)?;
    pair.push(b':');
    pair.extend(percent_decode(password)?);
    let text = format!("Basic {}", STANDARD.encode(pair));
    let mut value = HeaderValue::try_from(text).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn percent_decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next())
                .zip(hex(bytes.next()))
                .map(|(high, low)| high * 16 + low)
                .ok_or("a % in its credentials is not followed by two hex digits")?,
            _ => byte,
        });
    }
    Ok(decoded)
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
