//! Sending records on (spec 6): the pure rules, the HTTP client, the loop.

mod authority;
pub mod backoff;
pub mod body;
mod connect;
mod connection;
mod credentials;
pub mod delivered;
mod dial;
pub mod disposition;
pub mod endpoint;
mod head;
pub mod http;
pub mod jitter;
mod no_proxy;
pub mod patience;
pub mod proxy;
pub mod redact;
pub mod redirect;
pub mod replayer;
mod resolve;
pub mod retry_after;
#[cfg(feature = "tls")]
mod roots;
pub mod route;
pub mod schedule;
pub mod set_aside;
mod socks;
mod stream;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tunnel;

/// What the agent calls itself to servers and proxies.
const USER_AGENT: &str = concat!("echopost/", env!("CARGO_PKG_VERSION"));
