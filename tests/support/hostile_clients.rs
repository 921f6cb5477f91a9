//! An agent whose server is away, beside hostile clients and a well-behaved one that
//! must be served all the while.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::agent::Agent;
use super::sender::{Sender, block_on};

/// No server listens there.
const AWAY: &str = "http://127.0.0.1:1";

/// The running agent and its folder.
pub struct HostileClients {
    pub agent: Agent,
    folder: TempDir,
}

impl HostileClients {
    pub fn start() -> HostileClients {
        HostileClients::with(Agent::builder)
    }

    /// The agent as it is shipped.
    pub fn of_the_shipped() -> HostileClients {
        let command = || Command::new(super::release::executable());
        HostileClients::with(|folder| Agent::from_command(command(), folder))
    }

    /// An agent that may have so many descriptors.
    pub fn with_descriptors(limit: u32) -> HostileClients {
        HostileClients::with(|folder| {
            let mut shell = Command::new("sh");
            let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
            shell.args(["-c", &script, Agent::executable()]);
            Agent::from_command(shell, folder)
        })
    }

    fn with(builder: impl FnOnce(&Path) -> super::agent::Builder) -> HostileClients {
        let folder = super::temp_folder();
        let mut agent = builder(folder.path()).health_url(AWAY).spawn();
        agent.wait_socket();
        let hostile = HostileClients { agent, folder };
        // The first call waits for the store; the others are to be compared.
        hostile.well_behaved(Duration::from_secs(10));
        hostile
    }

    pub fn socket(&self) -> PathBuf {
        self.agent.socket()
    }

    /// A well-behaved client connects and sends one record, as the SDK does; how
    /// long that took. More than `deadline`, or any error, fails the test.
    pub fn well_behaved(&self, deadline: Duration) -> Duration {
        well_behaved(&self.socket(), deadline)
    }

    /// Stops the agent; the number of records it leaves in the store.
    pub fn stop(mut self) -> usize {
        self.agent.signal(Signal::TERM);
        self.agent.expect_exit(0, Duration::from_secs(10));
        super::store::records(self.folder.path()).len()
    }
}

/// The same for any socket.
pub fn well_behaved(socket: &Path, deadline: Duration) -> Duration {
    well_behaved_with(socket, r#"{"client":"well-behaved"}"#, deadline)
}

/// The same with any record.
pub fn well_behaved_with(socket: &Path, json: &str, deadline: Duration) -> Duration {
    let start = Instant::now();
    let sender = Sender::reconnecting(socket);
    let sent = block_on(async {
        let call = sender.send(json, &["p"], "k");
        tokio::time::timeout(deadline, call).await
    });
    match sent {
        Ok(Ok(answer)) => assert!(answer.success),
        Ok(Err(status)) => panic!("the well-behaved client was refused: {status:?}"),
        Err(_) => panic!("the well-behaved client waited for more than {deadline:?}"),
    }
    start.elapsed()
}
