//! A TLS server of another make: Python's, which is OpenSSL.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::certs::Identity;
use crate::support::temp_folder;

/// A server in a process of its own, killed when dropped.
pub struct Server {
    pub port: u16,
    child: Child,
    folder: tempfile::TempDir,
}

impl Server {
    /// One that speaks this version of TLS alone, by Python's name for it.
    pub fn new(identity: &Identity, version: &str) -> Server {
        let folder = temp_folder();
        let pem = identity.write(folder.path());
        let mut child = Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/network/https/server.py"
            ))
            .args([&pem, &folder.path().join("bodies")])
            .arg(version)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3: apt-get install python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its stdout"))
            .read_line(&mut line)
            .expect("its port");
        let port = line.trim().parse().expect("its port");
        Server {
            port,
            child,
            folder,
        }
    }

    /// The records that came, in order.
    pub fn records(&self) -> Vec<String> {
        let bodies = std::fs::read_to_string(self.folder.path().join("bodies")).expect("bodies");
        let record = |line: &str| {
            let (_, data) = line.split_once(r#""log_data":"#).expect("a record");
            data.strip_suffix('}').expect("its end").to_owned()
        };
        bodies.lines().map(record).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
