//! Ends of a connection: a scripted client, and hyper behind the adapter.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use echopost::ingest::authority::AuthorityAdapter;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, ReadBuf, duplex};

use crate::support::wire::{Frame, GOAWAY, HEADERS, RST_STREAM};

/// A client whose bytes come one part a read, with nothing to read in between.
pub struct Scripted {
    parts: VecDeque<Vec<u8>>,
    waited: bool,
    /// After the last part: the end, or silence.
    ends: bool,
    answers: DuplexStream,
}

impl Scripted {
    pub fn new(parts: Vec<Vec<u8>>, ends: bool) -> (Self, DuplexStream) {
        let (answers, reader) = duplex(1 << 20);
        let scripted = Scripted {
            parts: parts.into(),
            waited: false,
            ends,
            answers,
        };
        (scripted, reader)
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waited = !self.waited;
        if self.waited && !self.parts.is_empty() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(mut part) = self.parts.pop_front() else {
            return if self.ends {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        };
        let rest = part.split_off(part.len().min(buf.remaining()));
        buf.put_slice(&part);
        if !rest.is_empty() {
            self.waited = true;
            self.parts.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.answers).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What comes out of the adapter when these parts go in.
pub async fn adapted(parts: Vec<Vec<u8>>) -> io::Result<Vec<u8>> {
    let (client, _answers) = Scripted::new(parts, true);
    let mut bytes = Vec::new();
    AuthorityAdapter::new(client, Arc::default())
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes)
}

/// A request as hyper understood it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    pub authority: String,
    pub path: String,
    pub fields: BTreeMap<String, Vec<u8>>,
    pub body: usize,
}

#[derive(Debug, Default)]
pub struct Outcome {
    /// In the order of arrival.
    pub seen: Vec<Seen>,
    /// Streams that were answered with status 200.
    pub served: Vec<u32>,
    /// Streams that were reset.
    pub reset: Vec<u32>,
    /// The connection was given up.
    pub dropped: bool,
}

impl Outcome {
    pub fn authorities(&self) -> Vec<&str> {
        self.seen
            .iter()
            .map(|seen| seen.authority.as_str())
            .collect()
    }
}

/// Lets hyper serve these parts until it has answered `requests` of them, in
/// whatever way.
pub async fn serve(parts: Vec<Vec<u8>>, requests: usize) -> Outcome {
    let (client, mut answers) = Scripted::new(parts, false);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            let field =
                |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
                    (name.to_string(), value.as_bytes().to_vec())
                };
            let body = body.collect().await.map(|body| body.to_bytes().len());
            seen.lock().unwrap().push(Seen {
                authority: head.uri.authority().unwrap().to_string(),
                path: head.uri.path().to_string(),
                fields: head.headers.iter().map(field).collect(),
                body: body.unwrap_or_default(),
            });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let adapter = TokioIo::new(AuthorityAdapter::new(client, Arc::default()));
    let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(adapter, service);
    let mut outcome = tokio::select! {
        biased;
        outcome = collect(&mut answers, requests) => outcome,
        _ = connection => Outcome { dropped: true, ..Outcome::default() },
    };
    outcome.seen = std::mem::take(&mut seen.lock().unwrap());
    outcome
}

async fn collect(answers: &mut DuplexStream, requests: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut input = Vec::new();
    while outcome.served.len() + outcome.reset.len() < requests && !outcome.dropped {
        let Some(frame) = Frame::take(&mut input) else {
            outcome.dropped = !matches!(answers.read_buf(&mut input).await, Ok(1..));
            continue;
        };
        match frame.kind {
            // Entry 8 of the static table is ":status 200".
            HEADERS if frame.payload.first() == Some(&0x88) => outcome.served.push(frame.stream),
            RST_STREAM => outcome.reset.push(frame.stream),
            GOAWAY => outcome.dropped = true,
            _ => {}
        }
    }
    outcome
}
