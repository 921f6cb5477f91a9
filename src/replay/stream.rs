//! The connection to the main server below HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;

use super::head::HeadScan;

/// What HTTP is spoken over. TLS may be in TLS: a proxy has its own.
pub(super) enum Stream {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<Stream>>),
}

impl Stream {
    /// Whether something waits to be read, the end included. What tokio knows is as
    /// old as its last look at all sockets.
    fn has_unread(&self) -> bool {
        match self {
            Stream::Plain(stream) => {
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                rustix::net::recv(stream, &mut [0; 1], flags) != Err(Errno::AGAIN)
            }
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => stream.get_ref().0.has_unread(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => match ready!(Pin::new(stream).poll_read(cx, buf)) {
                // Many servers close without TLS's own goodbye. HTTP knows by
                // itself where an answer ends; only the text of one without a
                // length could be cut short unseen, and no disposition rests on it.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What went over a [`Metered`] stream, and what may; shared with the exchange that waits for
/// it.
#[derive(Debug)]
pub(super) struct Traffic {
    opened: Instant,
    /// Nothing is to come before something is sent.
    quiet: AtomicBool,
    /// Bytes.
    received: AtomicU64,
    /// Milliseconds from `opened` to the last byte that the kernel took.
    sent_at: AtomicU64,
    /// Of the answer at hand.
    head: Mutex<HeadScan>,
}

impl Traffic {
    /// Bytes received since the connection was made.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// An answer's head comes next.
    pub(super) fn expect_head(&self) {
        *self.head() = HeadScan::default();
    }

    /// Whether not every client would have read the last head alike: what comes after it
    /// on the connection might be read as another answer.
    pub(super) fn head_was_odd(&self) -> bool {
        self.head().is_odd()
    }

    fn head(&self) -> MutexGuard<'_, HeadScan> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is to be read before the next byte is sent: the write fails if there
    /// is. It would be taken for the answer to what is sent.
    pub(super) fn expect_quiet(&self) {
        self.quiet.store(true, Ordering::Relaxed);
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
            quiet: AtomicBool::new(false),
            received: AtomicU64::new(0),
            sent_at: AtomicU64::new(0),
            head: Mutex::default(),
        });
        let metered = Metered {
            stream,
            traffic: Arc::clone(&traffic),
        };
        (metered, traffic)
    }

    fn check_quiet(&self) -> io::Result<()> {
        if self.traffic.quiet.swap(false, Ordering::Relaxed) && self.stream.has_unread() {
            let why = "something came that nobody has asked for";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(())
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
        let came = buf.filled().get(before..).unwrap_or_default();
        self.traffic.head().feed(came);
        let bytes = came.len() as u64;
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
        self.check_quiet()?;
        let bytes = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.note_sent();
        Poll::Ready(Ok(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_quiet()?;
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
    use std::io::Write as _;
    use std::net::{Ipv4Addr, TcpListener};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn pair() -> (Metered, Arc<Traffic>, std::net::TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (metered, traffic) = Metered::new(Stream::Plain(stream.unwrap()));
        (metered, traffic, listener.accept().unwrap().0)
    }

    /// Nothing here looks at the sockets between what comes and the next write.
    #[tokio::test]
    async fn what_nobody_has_asked_for_is_seen_before_the_next_write() {
        let (mut stream, traffic, mut server) = pair().await;
        traffic.expect_quiet();
        stream.write_all(b"request").await.unwrap();
        server.write_all(b"stray").unwrap();
        // A request was sent.
        stream.write_all(b"request").await.unwrap();
        traffic.expect_quiet();
        let error = stream.write_all(b"request").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (mut stream, traffic, server) = pair().await;
        drop(server);
        traffic.expect_quiet();
        assert!(stream.write_all(b"request").await.is_err());
    }
}
