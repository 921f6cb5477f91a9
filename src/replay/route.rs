//! How the main server is reached: by itself or through a proxy.

use hyper::Uri;

use super::authority::{Authority, Scheme};
use super::credentials::basic_pair;
use super::endpoint::Endpoint;
use super::proxy::Proxy;

/// The way to the main server.
#[derive(Debug, Clone)]
pub struct Route {
    endpoint: Endpoint,
    proxy: Option<Proxy>,
}

impl From<Endpoint> for Route {
    fn from(endpoint: Endpoint) -> Route {
        Route::new(endpoint, None)
    }
}

impl Route {
    /// To `endpoint`, through `proxy` if there is one.
    #[must_use]
    pub fn new(endpoint: Endpoint, proxy: Option<Proxy>) -> Route {
        Route { endpoint, proxy }
    }

    /// Where the main server is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What is on the way.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The proxy that takes the requests themselves and passes them on: answers
    /// may be its own.
    pub(super) fn forwarder(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|proxy| {
            self.endpoint.authority().scheme == Scheme::Http
                && proxy.authority().scheme != Scheme::Socks5
        })
    }

    /// Who is connected to.
    pub(super) fn first_hop(&self) -> &Authority {
        match &self.proxy {
            Some(proxy) => proxy.authority(),
            None => self.endpoint.authority(),
        }
    }

    /// The request line's target: for a proxy that passes requests on the whole
    /// URL (RFC 9112, 3.2.2).
    pub(super) fn target(&self, path: &Uri) -> Uri {
        if self.forwarder().is_none() {
            return path.clone();
        }
        let authority = self.endpoint.authority();
        let url = authority.shown(false) + &path.to_string();
        // Its parts have all been read before.
        Uri::try_from(url).unwrap_or_else(|_| path.clone())
    }

    /// The credentials of the URLs as they are sent, and user and password by
    /// themselves: what a server may quote.
    pub(super) fn credentials(&self) -> Vec<String> {
        let values = [
            self.endpoint.authorization(),
            self.proxy().and_then(Proxy::authorization),
        ];
        let texts = values.into_iter().flatten().filter_map(|value| {
            let (_scheme, secret) = value.to_str().ok()?.split_once(' ')?;
            Some(secret.to_owned())
        });
        let sent: Vec<String> = texts.collect();
        let pairs = sent.iter().filter_map(|secret| basic_pair(secret));
        sent.iter().cloned().chain(pairs.flatten()).collect()
    }

    /// `why`, with the proxy that may be the cause.
    pub(super) fn blame(&self, why: String) -> String {
        match &self.proxy {
            Some(proxy) => format!("through the proxy {proxy}: {why}"),
            None => why,
        }
    }
}
