//! An application's folder as the SDK lays it out (spec 2).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::agent::{Agent, names_in};
use crate::support::sender::{Sender, block_on};
use crate::support::server::MainServer;
use crate::support::{copy_executable, temp_folder};

/// Where the examples say that the application is.
const FOLDER: &str = "/srv/app";
const URL: &str = "http://data-nadhi-server:5000";

/// `rules/`, `config.yml` and `echopost/` in `<app>/.datanadhi`.
pub struct Application {
    folder: tempfile::TempDir,
    pub server: MainServer,
}

impl Application {
    /// With the executable that the SDK has downloaded; its server is down.
    pub fn new() -> Application {
        let application = Application {
            folder: temp_folder(),
            server: MainServer::new_down(),
        };
        let base = application.base();
        fs::create_dir_all(&base).expect("the base folder");
        fs::create_dir(base.with_file_name("rules")).expect("a folder");
        fs::write(base.with_file_name("config.yml"), "").expect("a file");
        copy_executable(Path::new(Agent::executable()), &base.join("echopost"));
        application
    }

    pub fn base(&self) -> PathBuf {
        self.folder.path().join(".datanadhi/echopost")
    }

    /// What the SDK starts.
    pub fn agent(&self) -> Agent {
        let command = Command::new(self.base().join("echopost"));
        let builder = Agent::from_command(command, &self.base());
        let agent = builder.health_url(&self.server.url()).spawn();
        agent.wait_event("agent_started", crate::deploy::DEADLINE);
        agent
    }

    /// Has an agent take records.
    pub fn log(&self, records: &[&str]) {
        let sender = Sender::reconnecting(&self.base().join("data-nadhi-agent.sock"));
        for json in records {
            let answer = block_on(sender.send(json, &[], "own-key"));
            assert!(answer.expect("an answer").success);
        }
    }

    /// An example's text, with this application's folder and server in it.
    pub fn fill_in(&self, text: &str) -> String {
        let folder = self.folder.path().to_str().expect("UTF-8");
        text.replace(FOLDER, folder)
            .replace(URL, &self.server.url())
    }

    /// Nothing but the executable and logs of sessions.
    pub fn assert_drained(&self) {
        let mut names = names_in(&self.base());
        names.dedup();
        assert_eq!(names, ["echopost", "session"]);
    }
}
