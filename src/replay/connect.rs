//! From a route to a stream that HTTP can be spoken over.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::authority::{Authority, Scheme};
use super::dial::dial;
use super::proxy::Proxy;
use super::resolve::Resolver;
use super::route::Route;
use super::socks;
use super::stream::Stream;
#[cfg(feature = "tls")]
use super::tls::Tls;
#[cfg(feature = "tls")]
use super::tunnel;

/// Makes connections to the main server.
#[derive(Default)]
pub(super) struct Connector {
    resolver: Resolver,
    #[cfg(feature = "tls")]
    tls: Tls,
    /// What is going on, for the one who has waited too long.
    doing: &'static str,
}

impl Connector {
    /// Connects: name resolution, every address it has, a proxy's tunnel and the
    /// TLS handshakes within `limit`.
    ///
    /// # Errors
    /// Why there is no connection, as one line.
    pub(super) async fn connect(
        &mut self,
        route: &Route,
        limit: Duration,
    ) -> Result<Stream, String> {
        let deadline = Instant::now() + limit;
        match timeout_at(deadline, self.steps(route, deadline)).await {
            Ok(Ok(stream)) => {
                self.doing = "waiting for the answer";
                Ok(stream)
            }
            Ok(Err(Some(why))) => Err(why),
            Ok(Err(None)) | Err(_) => Err(self.too_late(limit)),
        }
    }

    /// Says what took longer than `limit`.
    pub(super) fn too_late(&self, limit: Duration) -> String {
        format!("timed out after {limit:?} while {}", self.doing)
    }

    /// The error is `None` where all that went wrong is that `deadline` passed.
    async fn steps(&mut self, route: &Route, deadline: Instant) -> Result<Stream, Option<String>> {
        let hop = route.first_hop();
        self.doing = "resolving its name";
        let addresses = self.resolver.resolve(&hop.host, hop.port).await?;
        self.doing = "connecting";
        let tcp = dial(&addresses, deadline)
            .await
            .map_err(|error| error.map(|error| format!("cannot connect: {error}")))?;
        let mut stream = Stream::Plain(tcp);
        let server = route.endpoint().authority();
        if let Some(proxy) = route.proxy() {
            stream = self.agree(proxy.authority(), stream).await?;
            stream = self.tunnel(proxy, server, stream).await?;
        }
        match route.forwarder() {
            Some(_) => Ok(stream),
            None => Ok(self.agree(server, stream).await?),
        }
    }

    /// Lays TLS over `stream` if `peer` wants it.
    async fn agree(&mut self, peer: &Authority, stream: Stream) -> Result<Stream, String> {
        match peer.scheme {
            #[cfg(feature = "tls")]
            Scheme::Https => {
                self.doing = "agreeing on keys (TLS)";
                self.tls.handshake(peer, stream).await
            }
            _ => Ok(stream),
        }
    }

    /// Has the proxy pass on what goes over `stream`, if it has to.
    async fn tunnel(
        &mut self,
        proxy: &Proxy,
        server: &Authority,
        stream: Stream,
    ) -> Result<Stream, String> {
        self.doing = "asking for a tunnel";
        match (proxy.authority().scheme, server.scheme) {
            (Scheme::Socks5, _) => socks::open(stream, proxy.login(), server).await,
            #[cfg(feature = "tls")]
            (_, Scheme::Https) => tunnel::open(stream, proxy, server).await,
            _ => Ok(stream),
        }
    }
}
