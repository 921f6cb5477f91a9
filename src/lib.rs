//! EchoPost keeps an application's log records on disk while the main server
//! is away, replays them in order once it is back, and leaves.

pub mod error;
pub mod ingest;
pub mod limits;
pub mod replay;
pub mod store;

/// The messages of `proto/`, generated at build time.
pub mod proto {
    #![allow(missing_docs)]
    /// What the SDKs speak (`proto/logagent.proto`).
    pub mod logagent {
        include!(concat!(env!("OUT_DIR"), "/logagent.rs"));
    }
    /// What the store holds (`proto/record.proto`).
    pub mod store {
        include!(concat!(env!("OUT_DIR"), "/echopost.store.rs"));
    }
}

/// Runs the agent with the process's own arguments.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
