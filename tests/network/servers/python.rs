//! Servers written in Python, as child processes.

use std::fs::File;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::servers::stage::{DEADLINE, Stage};
use crate::support::wait;
use crate::venv;

/// gunicorn, uvicorn and http.server end at once when nothing is in work.
const STOP: Duration = Duration::from_secs(20);

/// A running server, stopped when dropped.
pub struct Python(Child);

impl Python {
    /// gunicorn on the agent's port.
    pub fn gunicorn(stage: &Stage, options: &[&str]) -> Python {
        let bind = format!("127.0.0.1:{}", stage.port);
        gunicorn(stage, &bind, options, || is_listening(stage))
    }

    /// gunicorn on a UNIX socket, for Caddy.
    pub fn gunicorn_behind(stage: &Stage, options: &[&str]) -> Python {
        let socket = socket_behind(stage);
        let bind = format!("unix:{}", socket.display());
        // What a killed one leaves there is a file, too.
        gunicorn(stage, &bind, options, || {
            UnixStream::connect(&socket).is_ok()
        })
    }

    /// uvicorn on the agent's port.
    pub fn uvicorn(stage: &Stage, options: &[&str]) -> Python {
        let mut command = python(stage);
        command.args(["-m", "uvicorn", "--app-dir", scripts(), "asgi:application"]);
        command.args(["--http", "h11", "--loop", "asyncio", "--no-access-log"]);
        command.args(["--port", &stage.port.to_string()]);
        command.args(options);
        start(stage, command, || is_listening(stage))
    }

    /// http.server on the agent's port, speaking `protocol`.
    pub fn http_server(stage: &Stage, protocol: &str) -> Python {
        Python::http_server_turning_away(stage, protocol, 0)
    }

    /// The same, but so many POSTs are turned away unread at first.
    pub fn http_server_turning_away(stage: &Stage, protocol: &str, unread: u32) -> Python {
        let mut command = python(stage);
        command.arg(Path::new(scripts()).join("plain.py"));
        command.args([&stage.port.to_string(), protocol, &unread.to_string()]);
        start(stage, command, || is_listening(stage))
    }

    /// grpcio's server on the agent's port: HTTP/2 and nothing else.
    pub fn grpc(stage: &Stage) -> Python {
        let mut command = python(stage);
        let script = "import sys, grpc; from concurrent import futures; \
             server = grpc.server(futures.ThreadPoolExecutor(1)); \
             server.add_insecure_port('127.0.0.1:' + sys.argv[1]); \
             server.start(); server.wait_for_termination()";
        command.args(["-c", script, &stage.port.to_string()]);
        start(stage, command, || is_listening(stage))
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
pub fn socket_behind(stage: &Stage) -> PathBuf {
    stage.folder.path().join("app.sock")
}

pub fn is_listening(stage: &Stage) -> bool {
    TcpStream::connect(("127.0.0.1", stage.port)).is_ok()
}

fn gunicorn(stage: &Stage, bind: &str, options: &[&str], ready: impl FnMut() -> bool) -> Python {
    let mut command = python(stage);
    command.args([
        "-m",
        "gunicorn",
        "--no-control-socket",
        "--chdir",
        scripts(),
    ]);
    command.args(["--bind", bind, "--worker-tmp-dir"]);
    command.arg(stage.folder.path());
    command.args(options);
    command.arg("wsgi:application");
    start(stage, command, ready)
}

fn python(stage: &Stage) -> Command {
    let mut command = Command::new(venv::python());
    command
        .env("JOURNAL", stage.journal())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn scripts() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/servers")
}

fn start(stage: &Stage, mut command: Command, mut ready: impl FnMut() -> bool) -> Python {
    let path = stage.folder.path().join("python.log");
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
