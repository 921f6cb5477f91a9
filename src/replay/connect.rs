//! From a route to a stream that HTTP can be spoken over.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};

#[cfg(feature = "tls")]
use super::authority::{Authority, Scheme};
use super::resolve::resolve;
use super::route::Route;
use super::stream::Stream;
#[cfg(feature = "tls")]
use super::tls::Tls;
#[cfg(feature = "tls")]
use super::tunnel;
use crate::limits::SEND_BUFFER;

/// Makes connections to the main server.
#[derive(Default)]
pub(super) struct Connector {
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
        let addresses = resolve(&hop.host, hop.port).await?;
        self.doing = "connecting";
        let tcp = connect_any(&addresses, deadline)
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

/// Connects to the first address that lets it. The error is the last one of an
/// address that answered; without one, it is `None`.
async fn connect_any(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<TcpStream, Option<io::Error>> {
    let mut last = None;
    for (tried, address) in addresses.iter().enumerate() {
        let remaining = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        // An even share, so that one dead address does not cost the others.
        let share = deadline.saturating_duration_since(Instant::now()) / remaining;
        match timeout(share, connect_one(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {}
        }
    }
    Err(last)
}

async fn connect_one(address: SocketAddr) -> io::Result<TcpStream> {
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
    use super::connect_any;
    use std::net::SocketAddr;
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

    async fn refused_address() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn every_address_is_tried_within_the_limit() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = live.local_addr().unwrap();
        let refused = refused_address().await;
        let (dead, _filling, _listener) = dead_address().await;
        for addresses in [
            vec![good],
            vec![refused, good],
            vec![dead, good],
            vec![dead, refused, good, refused],
        ] {
            let deadline = Instant::now() + Duration::from_secs(1);
            let stream = connect_any(&addresses, deadline).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good, "{addresses:?}");
            assert!(stream.nodelay().unwrap());
            assert!(Instant::now() < deadline);
        }
    }

    #[tokio::test]
    async fn no_address_leaves_the_reason() {
        let refused = refused_address().await;
        let (dead, _filling, _listener) = dead_address().await;
        let limit = Duration::from_millis(200);
        for (addresses, reason) in [
            (vec![], None),
            (vec![dead, dead], None),
            (
                vec![refused, dead],
                Some(std::io::ErrorKind::ConnectionRefused),
            ),
        ] {
            let start = Instant::now();
            let error = connect_any(&addresses, start + limit).await.unwrap_err();
            assert_eq!(error.map(|error| error.kind()), reason, "{addresses:?}");
            assert!(start.elapsed() < limit * 3, "{addresses:?}");
        }
    }
}
