//! One client's connection: h2 behind the `:authority` adapter, and tonic's service in
//! it.
//!
//! hyper's server is h2 with credit that is given back with every read. A call that
//! waits can then not read on without being sent more, and what it does not read keeps
//! the whole buffers that it came in: measured, 268 MiB where spec 3 allows 48, and two
//! windows a call instead of one. So h2 is driven here as hyper drives it, but for that.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::{HeaderMap, HeaderName};
use hyper::{Request, Response};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::ingest::admission::{Admission, Admitted};
use crate::ingest::authority::AuthorityAdapter;
use crate::ingest::body::RequestBody;
use crate::ingest::service::{IDEMPOTENCY_KEY, IngestService, SEND_LOG};
use crate::limits::{HEADER_LIST_MAX, PATH_SHOWN, SEND_BUFFER_MAX, STREAM_WINDOW};
use crate::proto::logagent::log_agent_server::LogAgentServer;

/// The generated service, around ours.
pub type LogAgent = LogAgentServer<IngestService>;

/// Serves a client on a task of its own.
pub fn serve(stream: UnixStream, admission: &Arc<Admission>, service: &LogAgent) {
    tokio::spawn(drive(stream, admission.admit(), service.clone()));
}

async fn drive(stream: UnixStream, admitted: Admitted, service: LogAgent) {
    let peer = &admitted.peer;
    let stream = AuthorityAdapter::new(stream, Arc::clone(&peer.ending));
    let handshake = Builder::new()
        .max_concurrent_streams(peer.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(peer.streams * STREAM_WINDOW)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .handshake(stream);
    let told_long_ago = async {
        peer.closed().await;
        sleep(admitted.admission.close_grace()).await;
    };
    let mut connection = tokio::select! {
        // In this order: on a busy machine the time may be over before the first look.
        biased;
        shaken = handshake => match shaken {
            Ok(connection) => connection,
            Err(_) => return,
        },
        // A client that has begun to speak is heard out.
        () = told_long_ago => return,
    };
    let calls = Calls {
        admitted: &admitted,
        service,
    };
    tokio::select! {
        // In this order: calls that have come are begun.
        biased;
        () = calls.accept(&mut connection) => return,
        () = peer.closed() => connection.graceful_shutdown(),
    }
    // A client that does not react to GOAWAY cannot keep its place.
    while timeout(
        admitted.admission.close_grace(),
        calls.accept(&mut connection),
    )
    .await
    .is_err()
        && peer.is_calling()
    {}
}

/// Begins the calls of a connection.
struct Calls<'a> {
    admitted: &'a Admitted,
    service: LogAgent,
}

impl Calls<'_> {
    /// Begins every call until the connection ends. A broken connection is the client's
    /// affair: its calls were answered, or are not acknowledged.
    async fn accept(&self, connection: &mut Connection<AuthorityAdapter<UnixStream>, Bytes>) {
        while let Some(Ok((request, respond))) = connection.accept().await {
            self.begin(request, respond);
        }
    }

    fn begin(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let call = self.admitted.call();
        let (mut head, body) = request.into_parts();
        // Decoded, headers take many times their size on the wire: of those that the
        // call waits with, none but this is of use.
        head.headers = only(IDEMPOTENCY_KEY, head.headers);
        let body = RequestBody::new(body, Arc::clone(&call));
        head.extensions.insert(Arc::clone(&call));
        let request = Request::from_parts(head, body);
        let answer = match request.uri().path() {
            SEND_LOG => self.service.clone().call(request),
            _ => Box::pin(refuse(request)),
        };
        begin_at_once(async move {
            if let Some(Ok(answer)) = unless_reset(&mut respond, answer).await {
                // A client that is gone needs no answer.
                let _ = send(&mut respond, answer).await;
            }
            drop(call);
        });
    }
}

/// Begins a call where it is found, before the next connection is read: what has come of
/// it is then copied out of the buffers that it came in, of which one is kept for all.
fn begin_at_once(call: impl Future<Output = ()> + Send + 'static) {
    let mut call = Box::pin(call);
    // Nothing is missed: as a task it is polled again.
    let mut noop = Context::from_waker(Waker::noop());
    if call.as_mut().poll(&mut noop).is_pending() {
        tokio::spawn(call);
    }
}

fn only(name: HeaderName, mut headers: HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    if let Some(value) = headers.remove(&name) {
        kept.insert(name, value);
    }
    kept
}

/// Any other method.
async fn refuse(request: Request<RequestBody>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path();
    let shown = path.get(..path.floor_char_boundary(PATH_SHOWN));
    let shown = shown.unwrap_or_default();
    let refusal = Status::unimplemented(format!(
        "{shown} is not a method of this agent; {SEND_LOG} is"
    ));
    let mut body = request.into_body().refused(refusal.clone());
    let _ = body.frame().await;
    Ok(refusal.into_http())
}

/// Does `work`, but no further once the client has reset its call: `None` then.
async fn unless_reset<T>(
    respond: &mut SendResponse<Bytes>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    })
    .await
}

/// A message and its trailers, or a status alone (gRPC over HTTP/2: Response).
async fn send(respond: &mut SendResponse<Bytes>, answer: Response<Body>) -> Result<(), h2::Error> {
    let (head, mut body) = answer.into_parts();
    let mut stream = respond.send_response(Response::from_parts(head, ()), body.is_end_stream())?;
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) => stream.send_data(data, false)?,
            Err(frame) => stream.send_trailers(frame.into_trailers().unwrap_or_default())?,
        }
    }
    Ok(())
}
