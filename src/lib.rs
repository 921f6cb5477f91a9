//! EchoPost keeps an application's log records on disk while the main server
//! is away, replays them in order once it is back, and leaves.
//!
//! | module | what |
//! |---|---|
//! | [`cli`], [`error`], [`limits`] | the flags; the one error type with its exit codes; every limit and timing, with its reason |
//! | [`ingest`] | the socket and its name, connections (h2), what clients may hold (`admission`), a request's body, the gRPC service (tonic). `authority` adapts the stream for clients that send a path as `:authority` |
//! | [`store`] | the one task that owns LMDB, the child that verifies a store, the scan that carries a damaged one's records over. What is on disk and what holds at every moment is in [`store`] |
//! | [`replay`] | the pure rules (`disposition`, `patience`, `backoff`, `schedule`, `retry_after`, `api_keys`), the way to the server (`server`, `proxy`, `route`, `resolve`, `connect`, `tunnel`, `socks`, `tls`, `connection`), the HTTP client, the loop; `redact` keeps secrets out of what the others say |
//! | [`lifecycle`] | start, buffering, replaying, leaving, signals |
//! | [`folder`], [`session`], [`log`], [`events`], [`stdout`] | the base folder and its lock; a run's logs; the events in them |
//!
//! A record's way: socket, `ingest::connection`, `ingest::body`, `ingest::service`,
//! `store::writer`, LMDB, `replay::replayer`, `replay::http`, `POST`, `replay::delivered`
//! (delete).
//!
//! One current-thread runtime carries all of it. No module imports upward: `lifecycle` knows
//! `ingest`, `store` and `replay`, which know each other by the store's handle alone.
//!
//! Two things surprise a reader. gRPC clients on UNIX sockets send the socket's path as
//! `:authority`, which HTTP/2 libraries refuse; `ingest::authority` rewrites it in place. And
//! LMDB runs without its lock file: the folder's flock keeps other agents away, one task owns
//! the store, and a lock file on a full disk is a SIGBUS.

// A panic ends the process, and with it the buffer.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod cli;
pub mod error;
pub mod events;
pub mod folder;
pub mod ingest;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod memory;
pub mod random;
pub mod replay;
pub mod session;
pub mod stdout;
pub mod store;
// Static executables bring an unwinder of their own, which glibc's parts call.
#[cfg(all(
    panic = "abort",
    target_os = "linux",
    target_env = "gnu",
    not(target_feature = "crt-static")
))]
mod unwind;

use std::io::Write;
use std::process::ExitCode;

use cli::Command;

/// The messages of `proto/`, generated at build time.
pub mod proto {
    #![allow(missing_docs)]
    #![allow(clippy::default_constructed_unit_structs)] // tonic's way to name a codec
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
#[must_use]
pub fn main() -> ExitCode {
    let variable = |name: &str| std::env::var_os(name);
    let ended = match cli::parse(std::env::args_os().skip(1), variable) {
        Ok(Command::Run(config)) => lifecycle::run(*config),
        Ok(Command::Help) => print(cli::HELP),
        Ok(Command::Version) => print(&format!("echopost {}\n", cli::VERSION)),
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever a name on the command line holds.
            let text = error.to_string().replace(char::is_control, "?");
            // A closed stderr is no reason to fail otherwise.
            let _ = writeln!(std::io::stderr(), "echopost: {text}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn print(text: &str) -> error::Result<()> {
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
