//! Sending records on (spec 6): the pure rules, the HTTP client, the loop.

pub mod backoff;
pub mod body;
pub mod breaks;
mod connect;
mod connection;
mod credentials;
pub mod delivered;
pub mod dice;
pub mod http;
pub mod pace;
pub mod patience;
pub mod proxy;
pub mod replayer;
mod resolve;
pub mod retry_after;
#[cfg(feature = "tls")]
mod roots;
pub mod route;
pub mod server;
pub mod set_aside;
mod socks;
mod stream;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tunnel;
pub mod verdict;

/// What the agent calls itself to servers and proxies.
const USER_AGENT: &str = concat!("echopost/", env!("CARGO_PKG_VERSION"));
