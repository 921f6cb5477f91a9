//! EchoPost keeps an application's log records on disk while the main server
//! is away, replays them in order once it is back, and leaves.

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
pub mod replay;
pub mod session;
pub mod stdout;
pub mod store;
// Static executables bring an unwinder of their own.
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
