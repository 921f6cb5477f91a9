//! HTTP proxies: proxy.py and, where it has no option for what a test wants, Caddy.

use std::process::Command;

use tempfile::TempDir;

use crate::proxy::program::Program;
use crate::support::temp_folder;
use crate::venv;

/// What a proxy does.
#[derive(Clone, Copy)]
pub enum Way {
    /// proxy.py passes on everything.
    Open,
    /// proxy.py wants this user and password: 407 for others and for none.
    Login(&'static str),
    /// Caddy answers everything with this status.
    Refuse(u16),
    /// Caddy passes requests on to this port, each with a Via, if they come with these
    /// credentials, in base64.
    Forward(u16, &'static str),
}

/// A proxy on a port of its own.
pub struct Proxy {
    program: Program,
    folder: TempDir,
}

impl Proxy {
    /// One that is up.
    pub fn new(way: Way) -> Proxy {
        let mut proxy = Proxy {
            program: Program::new(),
            folder: temp_folder(),
        };
        proxy.up(way);
        proxy
    }

    pub fn port(&self) -> u16 {
        self.program.port
    }

    /// What the variable names.
    pub fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}127.0.0.1:{}", self.port())
    }

    /// Comes up again.
    pub fn up(&mut self, way: Way) {
        let mut command = match way {
            Way::Open => self.proxy_py(),
            Way::Login(login) => {
                let mut command = self.proxy_py();
                command.args(["--basic-auth", login]);
                command
            }
            Way::Refuse(status) => self.caddy(&format!("respond {status}")),
            Way::Forward(port, credentials) => self.caddy(&format!(
                "@stranger not header Proxy-Authorization \"Basic {credentials}\"
                 respond @stranger 407
                 reverse_proxy 127.0.0.1:{port}"
            )),
        };
        self.program.up(&mut command);
    }

    /// Is killed, with all its connections.
    pub fn down(&mut self) {
        self.program.down();
    }

    fn proxy_py(&self) -> Command {
        let mut command = Command::new(venv::program("proxy"));
        command
            .args(["--hostname", "127.0.0.1", "--port"])
            .arg(self.port().to_string())
            .args(["--num-acceptors", "1", "--num-workers", "1"])
            // Of idleness, after which it closes a connection.
            .args(["--timeout", "60", "--data-dir"])
            .arg(self.folder.path());
        command
    }

    fn caddy(&self, directives: &str) -> Command {
        let file = self.folder.path().join("Caddyfile");
        let port = self.port();
        let all = format!(
            "{{
                 admin off
                 persist_config off
                 auto_https off
             }}
             http://:{port} {{
                 bind 127.0.0.1
                 {directives}
             }}
            "
        );
        std::fs::write(&file, all).expect("write the configuration");
        let mut command = Command::new(venv::program("caddy"));
        command
            .env("XDG_DATA_HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.folder.path())
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(file);
        command
    }
}
