//! An HTTP proxy: Tinyproxy.

use std::process::Command;

use tempfile::TempDir;

use crate::program::Program;
use crate::support::temp_folder;

/// Tinyproxy on a port of its own.
pub struct Tinyproxy {
    program: Program,
    folder: TempDir,
}

impl Tinyproxy {
    /// One that is up, with these lines in its configuration.
    pub fn new(configuration: &str) -> Tinyproxy {
        let mut proxy = Tinyproxy {
            program: Program::new(),
            folder: temp_folder(),
        };
        proxy.up(configuration);
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
    pub fn up(&mut self, configuration: &str) {
        let file = self.folder.path().join("tinyproxy.conf");
        let port = self.port();
        let all = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nLogLevel Critical\n\
             {configuration}\n"
        );
        std::fs::write(&file, all).expect("write the configuration");
        let mut command = Command::new("tinyproxy");
        self.program.up(command.args(["-d", "-c"]).arg(&file));
    }

    /// Is killed, with all its connections.
    pub fn down(&mut self) {
        self.program.down();
    }
}
