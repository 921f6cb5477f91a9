//! replay
pub mod backoff;
pub mod body;
mod connection;
pub mod dice;
pub mod endpoint;
pub mod http;
pub mod patience;
pub mod redirect;
pub mod retry_after;
pub mod stream;
pub mod verdict;
