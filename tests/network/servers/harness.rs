//! An agent whose main server is yet to come, and what that server is sent.

use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::agent::Agent;
use crate::support::fixture::{lines, logged, noted};
use crate::support::sender::{Sender, block_on};
use crate::support::server::{Reserved, reserve};
use crate::support::{temp_folder, wait};
use crate::venv;

/// For what takes a moment on an idle machine.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// CPU time that no case comes near, in an unoptimized build: a loop without a
/// pause passes it within the case.
const CPU_MAX: Duration = Duration::from_secs(4);
/// Resident memory that no small record needs, in KiB, in an unoptimized build:
/// passed by an agent that keeps an answer of 10 MB.
const PEAK_MAX_KIB: u64 = 12 * 1024;

/// The running agent, its folder, and the port of its main server.
pub struct Harness {
    pub agent: Agent,
    pub folder: TempDir,
    pub port: u16,
    _reserved: Reserved,
}

/// Keeps the agent from leaving until it is dropped.
pub struct Company(Arc<AtomicBool>);

impl Drop for Company {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// A record as the server got it, or an attempt as Caddy saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The Idempotency-Key.
    pub key: String,
    /// The record's own number.
    pub n: u64,
    pub connection: String,
    /// Process that got it.
    pub pid: i32,
    /// Seconds.
    pub at: f64,
}

impl Harness {
    /// Starts an agent; no server listens on its main server's port.
    pub fn new() -> Harness {
        // First: no agent waits while it is made.
        venv::python();
        let folder = temp_folder();
        let (reserved, port) = reserve().expect("a port on 127.0.0.1");
        let mut agent = Agent::builder(&folder.path().join("d"))
            .health_url(&format!("http://127.0.0.1:{port}"))
            .spawn();
        agent.wait_socket();
        Harness {
            agent,
            folder,
            port,
            _reserved: reserved,
        }
    }

    /// Stores records one after the other; each has to be acknowledged.
    pub fn store(&self, records: &[Value]) {
        block_on(async {
            let sender = Sender::keeping(&self.agent.socket());
            for record in records {
                let stored = sender.send(&record.to_string(), &["p"], "").await;
                assert!(stored.is_ok_and(|answer| answer.success), "{record:.80}");
            }
        });
    }

    /// The file that the server notes its records in.
    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// What the server was sent so far.
    pub fn seen(&self) -> Vec<Seen> {
        lines(&std::fs::read_to_string(self.journal()).unwrap_or_default())
            .iter()
            .map(|line| Seen {
                key: text(&line["key"]),
                n: line["n"].as_u64().expect("a number"),
                connection: text(&line["connection"]),
                pid: i32::try_from(line["pid"].as_i64().expect("a number")).expect("a pid"),
                at: line["at"].as_f64().expect("a time"),
            })
            .collect()
    }

