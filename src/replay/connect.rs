//! From a route to a stream that HTTP can be spoken over.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

#[cfg(feature = "tls")]
use super::authority::{Authority, Scheme};
use super::dial::dial;
use super::resolve::Resolver;
use super::route::Route;
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
        let stream = Stream::Plain(tcp);
        #[cfg(feature = "tls")]
        let stream = self.secure(route, stream).await?;
        Ok(stream)
    }

    /// Lays TLS over `stream` with whoever wants it: the proxy, the main server.
    #[cfg(feature = "tls")]
    async fn secure(&mut self, route: &Route, mut stream: Stream) -> Result<Stream, String> {
        let server = route.endpoint().authority();
        if let Some(proxy) = route.proxy() {
            stream = self.agree(proxy.authority(), stream).await?;
            if server.scheme == Scheme::Https {
                self.doing = "asking for a tunnel";
                stream = tunnel::open(stream, proxy, server).await?;
            }
        }
        match route.forwarder() {
            Some(_) => Ok(stream),
            None => self.agree(server, stream).await,
        }
    }

    #[cfg(feature = "tls")]
    async fn agree(&mut self, peer: &Authority, stream: Stream) -> Result<Stream, String> {
        if peer.scheme == Scheme::Http {
            return Ok(stream);
        }
        self.doing = "agreeing on keys (TLS)";
        self.tls.handshake(peer, stream).await
    }
}
