//! Sending records on (spec 6): the pure rules, the HTTP client, the loop.

pub mod backoff;
pub mod body;
mod connection;
pub mod dice;
pub mod done;
pub mod endpoint;
pub mod http;
pub mod pace;
pub mod patience;
pub mod redirect;
pub mod replayer;
pub mod retry_after;
pub mod set_aside;
pub mod stream;
pub mod verdict;
