//! A tunnel through a proxy to the main server.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use hyper::client::conn::http1::Builder;
use hyper::header::{self, HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, Uri};
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use tower_service::Service;

use super::USER_AGENT;
use super::body::Body;
use super::connection::chain;
use super::server::Peer;
use super::stream::{Metered, Stream};
use crate::limits::{ANSWER_HEADS_MAX, TUNNEL_ANSWER_MAX};

/// Asks the SOCKS5 proxy at the other end of `stream` for a tunnel to `server`, whose name
/// the proxy resolves.
///
/// # Errors
/// Why there is none, as one line.
pub(super) async fn socks5(stream: Stream, proxy: &Peer, server: &Peer) -> Result<Stream, String> {
    let mut socks = SocksV5::new(proxy.url.clone(), Opened(Some(TokioIo::new(stream))));
    if let Some(login) = &proxy.credentials {
        socks = socks.with_auth(login.user.clone(), login.password.clone());
    }
    let tunnel = socks.call(server.target()?).await;
    tunnel
        .map(TokioIo::into_inner)
        .map_err(|error| format!("no tunnel: {error}"))
}

/// Hands out a connection that is there already, once.
struct Opened(Option<TokioIo<Stream>>);

impl Service<Uri> for Opened {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take();
        ready(stream.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// Asks the HTTP proxy at the other end of `stream` for a tunnel to `server` (RFC 9110,
/// 9.3.6).
///
/// # Errors
/// Why there is none, as one line.
pub(super) async fn connect(stream: Stream, proxy: &Peer, server: &Peer) -> Result<Stream, String> {
    let broken = |error| format!("no tunnel: {}", chain(&error));
    let mut request = Request::new(Body::default());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = server.target()?;
    let host =
        HeaderValue::try_from(request.uri().to_string()).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    if let Some(value) = proxy.authorization() {
        headers.insert(PROXY_AUTHORIZATION, value.clone());
    }
    let (metered, traffic) = Metered::new(stream);
    // Answers like 103, which are none yet, could come for ever.
    traffic.let_in(ANSWER_HEADS_MAX);
    let (mut sender, connection) = Builder::new()
        .title_case_headers(true)
        .max_buf_size(TUNNEL_ANSWER_MAX)
        .handshake(TokioIo::new(metered))
        .await
        .map_err(broken)?;
    let answered = async move {
        let answer = sender.send_request(request).await.map_err(broken)?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status @ (401 | 407) => {
                Err(format!("no tunnel: it wants other credentials ({status})"))
            }
            status => Err(format!("no tunnel: it answered {status}")),
        }
    };
    let handed_over = async { connection.without_shutdown().await.map_err(broken) };
    let ((), parts) = tokio::try_join!(answered, handed_over)?;
    Ok(parts.io.into_inner().into_stream())
}
