//! A tunnel through a SOCKS5 proxy to the main server.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use tower_service::Service;

use super::server::Peer;
use super::stream::Stream;

/// Asks the SOCKS5 proxy at the other end of `stream` for a tunnel to `server`, whose name
/// the proxy resolves.
///
/// # Errors
/// Why there is none, as one line.
pub(super) async fn open(stream: Stream, proxy: &Peer, server: &Peer) -> Result<Stream, String> {
    let mut socks = SocksV5::new(proxy.url.clone(), Opened(Some(TokioIo::new(stream))));
    if let Some(credentials) = &proxy.credentials {
        let (user, password) = credentials.login()?;
        socks = socks.with_auth(user, password);
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
