//! A client in another language: it is told what to do, a line at a time, and answers
//! with a line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::venv;

/// Longer than any client of these waits for its call.
const DEADLINE: Duration = Duration::from_secs(180);

/// A running client, killed when dropped.
pub struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Program {
    /// `channel.py` on a channel with these settings.
    pub fn grpcio(socket: &Path, settings: &Value) -> Program {
        let mut python = Command::new(venv::python());
        python
            .env("PYTHONPATH", folder("grpcio"))
            .arg(format!("{}/channel.py", folder("clients")))
            .arg(target(socket))
            .arg(settings.to_string());
        Program::start(python)
    }

    pub fn start(mut command: Command) -> Program {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                // The receiver is gone once the test has failed.
                if sender.send(line.expect("UTF-8")).is_err() {
                    return;
                }
            }
        });
        Program {
            stdin: child.stdin.take(),
            child,
            answers,
        }
    }

    /// Tells it what to do, and waits until that is done.
    pub fn ask(&mut self, order: &Value) -> Value {
        self.tell(order);
        self.hear()
    }

    /// Tells it what to do.
    pub fn tell(&mut self, order: &Value) {
        let stdin = self.stdin.as_mut().expect("not closed");
        writeln!(stdin, "{order}").expect("tell the client");
    }

    /// Waits until it has done what it was told first.
    pub fn hear(&self) -> Value {
        let answer = self.answers.recv_timeout(DEADLINE);
        let answer = answer.unwrap_or_else(|error| panic!("no answer of the client: {error}"));
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer:?}: {error}"))
    }

    /// Tells it that this was all.
    pub fn end(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().expect("wait for the client");
        assert!(status.success(), "the client: {status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What gRPC's clients call the socket.
pub fn target(socket: &Path) -> String {
    format!("unix:{}", socket.to_str().expect("UTF-8"))
}

/// A folder of the tests.
pub fn folder(name: &str) -> String {
    format!("{}/tests/sdk/{name}", env!("CARGO_MANIFEST_DIR"))
}
