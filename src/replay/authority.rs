//! Scheme, host and port of a URL.

use std::net::Ipv6Addr;

#[cfg(feature = "tls")]
use rustls::pki_types::ServerName;

/// What is spoken with a server or a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    /// A proxy's alone.
    Socks5,
}

/// Whose credentials are at stake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) scheme: Scheme,
    /// As it is resolved: lower case, an IPv6 address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Scheme {
    /// A server's scheme of that name, in any case.
    pub(super) fn of(name: &str) -> Option<Scheme> {
        let schemes = [Scheme::Http, Scheme::Https];
        schemes
            .into_iter()
            .find(|scheme| scheme.name().eq_ignore_ascii_case(name))
    }

    /// A proxy's scheme of that name, in any case. Who resolves the server's
    /// name makes no difference (`h`: the proxy): it always does, as with Go.
    pub(super) fn of_proxy(name: &str) -> Option<Scheme> {
        let socks = ["socks5", "socks5h"];
        match socks.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            true => Some(Scheme::Socks5),
            false => Scheme::of(name),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Socks5 => "socks5",
        }
    }

    /// The port where a URL names none.
    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
            Scheme::Socks5 => 1080,
        }
    }
}

impl Authority {
    /// Reads `host`, `host:port` or `[IPv6]:port` of a URL with that scheme.
    ///
    /// # Errors
    /// The reason as one line that holds nothing of the URL.
    pub(super) fn parse(scheme: Scheme, text: &str) -> Result<Authority, String> {
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
            Some("") => scheme.port(),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().unwrap_or(0)
            }
            None if port.is_empty() => scheme.port(),
            _ => 0,
        };
        if port == 0 {
            return Err("its port is no number from 1 to 65535".into());
        }
        Ok(Authority { scheme, host, port })
    }

    /// As the `Host` header has it: without the zone, which means something on
    /// this machine alone (RFC 6874, 1).
    pub(super) fn header(&self) -> String {
        let host = self.host_without_zone();
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        if self.port == self.scheme.port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// As CONNECT wants it: always with the port.
    #[cfg(feature = "tls")]
    pub(super) fn with_port(&self) -> String {
        let host = self.host_without_zone();
        match host.contains(':') {
            true => format!("[{host}]:{}", self.port),
            false => format!("{host}:{}", self.port),
        }
    }

    /// As a URL without a path; `credentials`: it had some, which do not show.
    pub(super) fn shown(&self, credentials: bool) -> String {
        let mask = if credentials { "***@" } else { "" };
        format!("{}://{mask}{}", self.scheme.name(), self.header())
    }

    /// Whether this build can speak with it.
    ///
    /// # Errors
    /// Why not, as one line.
    pub(super) fn check_scheme(&self) -> Result<(), String> {
        match self.scheme {
            Scheme::Http | Scheme::Socks5 => Ok(()),
            #[cfg(feature = "tls")]
            Scheme::Https => self.server_name().map(drop),
            #[cfg(not(feature = "tls"))]
            Scheme::Https => Err("https needs the feature tls, which this build lacks".into()),
        }
    }

    /// What its certificate has to name.
    ///
    /// # Errors
    /// A host that no certificate can name.
    #[cfg(feature = "tls")]
    pub(super) fn server_name(&self) -> Result<ServerName<'static>, String> {
        let host = self.host_without_zone().to_owned();
        ServerName::try_from(host).map_err(|_| "its host is no name for a certificate".into())
    }

    /// The host without what means something on this machine alone.
    pub(super) fn host_without_zone(&self) -> &str {
        let (host, _zone) = self.host.split_once('%').unwrap_or((&self.host, ""));
        host
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
