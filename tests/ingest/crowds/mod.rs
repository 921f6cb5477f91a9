//! Crowds of clients (spec 3): those that follow flow control are all served, those that
//! do not hold no other up, and the agent stays small beside either and afterwards.
#![cfg(target_os = "linux")]

mod client;
mod hostile;
use crate::support;
mod well_behaved;

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::hostile_clients::HostileClients;
use support::sender::{Sender, block_on};
use support::wait;

/// The most that well-behaved clients may make of the agent (spec 3) …
const WELL_BEHAVED_KIB: u64 = 32 * 1024;
/// … and any.
const ANY_KIB: u64 = 48 * 1024;
/// The most that it has once a crowd has gone: 3 MiB are the agent without one.
const LEFT_KIB: u64 = 8 * 1024;
/// After which a crowd's memory is given back.
const GIVEN_BACK: Duration = Duration::from_secs(10);
/// Within which a small record is answered beside any crowd.
const SMALL_RECORD: Duration = Duration::from_secs(8);
/// A call that takes longer than it may is waited for nonetheless: how long it takes is
/// what there is to know.
const PATIENCE: Duration = Duration::from_secs(60);
/// For a whole crowd: all that is promised of it is that it is served.
const CROWD_SERVED: Duration = Duration::from_secs(180);

/// An agent for one crowd, and what the crowd makes of it: all figures are there to be
/// read before the first broken promise fails the test.
struct Trial {
    hostile: HostileClients,
    /// What it has before the crowd.
    alone_kib: u64,
    figures: String,
    broken: Vec<String>,
}

impl Trial {
    fn start(load: &str) -> Trial {
        let limit = getrlimit(Resource::Nofile);
        let all = Rlimit {
            current: limit.maximum,
            ..limit
        };
        // Both ends of hundreds of connections may be more than the usual 1024.
        setrlimit(Resource::Nofile, all).expect("more descriptors");
        let hostile = HostileClients::of_the_shipped();
        Trial {
            alone_kib: hostile.agent.rss_kib().expect("its size"),
            hostile,
            figures: format!("LOAD {load}:"),
            broken: Vec::new(),
        }
    }

    fn note(&mut self, what: &str, figure: impl Debug) {
        self.figures += &format!(" {what} {figure:.3?};");
    }

    fn expect(&mut self, kept: bool, promise: impl Debug) {
        if !kept {
            self.broken.push(format!("{promise:?}"));
        }
    }

    /// The failures of some calls, each of which was to succeed.
    fn none_failed(&mut self, calls: usize, failures: &[String]) {
        let failed = failures.len();
        self.note("failed", format!("{failed} of {calls}"));
        self.expect(failed == 0, failures.first());
    }

    /// Small records of newcomers, one after the other.
    fn small_records(&mut self) {
        let records: Vec<_> = (0..3)
            .map(|_| record(&self.hostile.socket(), r#""small""#))
            .collect();
        self.note("small records", &records);
        for taken in records {
            let in_time = taken.as_ref().is_ok_and(|took| *took <= SMALL_RECORD);
            self.expect(in_time, ("a small record", taken));
        }
    }

    fn peak(&mut self, most_kib: u64) {
        let peak = self.hostile.agent.hwm_kib().expect("its peak");
        self.note("peak KiB", peak);
        self.expect(peak <= most_kib, ("peak KiB", peak, "at most", most_kib));
    }

    /// Once the crowd's connections are closed.
    fn small_again(&mut self) {
        let rss = || self.hostile.agent.rss_kib().expect("its size");
        let (gone, with) = (Instant::now(), rss());
        let small = wait::within(GIVEN_BACK, || rss() <= LEFT_KIB);
        let (took, now) = (gone.elapsed(), rss());
        let own = self.hostile.agent.anonymous_kib().expect("its own");
        let alone = ("alone", self.alone_kib);
        self.note(
            "KiB",
            (alone, "at its end", with, "after it", now, own, took),
        );
        self.expect(small, ("KiB after the crowd", now, "at most", LEFT_KIB));
    }

    fn end(self) {
        println!("{} broken: {:?}", self.figures, self.broken);
        assert!(self.broken.is_empty(), "{} {:?}", self.figures, self.broken);
    }
}

/// A client connects and sends one record; how long that took, or why it failed.
fn record(socket: &Path, json: &str) -> Result<Duration, String> {
    let start = Instant::now();
    let sender = Sender::reconnecting(socket);
    let sent = block_on(async {
        let call = sender.send(json, &["p"], "k");
        tokio::time::timeout(PATIENCE, call).await
    });
    match sent {
        Ok(Ok(answer)) if answer.success => Ok(start.elapsed()),
        Ok(other) => Err(format!("after {:?}: {other:?}", start.elapsed())),
        Err(_) => Err(format!("not within {PATIENCE:?}")),
    }
}

/// A JSON value of that many bytes.
fn json(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}
