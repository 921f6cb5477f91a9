//! A whole outage: what the application sends while the server is away, and what
//! has become of it when the agent has left.

use std::cmp::max;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use echopost::limits::SAVE_RECORDS_MAX;
use rustix::fs::OFlags;

use crate::small_hosts::client::{Channels, Client};
use crate::support::agent::{Agent, names_in};
use crate::support::ledger::Ledger;
use crate::support::progress::Progress;
use crate::support::samples::Generator;
use crate::support::server::{Answer, MainServer};

/// Bytes of one record's JSON.
const RECORD_BYTES: usize = 300;
/// So many refusals that every client has had its own, and again.
const REFUSALS: usize = 4 * crate::small_hosts::client::IN_FLIGHT;
/// For how long it is watched doing nothing.
const QUIET: Duration = Duration::from_secs(2);
/// Of one core, while nothing is to be done.
const CPU_SHARE_MAX: f64 = 0.05;
const DEADLINE: Duration = Duration::from_secs(60);

pub struct Outage {
    ledger: Arc<Ledger>,
    pub server: MainServer,
}

/// What one outage took.
#[derive(Default)]
pub struct Figures {
    records: usize,
    /// Acknowledged while the server was away.
    buffered: usize,
    pub refusals: usize,
    ingest: Duration,
    /// From the server's return to the agent's exit.
    drain: Duration,
    cpu: Duration,
    peak_kib: u64,
    /// The highest number that one of the agent's own ever had, and one: a
    /// listing takes its time and may count some twice.
    descriptors: usize,
    /// What the test, and with it the agent, has got from the process that started it.
    inherited: HashSet<usize>,
}

impl Outage {
    /// The server is away already.
    pub fn new(count: usize) -> Outage {
        let ledger = Arc::new(Ledger::of(Generator::of_size(RECORD_BYTES), count));
        let server = MainServer::new_down();
        let arriving = Arc::clone(&ledger);
        server.on_post(move |message| {
            arriving.delivered(message);
            Answer::ok()
        });
        server.forget_requests();
        Outage { ledger, server }
    }

    /// Logs until all is stored or the store is full, brings the server back,
    /// logs the rest, and sees the agent off. Calls may be refused with this text.
    pub fn play(
        &mut self,
        agent: &mut Agent,
        channels: Channels,
        full: Option<&'static str>,
    ) -> Figures {
        let mut figures = Figures {
            records: self.ledger.count(),
            inherited: inherited(),
            ..Figures::default()
        };
        let mut progress = Progress::new(&self.ledger);
        let start = Instant::now();
        agent.wait_socket();
        let client = Client::start(&agent.socket(), &self.ledger, channels, full);
        let mut until =
            |what: &str, agent: &mut Agent, done: &mut dyn FnMut(&mut Agent) -> bool| {
                let moved = progress.until(what, agent, |_, agent| {
                    assert_eq!(client.faults(), Vec::<String>::new(), "{}", agent.stdout());
                    figures.look(agent);
                    done(agent)
                });
                moved.unwrap_or_else(|why| panic!("{why}\n{}", agent.stdout()));
                figures.peak_kib = progress.peak_kib();
            };
        until("everything stored, or no room", agent, &mut |_| {
            client.is_done() || client.refusals() >= REFUSALS
        });
        let buffered = self.ledger.totals().acknowledged;
        let ingest = start.elapsed();
        if client.is_done() {
            expect_quiet(agent);
        }
        self.server.up();
        let back = Instant::now();
        until("everything stored", agent, &mut |_| client.is_done());
        until("the agent's exit", agent, &mut |agent| !agent.is_running());
        figures.refusals = client.refusals();
        (figures.buffered, figures.ingest) = (buffered, ingest);
        figures.drain = back.elapsed();
        agent.expect_exit(0, DEADLINE);
        self.expect_all(agent);
        figures
    }

    /// Nothing lost, nothing out of order, nothing left behind.
    fn expect_all(&self, agent: &Agent) {
        let (ledger, totals) = (&self.ledger, self.ledger.totals());
        assert_eq!(totals.acknowledged, ledger.count(), "{totals:?}");
        assert_eq!(totals.delivered, ledger.count(), "{totals:?}");
        assert_eq!((ledger.lost(), ledger.out_of_order()), (0, 0), "{totals:?}");
        assert_eq!(totals.altered, 0, "{totals:?}");
        // Once each, but for an answer that a loaded machine may have held up.
        assert!(totals.duplicates <= SAVE_RECORDS_MAX, "{totals:?}");
        let mut left = names_in(agent.folder());
        left.retain(|name| !["session", "lost+found", "image", "filler"].contains(&name.as_str()));
        assert_eq!(left, Vec::<String>::new());
    }
}

/// Full of records, and without a call: it only probes.
fn expect_quiet(agent: &Agent) {
    let share = || {
        let before = agent.cpu_time()?;
        let start = Instant::now();
        // Time is what is measured here.
        std::thread::sleep(QUIET);
        let spent = agent.cpu_time()? - before;
        Some(spent.as_secs_f64() / start.elapsed().as_secs_f64())
    };
    // The time that a host takes from this machine may be charged to the agent, once.
    let quiet = (0..3).any(|_| share().is_none_or(|share| share < CPU_SHARE_MAX));
    assert!(quiet, "{:?} of a core, doing nothing", share());
}

impl Figures {
    fn look(&mut self, agent: &Agent) {
        // An agent that has just ended has no figures any more.
        self.cpu = agent.cpu_time().unwrap_or_default().max(self.cpu);
        let open = descriptors(&agent.pid().to_string());
        let own = open
            .into_iter()
            .filter(|number| !self.inherited.contains(number));
        self.descriptors = own.map(|number| number + 1).fold(self.descriptors, max);
    }
}

/// The numbers of a process's open descriptors.
fn descriptors(process: &str) -> Vec<usize> {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd"));
    let names = entries.into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Those of this process that its children get.
fn inherited() -> HashSet<usize> {
    let mut numbers = descriptors("self");
    numbers.retain(|number| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"));
        let info = info.unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
        flags.is_some_and(|flags| flags & OFlags::CLOEXEC.bits() == 0)
    });
    numbers.into_iter().collect()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records, {} while the server was away in {:.1} s, {} refusals, \
             the rest and the exit in {:.1} s, {:.0} us of CPU a record, VmHWM {} KiB, \
             {} descriptors at most",
            self.records,
            self.buffered,
            self.ingest.as_secs_f32(),
            self.refusals,
            self.drain.as_secs_f32(),
            self.cpu.as_secs_f64() * 1e6 / self.records as f64,
            self.peak_kib,
            self.descriptors,
        )
    }
}
