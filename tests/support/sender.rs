//! A gRPC client on the agent's socket.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use echopost::proto::logagent::{LogRequest, LogResponse};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper::http::uri::PathAndQuery;
use hyper::{Uri, http};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use super::agent::Agent;
use super::samples::Sample;

/// Sends records, over one connection or over a new one for each call.
pub struct Sender {
    socket: PathBuf,
    kept: Option<Mutex<Option<SendRequest<Body>>>>,
}

impl Sender {
    /// One connection, made at the first call and again when it is lost. Calls
    /// in flight at the same time share it.
    pub fn keeping(socket: &Path) -> Sender {
        Sender {
            socket: socket.to_owned(),
            kept: Some(Mutex::new(None)),
        }
    }

    /// A new connection for every call, as the SDK makes them.
    pub fn reconnecting(socket: &Path) -> Sender {
        Sender {
            socket: socket.to_owned(),
            kept: None,
        }
    }

    /// Over a connection that is made already, the stream being non-blocking.
    pub async fn on(stream: std::os::unix::net::UnixStream) -> Result<Sender, Status> {
        let socket = PathBuf::new();
        let kept = handshake(UnixStream::from_std(stream).map_err(unavailable)?).await?;
        let kept = Some(Mutex::new(Some(kept)));
        Ok(Sender { socket, kept })
    }

    pub async fn send(
        &self,
        json: &str,
        pipelines: &[&str],
        api_key: &str,
    ) -> Result<LogResponse, Status> {
        let request = LogRequest {
            json_data: json.as_bytes().to_vec().into(),
            pipelines: pipelines.iter().map(|&name| name.to_owned()).collect(),
            api_key: api_key.to_owned(),
        };
        self.call(request, None).await
    }

    pub async fn send_sample(&self, sample: &Sample) -> Result<LogResponse, Status> {
        self.call(sample.request(), sample.idempotency_key.as_deref())
            .await
    }

    /// One call, with the metadata `idempotency-key` when there is one.
    pub async fn call(
        &self,
        request: LogRequest,
        idempotency_key: Option<&str>,
    ) -> Result<LogResponse, Status> {
        let mut request = Request::new(request);
        if let Some(key) = idempotency_key {
            let key = key
                .parse()
                .map_err(|_| Status::invalid_argument(format!("idempotency-key {key:?}")))?;
            request.metadata_mut().insert("idempotency-key", key);
        }
        let origin = Uri::from_static("http://localhost");
        let mut grpc = Grpc::with_origin(Channel(self.connection().await?), origin);
        grpc.ready().await.map_err(unavailable)?;
        let path = PathAndQuery::from_static("/logagent.LogAgent/SendLog");
        let answer = grpc.unary(request, path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    /// One call of `path` with this very body, whatever it is; the status, with
    /// code OK after a success.
    pub async fn raw(&self, path: &str, body: Vec<u8>) -> Status {
        let request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::new(Full::new(Bytes::from(body))))
            .expect("a request");
        let answer = async {
            let mut connection = self.connection().await?;
            let answer = connection.send_request(request).await;
            let (head, body) = answer.map_err(unavailable)?.into_parts();
            // An answer without a message has its status among the headers.
            if let Some(status) = Status::from_header_map(&head.headers) {
                return Ok(status);
            }
            let body = body.collect().await.map_err(unavailable)?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Status::from_header_map(&trailers).ok_or_else(|| unavailable("no grpc-status"))
        };
        answer.await.unwrap_or_else(|status| status)
    }

    async fn connection(&self) -> Result<SendRequest<Body>, Status> {
        let Some(kept) = &self.kept else {
            return self.connect().await;
        };
        let mut kept = kept.lock().await;
        match &*kept {
            Some(connection) if !connection.is_closed() => Ok(connection.clone()),
            _ => Ok(kept.insert(self.connect().await?).clone()),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Status> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(unavailable)?;
        handshake(stream).await
    }
}

async fn handshake(stream: UnixStream) -> Result<SendRequest<Body>, Status> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(unavailable)?;
    // Ends by itself once all its senders are dropped; its error is told to
    // the calls in flight.
    tokio::spawn(connection);
    Ok(sender)
}

impl Agent {
    /// Has it store a record, over a connection of its own as the SDK does it.
    #[track_caller]
    pub fn send(&self, json: &str) {
        send(&self.socket(), json);
    }
}

/// The same with any socket.
#[track_caller]
pub fn send(socket: &Path, json: &str) {
    let answer = block_on(Sender::reconnecting(socket).send(json, &["p"], ""));
    assert!(answer.expect("an answer").success);
}

/// Runs a future with a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

/// One HTTP/2 connection as tonic wants it.
struct Channel(SendRequest<Body>);

type Answering =
    Pin<Box<dyn Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>> + Send>>;

impl GrpcService<Body> for Channel {
    type ResponseBody = hyper::body::Incoming;
    type Error = hyper::Error;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        Box::pin(self.0.send_request(request))
    }
}
