//! The connection to the main server below HTTP.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::endpoint::Endpoint;
use crate::limits::SEND_BUFFER;

/// What HTTP is spoken over.
pub type Stream = TcpStream;

/// Connects to the main server: name resolution and every address it has
/// within `limit`.
///
/// # Errors
/// Why there is no connection, as one line.
pub async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<Stream, String> {
    let deadline = Instant::now() + limit;
    let lookup = lookup_host((endpoint.host(), endpoint.port()));
    let addresses: Vec<SocketAddr> = match timeout_at(deadline, lookup).await {
        Err(_) => {
            return Err(format!(
                "timed out after {limit:?} while resolving its name"
            ));
        }
        Ok(Err(error)) => return Err(format!("cannot resolve its name: {error}")),
        Ok(Ok(addresses)) => addresses.collect(),
    };
    connect_any(&addresses, deadline)
        .await
        .map_err(|error| match error {
            Some(error) => format!("cannot connect: {error}"),
            None => format!("timed out after {limit:?} while connecting"),
        })
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

/// What went over a [`Metered`] stream; shared with whoever waits for it.
#[derive(Debug)]
pub(super) struct Traffic {
    opened: Instant,
    /// Bytes.
    received: AtomicU64,
    /// Milliseconds from `opened` to the last byte that the kernel took.
    sent_at: AtomicU64,
}

impl Traffic {
    /// Bytes received since the connection was made.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// When the last byte was sent.
    pub(super) fn sent_at(&self) -> Instant {
        self.opened + Duration::from_millis(self.sent_at.load(Ordering::Relaxed))
    }
}

/// A stream that keeps account in a [`Traffic`].
pub(super) struct Metered {
    stream: Stream,
    traffic: Arc<Traffic>,
}

impl Metered {
    pub(super) fn new(stream: Stream) -> (Metered, Arc<Traffic>) {
        let traffic = Arc::new(Traffic {
            opened: Instant::now(),
            received: AtomicU64::new(0),
            sent_at: AtomicU64::new(0),
        });
        let metered = Metered {
            stream,
            traffic: Arc::clone(&traffic),
        };
        (metered, traffic)
    }

    fn note_sent(&self) {
        let millis = self.traffic.opened.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.traffic.sent_at.store(millis, Ordering::Relaxed);
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let bytes = (buf.filled().len() - before) as u64;
        self.traffic.received.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.note_sent();
        Poll::Ready(Ok(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.note_sent();
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
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
