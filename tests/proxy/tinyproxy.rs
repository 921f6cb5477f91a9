//! A real proxy, in a process of its own.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::server::MainServer;
use crate::support::{temp_folder, wait};

/// Tinyproxy on a port of 127.0.0.1 that stays its own; killed when dropped.
pub struct Tinyproxy {
    pub port: u16,
    child: Option<Child>,
    folder: TempDir,
    /// A server that never comes up keeps its port.
    _reserved: MainServer,
}

impl Tinyproxy {
    /// One that is up, with these lines in its configuration.
    pub fn new(configuration: &str) -> Tinyproxy {
        let reserved = MainServer::new_down();
        let mut proxy = Tinyproxy {
            port: reserved.port(),
            child: None,
            folder: temp_folder(),
            _reserved: reserved,
        };
        proxy.up(configuration);
        proxy
    }

    /// What the variable names.
    pub fn url(&self, credentials: &str) -> String {
        format!("http://{credentials}127.0.0.1:{}", self.port)
    }

    /// Comes up again.
    pub fn up(&mut self, configuration: &str) {
        let file = self.folder.path().join("tinyproxy.conf");
        let port = self.port;
        let all = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nLogLevel Critical\n\
             {configuration}\n"
        );
        std::fs::write(&file, all).expect("write the configuration");
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tinyproxy: apt-get install tinyproxy");
        self.child = Some(child);
        wait::until(Duration::from_secs(20), "a proxy that answers", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    /// Is killed, with all its connections.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the proxy");
            child.wait().expect("wait for the proxy");
        }
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        self.down();
    }
}
