//! Lets h2 serve gRPC clients that send a socket's path as `:authority`.
//!
//! grpc C-core, Swift and Java do so on UNIX sockets, and h2, hyper's HTTP/2 too, refuses
//! it as a `PROTOCOL_ERROR` (spec 3). The adapter stands between the accepted stream and
//! h2, and overwrites such values at equal length as they come in. It hides one more
//! thing from h2, once a connection is to end ([`Follower::is_ending`]), and closes it last.

pub mod frames;
pub mod hpack;
pub mod huffman;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::limits;
use frames::{Follower, TooLarge};

/// How a connection ends, as far as that is known.
#[derive(Debug, Default)]
pub struct Ending {
    /// It is asked to end ([`Follower::is_ending`]).
    pub asked: AtomicBool,
    /// The agent leaves, and lets the client close it. One that is evicted is closed by the
    /// agent: others wait for its place.
    pub by_client: AtomicBool,
}

/// An accepted stream whose read side makes every `:authority` acceptable.
///
/// Reading fails with `InvalidData` where a header block is larger than
/// [`limits::HEADER_BLOCK_MAX`], and with `TimedOut` where the client preface
/// or a begun frame header or header block is not whole within
/// [`limits::HEADER_STALL`]. Time between frames and in bodies does not count.
#[derive(Debug)]
pub struct AuthorityAdapter<S> {
    inner: S,
    follower: Follower,
    ending: Arc<Ending>,
    /// A frame header or header block that has not come whole; or one that has,
    /// and is on its way to the reader.
    held: Vec<u8>,
    /// So many bytes of `held` may go to the reader …
    released: usize,
    /// … and so many have gone.
    delivered: usize,
    /// Runs from the first wait in a preface, frame header or header block
    /// until that is whole.
    stall: Option<Pin<Box<Sleep>>>,
    /// Bytes that were read without a break.
    turn: usize,
    /// The write side has ended.
    is_shut: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AuthorityAdapter<S> {
    /// Adapts a stream from which nothing has been read yet.
    pub fn new(inner: S, ending: Arc<Ending>) -> Self {
        AuthorityAdapter {
            inner,
            ending,
            follower: Follower::default(),
            held: Vec::new(),
            released: 0,
            delivered: 0,
            stall: None,
            turn: 0,
            is_shut: false,
        }
    }

    /// Reads straight into the reader's buffer, and holds back its unfinished
    /// end. Answers whether the reader got something, or the end.
    fn read_through(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let fresh = buf.filled_mut().get_mut(before..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let released = match self.follower.feed(fresh) {
            Ok(released) => released,
            Err(error) => {
                buf.set_filled(before);
                return Poll::Ready(Err(too_large(error)));
            }
        };
        let unfinished = fresh.get(released..).unwrap_or_default();
        self.held.extend_from_slice(unfinished);
        buf.set_filled(before + released);
        self.note_progress(released);
        Poll::Ready(Ok(released > 0))
    }

    /// Reads what completes the held bytes and no more, so that nothing behind
    /// them has to be copied. The reader's buffer serves as the scratch space.
    fn read_missing(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let missing = self.follower.needed().saturating_sub(self.held.len());
        let scratch = buf.initialize_unfilled_to(missing.clamp(1, buf.remaining().max(1)));
        let mut fresh = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut fresh))?;
        if fresh.filled().is_empty() {
            // The client is gone: h2 may see what it left.
            self.follower.give_up();
        }
        self.held.extend_from_slice(fresh.filled());
        self.released = self.follower.feed(&mut self.held).map_err(too_large)?;
        self.note_progress(self.released);
        Poll::Ready(Ok(()))
    }

    /// Hands over what is released of the held bytes.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let ready = self
            .held
            .get(self.delivered..self.released)
            .unwrap_or_default();
        let part = ready.get(..buf.remaining()).unwrap_or(ready);
        buf.put_slice(part);
        self.delivered += part.len();
        if self.delivered == self.released {
            self.held.drain(..self.released);
            (self.released, self.delivered) = (0, 0);
        }
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }

    /// Whatever was unfinished is whole once bytes are released; the preface is
    /// released as it comes.
    fn note_progress(&mut self, released: usize) {
        if released > 0 && !self.follower.in_preface() {
            self.stall = None;
        }
    }

    /// The stream has nothing to read: waits for it, but not for ever.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() && !self.follower.in_preface() {
            return Poll::Pending;
        }
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(sleep(limits::HEADER_STALL)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client did not finish its preface or a header block in time",
        )))
    }
}

fn too_large(error: TooLarge) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for AuthorityAdapter<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.follower.is_ending = this.ending.asked.load(Relaxed);
        if this.turn >= limits::READ_TURN {
            // h2 reads on as long as there are frames, and one thread carries all.
            this.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        // Reading nothing would mean the end.
        while buf.remaining() > 0 {
            if this.released > 0 {
                this.deliver(buf);
                break;
            }
            let read = if this.held.is_empty() {
                this.read_through(cx, buf)
            } else {
                this.read_missing(cx, buf).map_ok(|()| false)
            };
            match read {
                Poll::Ready(Ok(true)) => break,
                Poll::Ready(Ok(false)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.turn = 0;
                    return this.wait(cx);
                }
            }
        }
        this.turn += buf.filled().len().saturating_sub(before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for AuthorityAdapter<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    /// Ends the write side; waits then for the client to close its own, where that may
    /// take a moment. A client that writes a call before it has read the last
    /// GOAWAY would meet a broken pipe, and its library fail the calls that GOAWAY has it
    /// send again.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.is_shut = true;
        }
        while this.ending.by_client.load(Relaxed) {
            let mut unread = [0; limits::DISCARD_SIZE];
            let mut unread = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut unread));
            if read.is_err() || unread.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
