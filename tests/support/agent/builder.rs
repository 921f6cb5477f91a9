//! How an agent is started.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Agent, BUILT};

/// How an agent is to be started.
pub struct Builder {
    pub(super) command: Command,
    pub(super) folder: PathBuf,
    pub(super) stdout: Option<Stdio>,
}

impl Builder {
    pub fn health_url(self, url: &str) -> Builder {
        self.arg("-health-url").arg(url)
    }

    pub fn api_key(self, key: &str) -> Builder {
        self.arg("-api-key").arg(key)
    }

    pub fn arg(mut self, arg: &str) -> Builder {
        self.command.arg(arg);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.command.env(name, value);
        self
    }

    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Builder {
        self.command.stdin(stdin);
        self
    }

    /// With `library` between the agent and the C library. What may be static loads none:
    /// it is the agent that Cargo has built.
    pub fn preload(mut self, library: &Path) -> Builder {
        let built = |part| match part == Agent::executable() {
            true => OsStr::new(BUILT.expect("built as an integration test")),
            false => part,
        };
        let mut command = Command::new(built(self.command.get_program()));
        command.args(self.command.get_args().map(built));
        command.stdin(Stdio::null());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("LD_PRELOAD", library);
        self.command = command;
        self
    }

    /// In place of the file that [`Agent::stdout`] and [`Agent::events`] look at.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Builder {
        self.stdout = Some(stdout.into());
        self
    }

    /// Starts it, with stdout and stderr in unnamed files: nothing that could
    /// fill up, nothing that must be drained, and all there once it has ended.
    pub fn spawn(mut self) -> Agent {
        let stdout = tempfile::tempfile().expect("a temporary file");
        let stderr = tempfile::tempfile().expect("a temporary file");
        let given = self.stdout.take();
        self.command
            .stdout(given.unwrap_or_else(|| stdout.try_clone().expect("a second handle").into()))
            .stderr(stderr.try_clone().expect("a second handle"));
        let started = Instant::now();
        let child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("start {:?}: {error}", self.command));
        Agent {
            child,
            folder: self.folder,
            stdout,
            stderr,
            started,
        }
    }
}