    /// The attempts with one record.
    pub fn tries_of(&self, n: u64) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.n == n);
        seen
    }

    /// Waits until `done` holds.
    pub fn until(&self, what: &str, mut done: impl FnMut(&Harness) -> bool) {
        let there = wait::within(DEADLINE, || done(self));
        assert!(
            there,
            "no {what}; agent's stdout: {}\nservers: {}",
            self.agent.stdout(),
            self.servers_said()
        );
    }

    /// Waits until the server has got record `n`.
    pub fn wait_for(&self, n: u64) {
        self.until(&format!("record {n}"), |harness| {
            harness.seen().iter().any(|seen| seen.n == n)
        });
    }

    /// Waits until the agent has left by itself; checks that it lost nothing,
    /// kept the order and never ran hot. `delivered` and `set_aside` are the
    /// counts that it has to end with.
    pub fn finish(&mut self, delivered: u64, set_aside: u64) {
        // Before it leaves: there is no asking afterwards. All it does then is
        // to wait.
        self.until("end", |harness| noted(&harness.agent_folder()) >= delivered);
        let cpu = self.agent.cpu_time();
        self.agent.expect_exit(0, DEADLINE);
        let last = self.agent.events().pop().expect("events");
        assert_eq!(last["event"], "agent_stopped");
        let counts = [&last["delivered"], &last["set_aside"], &last["left"]];
        assert_eq!(counts, [&json!(delivered), &json!(set_aside), &json!(0)]);
        assert!(cpu.is_none_or(|cpu| cpu < CPU_MAX), "{cpu:?} of CPU time");
        self.expect_order();
    }

    /// First arrivals are in the order sent; a record that comes again does so
    /// before the next one, under the same key.
    fn expect_order(&self) {
        let mut seen = self.seen();
        seen.dedup_by(|next, before| (&next.key, next.n) == (&before.key, before.n));
        let numbers: Vec<_> = seen.iter().map(|seen| seen.n).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        let keys: HashSet<_> = seen.iter().map(|seen| &seen.key).collect();
        assert_eq!(keys.len(), numbers.len(), "a key for each record");
    }

    /// Waits until the server has closed the connection that the agent keeps;
    /// where that does not show, the next record finds it open or not.
    pub fn wait_closed(&self) {
        self.until("closed connection", |harness| {
            harness.open_connections().is_none_or(|open| open == 0)
        });
    }

    /// A client that connects again and again: that is to mean to call, and the agent
    /// stays.
    pub fn company(&self) -> Company {
        let wanted = Arc::new(AtomicBool::new(true));
        let (socket, on) = (self.agent.socket(), Arc::clone(&wanted));
        std::thread::spawn(move || {
            while on.load(Relaxed) {
                // An error: the agent has ended, and the test says why.
                let _ = UnixStream::connect(&socket);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Company(wanted)
    }

    /// Connections to the main server that neither side has closed, by the
    /// kernel's own table.
    fn open_connections(&self) -> Option<usize> {
        const ESTABLISHED: &str = "01";
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let port = format!(":{:04X}", self.port);
        let open = table.lines().filter(|line| {
            let mut fields = line.split_whitespace().skip(2);
            fields.next().is_some_and(|remote| remote.ends_with(&port))
                && fields.next() == Some(ESTABLISHED)
        });
        Some(open.count())
    }

    /// The records in `agent-failure.log`.
    pub fn set_aside(&self) -> Vec<Value> {
        logged(&self.agent_folder(), "agent-failure.log")
    }

    fn agent_folder(&self) -> PathBuf {
        self.folder.path().join("d")
    }

    /// What has ended kept no answer in memory.
    pub fn expect_flat_memory(&self) {
        let last = self.agent.wait_event("agent_stopped", DEADLINE);
        let peak = last["peak_rss_kib"].as_u64();
        assert!(peak.is_none_or(|kib| kib < PEAK_MAX_KIB), "{last}");
    }

    /// No event says that anything was in the way.
    pub fn expect_no_trouble(&self) {
        for name in [
            "main_unreachable",
            "main_not_taking_logs",
            "record_set_aside",
        ] {
            let events = self.agent.events_named(name);
            assert_eq!(events, Vec::<Value>::new(), "{name}");
        }
        let healthy = self.agent.events_named("main_healthy_not_accepting_logs");
        assert_eq!(healthy.len(), 1, "one outage, the first");
    }

    /// What the servers' processes printed.
    fn servers_said(&self) -> String {
        let log = |name| std::fs::read_to_string(self.folder.path().join(name));
        let logs = ["python.log", "caddy/caddy.log"].map(|name| log(name).unwrap_or_default());
        logs.join("\n")
    }
}

/// Records `from..to` that are simply to be taken.
pub fn plain(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(|n| json!({ "n": n })).collect()
}

/// A record that is to be answered in this way.
pub fn wanting(n: u64, what: &str) -> Value {
    json!({ "n": n, "do": what })
}

/// How many connections these came over.
pub fn connections(seen: &[Seen]) -> usize {
    let used: HashSet<_> = seen.iter().map(|seen| &seen.connection).collect();
    used.len()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
