//! The two programs that send a failure log again, as child processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/examples/deploy/resend.py"
);

/// The client example, or `resend.py` with this Python.
pub enum Program {
    Client,
    Script(PathBuf),
}

/// What a program printed on both its outputs, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub all: String,
}

impl Program {
    /// Runs it on the agent in `folder`; `arguments` begin with the file.
    pub fn run(&self, folder: &Path, arguments: &[&Path], api_key: Option<&str>) -> Said {
        let mut command = match self {
            Program::Client => {
                let mut command = Command::new(client());
                command.arg("--datanadhi").arg(folder).arg("--from");
                command
            }
            Program::Script(python) => {
                let mut command = Command::new(python);
                let socket = folder.join("data-nadhi-agent.sock");
                command.arg(SCRIPT).arg(socket);
                command
            }
        };
        command.args(arguments);
        match (self, api_key) {
            (Program::Client, Some(key)) => command.arg("--api-key").arg(key),
            (Program::Script(_), Some(key)) => command.env("OWN_API_KEY", key),
            (Program::Script(_), None) => command.env_remove("OWN_API_KEY"),
            (Program::Client, None) => &mut command,
        };
        said(&mut command)
    }

    /// Runs the client where no file can grow beyond a kilobyte.
    pub fn run_with_small_files(&self, folder: &Path, file: &Path) -> Said {
        let mut command = Command::new("bash");
        let limited = r#"trap '' XFSZ; ulimit -f 1; exec "$0" "$@""#;
        command.arg("-c").arg(limited).arg(client());
        command.arg("--datanadhi").arg(folder);
        command.arg("--from").arg(file);
        said(&mut command)
    }
}

/// Runs a command to its end.
pub fn said(command: &mut Command) -> Said {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Said {
        code: status.code().expect("an exit code"),
        all: [stdout, stderr]
            .map(|output| String::from_utf8_lossy(&output).into_owned())
            .concat(),
    }
}

/// The built client: in `examples/` beside the folder of this executable.
fn client() -> PathBuf {
    let tests = std::env::current_exe().expect("this executable");
    let profile = tests.ancestors().nth(2).expect("target/<profile>");
    let client = profile.join("examples/client");
    assert!(
        client.exists(),
        "{} is missing: `cargo test` builds it, and so does `cargo build --example client`",
        client.display()
    );
    client
}
