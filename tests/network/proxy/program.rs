//! A real proxy, in a process of its own.

use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::server::MainServer;
use crate::support::wait;

/// A program that listens on a port of 127.0.0.1 that stays its own; killed when
/// dropped.
pub struct Program {
    pub port: u16,
    child: Option<Child>,
    /// A server that never comes up keeps its port.
    _reserved: MainServer,
}

impl Program {
    /// One that is down.
    pub fn new() -> Program {
        let reserved = MainServer::new_down();
        Program {
            port: reserved.port(),
            child: None,
            _reserved: reserved,
        }
    }

    /// Comes up; the command has to name the port.
    pub fn up(&mut self, command: &mut Command) {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.child = Some(child);
        wait::until(Duration::from_secs(20), "a proxy that answers", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    /// Is killed, with all its connections and the processes that serve them.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let group = Pid::from_raw(child.id().cast_signed()).expect("a process id");
            kill_process_group(group, Signal::KILL).expect("kill the proxy");
            child.wait().expect("wait for the proxy");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.down();
    }
}
