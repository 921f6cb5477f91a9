//! An agent whose server is away, for hostile clients to try themselves on, and
//! an honest client that must be served all the while.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::agent::Agent;
use super::sender::{Sender, block_on};

/// Nobody listens there.
const AWAY: &str = "http://127.0.0.1:1";

/// The running agent and its folder.
pub struct Siege {
    pub agent: Agent,
    folder: TempDir,
}

impl Siege {
    pub fn start() -> Siege {
        Siege::with(Agent::builder)
    }

    /// The agent as it is shipped.
    pub fn of_the_shipped() -> Siege {
        let command = || Command::new(super::release::executable());
        Siege::with(|folder| Agent::from_command(command(), folder))
    }

    /// An agent that may have so many descriptors.
    pub fn with_descriptors(limit: u32) -> Siege {
        Siege::with(|folder| {
            let mut shell = Command::new("sh");
            let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
            shell.args(["-c", &script, Agent::executable()]);
            Agent::from_command(shell, folder)
        })
    }

    fn with(builder: impl FnOnce(&Path) -> super::agent::Builder) -> Siege {
        let folder = super::temp_folder();
        let mut agent = builder(folder.path()).health_url(AWAY).spawn();
        agent.wait_socket();
        let siege = Siege { agent, folder };
        // The first call waits for the store; the others are to be compared.
        siege.honest(Duration::from_secs(10));
        siege
    }

    pub fn socket(&self) -> PathBuf {
        self.agent.socket()
    }

    /// An honest client connects and sends one record, as the SDK does; how
    /// long that took. More than `deadline`, or any error, fails the test.
    pub fn honest(&self, deadline: Duration) -> Duration {
        honest(&self.socket(), deadline)
    }

    /// Stops the agent; the number of records it leaves in the store.
    pub fn stop(mut self) -> usize {
        self.agent.signal(Signal::TERM);
        self.agent.expect_exit(0, Duration::from_secs(10));
        super::store::records(self.folder.path()).len()
    }
}

/// The same for any socket.
pub fn honest(socket: &Path, deadline: Duration) -> Duration {
    honest_with(socket, r#"{"who":"honest"}"#, deadline)
}

/// The same with any record.
pub fn honest_with(socket: &Path, json: &str, deadline: Duration) -> Duration {
    let start = Instant::now();
    let sender = Sender::reconnecting(socket);
    let sent = block_on(async {
        let call = sender.send(json, &["p"], "k");
        tokio::time::timeout(deadline, call).await
    });
    match sent {
        Ok(Ok(answer)) => assert!(answer.success),
        Ok(Err(status)) => panic!("the honest client was refused: {status:?}"),
        Err(_) => panic!("the honest client waited for more than {deadline:?}"),
    }
    start.elapsed()
}
