//! An agent whose main server is away.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::agent::Agent;
use crate::support::server::MainServer;
use crate::support::{store, temp_folder};

/// For what takes a moment on an idle machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The running agent, its folder and its main server.
pub struct Stage {
    pub agent: Agent,
    pub server: MainServer,
    folder: TempDir,
}

impl Stage {
    pub fn new() -> Stage {
        let folder = temp_folder();
        let server = MainServer::new_down();
        let agent = start(folder.path(), &server);
        Stage {
            agent,
            server,
            folder,
        }
    }

    /// Stops the agent, with all data safe on disk.
    pub fn stop(&mut self) {
        self.agent.signal(Signal::TERM);
        self.agent.expect_exit(0, DEADLINE);
        assert_eq!(self.agent.stderr(), "", "a panic, or worse");
    }

    /// Starts another agent in the folder.
    pub fn start_again(&mut self) {
        self.agent = start(self.folder.path(), &self.server);
    }

    /// Stops the agent; the payloads that it has stored, in their order.
    pub fn stored(mut self) -> Vec<String> {
        self.stop();
        let records = store::records(self.folder.path()).into_iter();
        let text = |json: &[u8]| String::from_utf8(json.to_vec()).expect("UTF-8");
        records.map(|(_, record)| text(&record.json_data)).collect()
    }
}

fn start(folder: &Path, server: &MainServer) -> Agent {
    let mut agent = Agent::builder(folder).health_url(&server.url()).spawn();
    agent.wait_socket();
    agent
}

/// What a client is told to send, with a pipeline and a key of one byte each.
pub fn record(json: &str) -> Value {
    json!({ "json_data": json, "pipelines": ["p"], "api_key": "k" })
}

/// The order to do so.
pub fn send(json: &str) -> Value {
    json!({ "send": record(json) })
}

/// Fails the test unless a call has stored its record.
#[track_caller]
pub fn expect_stored(told: &Value, case: &str) {
    let stored = told["code"] == "OK" && told["success"] == true && told["message"] == "stored";
    assert!(stored, "{case}: {told}");
}
