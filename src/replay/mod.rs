//! Sending records on (spec 6): the pure rules, the HTTP client, the loop.

pub mod api_keys;
pub mod backoff;
pub mod body;
mod connect;
mod connection;
mod credentials;
pub mod delivered;
pub mod disposition;
mod head;
pub mod http;
pub mod patience;
pub mod proxy;
pub mod redact;
pub mod replayer;
mod resolve;
pub mod retry_after;
#[cfg(feature = "tls")]
mod roots;
pub mod route;
pub mod schedule;
pub mod server;
pub mod set_aside;
mod socks;
mod stream;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tunnel;

/// What the agent calls itself to servers and proxies.
const USER_AGENT: &str = concat!("echopost/", env!("CARGO_PKG_VERSION"));
