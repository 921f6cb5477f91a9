//! Taking records in (spec 3). A record's way: [`socket`], [`server`], a
//! [`connection`], its [`body`] within what [`admission`] allows, the [`service`], and on
//! to the store.

pub mod admission;
#[cfg(target_os = "linux")]
pub mod agent_folder;
#[cfg(not(target_os = "linux"))]
#[path = "agent_folder_elsewhere.rs"]
pub mod agent_folder;
pub mod authority;
pub mod body;
pub mod codec;
pub mod connection;
pub mod inherited;
pub mod listener;
pub mod metadata;
pub mod server;
pub mod service;
pub mod socket;
mod stall;
