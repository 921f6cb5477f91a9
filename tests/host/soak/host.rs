//! The machine that the agent lives on, and what happens to it there.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tonic::Code;

use crate::support::agent::Agent;
use crate::support::model::Model;
use crate::support::rng::Rng;
use crate::support::sender::{Sender, block_on};
use crate::support::server::MainServer;
use crate::support::wait;
use crate::support::wire::PREFACE;

/// For an agent to end after a signal.
const DEADLINE: Duration = Duration::from_secs(30);
/// What an agent's own memory may grow by, once it has served and drained a round.
const GROWTH_KIB: u64 = 2 * 1024;
/// The same for its descriptors: a failure log, a connection that is kept or is
/// about to be noticed as closed.
const MORE_DESCRIPTORS: usize = 8;

/// A folder, a main server, and an agent that is started when there is none.
pub struct Host {
    folder: tempfile::TempDir,
    pub server: MainServer,
    agent: Option<Agent>,
    /// What the agent took at the end of its first round.
    first: Option<Figures>,
    last: Figures,
    agents: usize,
    kills: usize,
    stops: usize,
    outages: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    anonymous_kib: Option<u64>,
    descriptors: Option<usize>,
}

impl Host {
    pub fn new() -> Host {
        Host {
            folder: crate::support::temp_folder(),
            server: MainServer::new_down(),
            agent: None,
            first: None,
            last: Figures::default(),
            agents: 0,
            kills: 0,
            stops: 0,
            outages: 0,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder().join("data-nadhi-agent.sock")
    }

    /// Starts an agent where there is none, as the SDK does. One that has left
    /// by itself must have meant to.
    pub fn keep_alive(&mut self, rng: &mut Rng) {
        if let Some(agent) = &mut self.agent {
            if agent.is_running() {
                return;
            }
            agent.expect_exit(0, DEADLINE);
        }
        let mut builder = Agent::hearing(self.folder.path()).health_url(&self.server.url());
        // One that stays shows what grows.
        if rng.chance(2, 3) {
            builder = builder.arg("-standby");
        }
        self.agent = Some(builder.spawn());
        self.first = None;
        self.agents += 1;
    }

    /// Something that should not matter.
    pub fn happening(&mut self, model: &Model, rng: &mut Rng) {
        match rng.below(14) {
            0..=2 => {
                self.server.down();
                self.outages += 1;
                model.interrupted();
            }
            3..=5 => self.server.up(),
            6 => self.server.set_health(503),
            7 => self.server.set_health(204),
            8 | 9 => {
                if let Some(mut agent) = self.agent.take() {
                    self.kills += 1;
                    model.killed();
                    agent.sigkill();
                }
            }
            10 => {
                if let Some(mut agent) = self.agent.take() {
                    self.stops += 1;
                    model.interrupted();
                    stop(&mut agent, rng);
                }
            }
            // The SDK removes what it takes for stale.
            11 => drop(fs::remove_file(self.socket())),
            12 => model.set_oddness(rng.below(100)),
            _ => odd_clients(&self.socket(), rng),
        }
    }

    /// The outage is over.
    pub fn calm_down(&mut self) {
        self.server.up();
        self.server.set_health(200);
    }

    /// Looks at what the agent takes now that nothing is to be done.
    pub fn measure(&mut self) {
        let Some(agent) = &mut self.agent else {
            return;
        };
        if !agent.is_running() {
            return;
        }
        let now = Figures {
            anonymous_kib: agent.anonymous_kib(),
            descriptors: agent.descriptors(),
        };
        self.last = now;
        let first = *self.first.get_or_insert(now);
        if let (Some(first), Some(now)) = (first.anonymous_kib, now.anonymous_kib) {
            assert!(
                now <= first + GROWTH_KIB,
                "memory: {first} KiB became {now} KiB"
            );
        }
        let Some(first) = first.descriptors else {
            return;
        };
        // Connections that are closed may not have been noticed yet.
        let few = wait::within(DEADLINE, || {
            let now = agent.descriptors();
            now.is_none_or(|now| now <= first + MORE_DESCRIPTORS)
        });
        assert!(few, "{first} descriptors became {:?}", agent.descriptors());
    }

    /// What the agent said last.
    pub fn said(&self) -> String {
        let Some(agent) = &self.agent else {
            return String::new();
        };
        let lines = agent.stdout();
        let lines: Vec<&str> = lines.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!(
            "\nagent's stdout: …{tail}\nagent's stderr: {}",
            agent.stderr()
        )
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} agents, {} kills, {} stops, {} outages, at the end {:?}",
            self.agents, self.kills, self.stops, self.outages, self.last
        )
    }
}

/// Ends an agent in order, whatever it is doing.
fn stop(agent: &mut Agent, rng: &mut Rng) {
    // Before it has its handlers, a signal ends it as any process.
    agent.wait_event("agent_started", DEADLINE);
    let signals = [Signal::TERM, Signal::INT, Signal::HUP];
    agent.signal(signals[rng.index(3)]);
    agent.expect_exit(0, DEADLINE);
}

/// Clients that do not know what they want. There may be no agent.
fn odd_clients(socket: &Path, rng: &mut Rng) {
    for _ in 0..rng.below(8) {
        if let Ok(mut stream) = UnixStream::connect(socket) {
            let length = rng.index(PREFACE.len());
            // It may have been closed already.
            let _ = stream.write_all(&PREFACE[..length]);
        }
    }
    let sender = Sender::reconnecting(socket);
    let answer = block_on(sender.send("{\"half\":", &[], "key"));
    let code = answer.expect_err("no JSON").code();
    // Killed before it answered, or not there.
    let away = [
        Code::Unavailable,
        Code::Unknown,
        Code::Internal,
        Code::Cancelled,
    ];
    assert!(
        code == Code::InvalidArgument || away.contains(&code),
        "{code:?}"
    );
}
