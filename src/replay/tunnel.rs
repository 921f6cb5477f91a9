//! A tunnel through an HTTP proxy to the main server.

use hyper::client::conn::http1::Builder;
use hyper::header::{self, HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;

use super::USER_AGENT;
use super::body::Body;
use super::connection::chain;
use super::server::Peer;
use super::stream::Stream;
use crate::limits::TUNNEL_ANSWER_MAX;

/// Asks the HTTP proxy at the other end of `stream` for a tunnel to `server` (RFC 9110,
/// 9.3.6).
///
/// # Errors
/// Why there is none, as one line.
pub(super) async fn open(stream: Stream, proxy: &Peer, server: &Peer) -> Result<Stream, String> {
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
    let (mut sender, connection) = Builder::new()
        .title_case_headers(true)
        .max_buf_size(TUNNEL_ANSWER_MAX)
        .handshake(TokioIo::new(stream))
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
    Ok(parts.io.into_inner())
}
