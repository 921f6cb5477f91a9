//! Servers written in Python, as child processes.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::servers::harness::{DEADLINE, Harness};
use crate::support::wait;
use crate::venv;

/// gunicorn, uvicorn and http.server end at once when nothing is in work.
const STOP: Duration = Duration::from_secs(20);

/// A running server, stopped when dropped.
pub struct Python(Child);

impl Python {
    /// gunicorn on the agent's port.
    pub fn gunicorn(harness: &Harness, options: &[&str]) -> Python {
        let bind = format!("127.0.0.1:{}", harness.port);
        gunicorn(harness, &bind, options, || is_listening(harness))
    }

    /// gunicorn on a UNIX socket, for Caddy.
    pub fn gunicorn_behind(harness: &Harness, options: &[&str]) -> Python {
        let socket = socket_behind(harness);
        let bind = format!("unix:{}", socket.display());
        // What a killed one leaves there is a file, too.
        gunicorn(harness, &bind, options, || {
            UnixStream::connect(&socket).is_ok()
        })
    }

    /// uvicorn on the agent's port.
    pub fn uvicorn(harness: &Harness, options: &[&str]) -> Python {
        let mut command = python(harness);
        command.args(["-m", "uvicorn", "--app-dir", scripts(), "asgi:application"]);
        command.args(["--http", "h11", "--loop", "asyncio", "--no-access-log"]);
        command.args(["--port", &harness.port.to_string()]);
        command.args(options);
        start(harness, command, || is_listening(harness))
    }

    /// http.server on the agent's port, speaking `protocol`.
    pub fn http_server(harness: &Harness, protocol: &str) -> Python {
        Python::http_server_turning_away(harness, protocol, 0)
    }

    /// The same, but so many POSTs are turned away unread at first.
    pub fn http_server_turning_away(harness: &Harness, protocol: &str, unread: u32) -> Python {
        let mut command = python(harness);
        command.arg(Path::new(scripts()).join("plain.py"));
        command.args([&harness.port.to_string(), protocol, &unread.to_string()]);
        start(harness, command, || is_listening(harness))
    }

    /// grpcio's server on the agent's port: HTTP/2 and nothing else.
    pub fn grpc(harness: &Harness) -> Python {
        let mut command = python(harness);
        let script = "import sys, grpc; from concurrent import futures; \
             server = grpc.server(futures.ThreadPoolExecutor(1)); \
             server.add_insecure_port('127.0.0.1:' + sys.argv[1]); \
             server.start(); server.wait_for_termination()";
        command.args(["-c", script, &harness.port.to_string()]);
        start(harness, command, || is_listening(harness))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.0.try_wait() {
            return;
        }
        // QUIT is gunicorn's quick end; it takes its workers along.
        signal(self.0.id().cast_signed(), Signal::QUIT);
        let ended = wait::within(STOP, || !matches!(self.0.try_wait(), Ok(None)));
        if !ended {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Where gunicorn listens for Caddy.
pub fn socket_behind(harness: &Harness) -> PathBuf {
    harness.folder.path().join("app.sock")
}

pub fn is_listening(harness: &Harness) -> bool {
    TcpStream::connect(("127.0.0.1", harness.port)).is_ok()
}

fn gunicorn(
    harness: &Harness,
    bind: &str,
    options: &[&str],
    ready: impl FnMut() -> bool,
) -> Python {
    let mut command = python(harness);
    command.args([
        "-m",
        "gunicorn",
        "--no-control-socket",
        "--chdir",
        scripts(),
    ]);
    command.args(["--bind", bind, "--worker-tmp-dir"]);
    command.arg(harness.folder.path());
    command.args(options);
    command.arg("wsgi:application");
    start(harness, command, ready)
}

fn python(harness: &Harness) -> Command {
    let mut command = Command::new(venv::python());
    command
        .env("JOURNAL", harness.journal())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn scripts() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/servers")
}

fn start(harness: &Harness, mut command: Command, mut ready: impl FnMut() -> bool) -> Python {
    let path = harness.folder.path().join("python.log");
    let log = File::options().create(true).append(true).open(&path);
    let log = log.expect("the server's log");
    command.stdout(log.try_clone().expect("a second handle"));
    command.stderr(log);
    let mut python = Python(command.spawn().expect("start python"));
    let mut ended = false;
    let there = wait::within(DEADLINE, || {
        ended = !matches!(python.0.try_wait(), Ok(None));
        ended || ready()
    });
    let said = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there && !ended, "{command:?}: {said}");
    python
}

fn signal(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process id");
    // It may have ended already.
    let _ = kill_process(pid, signal);
}
