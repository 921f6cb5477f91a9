//! Taking records in (spec 3): socket, connection, call, and on to the store.

pub mod activation;
pub mod activity;
#[cfg(target_os = "linux")]
pub mod agent_folder;
#[cfg(not(target_os = "linux"))]
#[path = "agent_folder_elsewhere.rs"]
pub mod agent_folder;
pub mod authority;
pub mod budget;
pub mod connection;
pub mod doorway;
pub mod frames;
pub mod hpack;
pub mod huffman;
pub mod labels;
pub mod reply;
pub mod request;
pub mod server;
pub mod service;
pub mod socket;
