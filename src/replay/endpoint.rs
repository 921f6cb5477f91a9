//! The main server's address, as `-health-url` gives it.

use std::fmt;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;

use super::authority::{Authority, Scheme};
use super::credentials::basic;

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

impl Endpoint {
    /// Reads the base URL of the main server.
    ///
    /// # Errors
    /// The reason as one line that holds nothing of the URL, whose credentials
    /// would show.
    pub fn parse(url: &str) -> Result<Endpoint, String> {
        let (scheme, rest) = url
            .split_once("://")
            .and_then(|(scheme, rest)| Some((Scheme::of(scheme)?, rest)))
            .ok_or("it must start with http:// or https://")?;
        let (location, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if path.contains(['?', '#']) {
            return Err("it must have no query and no fragment".into());
        }
        let (userinfo, location) = match location.rsplit_once('@') {
            Some((userinfo, location)) => (userinfo, location),
            None => ("", location),
        };
        let authority = Authority::parse(scheme, location)?;
        authority.check_scheme()?;
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

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.health.path().trim_end_matches('/');
        let url = self.authority.shown(self.authorization.is_some());
        write!(f, "{url}{prefix}")
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

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
