//! From a name to addresses.

use std::net::SocketAddr;

use tokio::net::lookup_host;

/// The addresses of a host. Nothing is kept: an outage may end with the name
/// somewhere else.
///
/// # Errors
/// Why there is none, as one line.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    lookup_host((host, port))
        .await
        .map(Iterator::collect)
        .map_err(|error| format!("cannot resolve its name: {error}"))
}
