//! How the main server is reached: by itself or through a proxy.

use hyper::Uri;

use super::credentials::Credentials;
use super::server::{Peer, ServerUrl};

/// The way to the main server.
#[derive(Debug, Clone)]
pub struct Route {
    server: ServerUrl,
    proxy: Option<Peer>,
}

impl From<ServerUrl> for Route {
    fn from(server: ServerUrl) -> Route {
        Route::new(server, None)
    }
}

impl Route {
    /// Leads to `server`, through `proxy` if there is one.
    #[must_use]
    pub fn new(server: ServerUrl, proxy: Option<Peer>) -> Route {
        Route { server, proxy }
    }

    /// Returns the main server.
    #[must_use]
    pub fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// Returns the proxy on the way.
    #[must_use]
    pub fn proxy(&self) -> Option<&Peer> {
        self.proxy.as_ref()
    }

    /// Returns the proxy that takes the requests themselves and passes them on: answers
    /// may be its own.
    pub(super) fn forwarder(&self) -> Option<&Peer> {
        let is_plain = self.server.peer.scheme() == "http";
        self.proxy().filter(|proxy| is_plain && !proxy.is_socks())
    }

    /// Returns what is connected to.
    pub(super) fn first_hop(&self) -> &Peer {
        self.proxy().unwrap_or(&self.server.peer)
    }

    /// Makes the request line's target: for a proxy that passes requests on, the whole
    /// URL (RFC 9112, 3.2.2).
    pub(super) fn target(&self, url: &Uri) -> Uri {
        match (self.forwarder(), url.path_and_query()) {
            (None, Some(path)) => path.clone().into(),
            _ => url.clone(),
        }
    }

    /// Lists what a server may quote of the URLs' credentials.
    #[doc(hidden)]
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let peers = std::iter::once(&self.server.peer).chain(self.proxy());
        let credentials = peers.filter_map(|peer| peer.credentials.as_ref());
        credentials.flat_map(Credentials::secrets)
    }

    /// Names the proxy that may be the cause of `why`.
    pub(super) fn attribute_to_proxy(&self, why: String) -> String {
        match &self.proxy {
            Some(proxy) => format!("through the proxy {proxy}: {why}"),
            None => why,
        }
    }
}
