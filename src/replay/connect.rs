//! From a route to a stream that HTTP can be spoken over.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::resolve::Resolver;
use super::route::Route;
use super::server::Peer;
use super::socks;
use super::stream::Stream;
#[cfg(feature = "tls")]
use super::tls::Tls;
#[cfg(feature = "tls")]
use super::tunnel;
use crate::limits::SEND_BUFFER;

/// Makes connections to the main server.
#[derive(Default)]
pub(super) struct Connector {
    resolver: Resolver,
    #[cfg(feature = "tls")]
    tls: Tls,
    /// What is going on, for the message of a connection that took too long.
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
        let addresses = self.resolver.resolve(hop.host(), hop.port()).await?;
        self.doing = "connecting";
        let tcp = dial(&addresses, deadline)
            .await
            .map_err(|error| error.map(|error| format!("cannot connect: {error}")))?;
        let mut stream = Stream::Plain(tcp);
        let server = &route.server().peer;
        if let Some(proxy) = route.proxy() {
            stream = self.tls_handshake(proxy, stream).await?;
            self.doing = "asking for a tunnel";
            if proxy.is_socks() {
                stream = socks::open(stream, proxy, server).await?;
            }
            #[cfg(feature = "tls")]
            if server.scheme() == "https" && !proxy.is_socks() {
                stream = tunnel::open(stream, proxy, server).await?;
            }
        }
        match route.forwarder() {
            Some(_) => Ok(stream),
            None => Ok(self.tls_handshake(server, stream).await?),
        }
    }

    /// Lays TLS over `stream` if `peer` wants it.
    async fn tls_handshake(&mut self, peer: &Peer, stream: Stream) -> Result<Stream, String> {
        match peer.scheme() {
            #[cfg(feature = "tls")]
            "https" => {
                self.doing = "agreeing on keys (TLS)";
                self.tls.handshake(peer.host(), stream).await
            }
            _ => Ok(stream),
        }
    }
}

/// Tries one address after the other, each for its share of the time that is left. The
/// error is the last one of an address that answered; without one, it is `None`.
async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Option<io::Error>> {
    let mut last = None;
    for (&address, others) in addresses.iter().zip((1..=addresses.len() as u32).rev()) {
        let share = deadline.saturating_duration_since(Instant::now()) / others;
        match timeout(share, dial_one(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
    }
    Err(last)
}

async fn dial_one(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // A request goes out in one write: Nagle could only delay it.
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::dial;
    use std::io::ErrorKind;
    use std::net::{Ipv6Addr, SocketAddr};
    use std::time::Duration;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::{Instant, timeout};

    /// An address that answers no SYN: a listener whose backlog is full. What
    /// fills it is returned to be kept.
    async fn dead_address() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            filling.push(stream.unwrap());
        }
        (address, filling, listener)
    }

    #[tokio::test]
    async fn every_address_of_either_family_is_tried_within_the_limit() {
        let refused = TcpSocket::new_v4().unwrap();
        refused.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refused = refused.local_addr().unwrap();
        let (dead, _filling, _listener) = dead_address().await;
        for host in ["127.0.0.1", "::1"] {
            let live = TcpListener::bind((host, 0)).await.unwrap();
            let good = live.local_addr().unwrap();
            for addresses in [vec![good], vec![refused, good], vec![dead, refused, good]] {
                let deadline = Instant::now() + Duration::from_secs(3);
                let stream = dial(&addresses, deadline).await.unwrap();
                assert_eq!(stream.peer_addr().unwrap(), good, "{addresses:?}");
                assert!(stream.nodelay().unwrap());
                assert!(Instant::now() < deadline);
            }
        }
    }

    #[tokio::test]
    async fn no_address_leaves_the_reason() {
        let refused = SocketAddr::from((Ipv6Addr::LOCALHOST, 1));
        let (dead, _filling, _listener) = dead_address().await;
        for (addresses, reason) in [
            (vec![], None),
            (vec![dead, dead], None),
            (vec![refused, dead], Some(ErrorKind::ConnectionRefused)),
        ] {
            let start = Instant::now();
            let limit = Duration::from_secs(1);
            let error = dial(&addresses, start + limit).await.unwrap_err();
            assert_eq!(error.map(|error| error.kind()), reason, "{addresses:?}");
            assert!(start.elapsed() < limit * 5, "{addresses:?}");
        }
    }
}
