//! The figures of a simulation, and the line they make in a table.

use super::play::Fleet;
use super::server::{MILLISECOND, SECOND, Server, Time};
use super::tally::{Second, Tally, mean_and_peak};

/// How long the server is away.
pub const OUTAGE: Time = 600 * SECOND;
/// Within which all agents start: an application that logs 2,000 records in the
/// time of the outage starts its agent within 300 ms.
const START: Time = 300 * MILLISECOND;
/// The agents' first probes, close together as they start together.
const SETTLED: Time = 30 * SECOND;

/// How large a fleet is, and what its server takes.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub agents: u32,
    /// Records an agent.
    pub records: u32,
    /// Requests a second.
    pub capacity: u64,
}

impl Size {
    /// The fleet after an outage; `server` can change what the server does, and
    /// each 503 has this `Retry-After`.
    pub fn fleet(
        self,
        seed: u64,
        retry_after: Option<String>,
        server: impl FnOnce(Server) -> Server,
    ) -> Fleet {
        Fleet {
            agents: self.agents,
            records: self.records,
            start: START,
            server: server(Server::new(self.capacity).away(0..OUTAGE)),
            retry_after,
            seed,
        }
    }

    /// Seconds that the server needs for all records when it is never idle.
    pub fn ideal(self) -> f64 {
        f64::from(self.agents) * f64::from(self.records) / self.capacity as f64
    }
}

/// What the table shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Probes a second while the server is away: mean, and the largest second.
    pub probes: (f64, f64),
    /// Requests a second from the recovery until the fleet is drained, probes
    /// too.
    pub requests: (f64, f64),
    /// The largest of those by the server's capacity.
    pub overload: f64,
    /// Seconds from the recovery until the last record is delivered.
    pub drained: f64,
    /// Tries for each record.
    pub tries: f64,
}

impl Figures {
    /// Of a fleet whose server takes records from `recovery` on.
    pub fn of(size: Size, tally: &Tally, recovery: Time) -> Figures {
        let down = tally.between(SETTLED, OUTAGE);
        let up = tally.between(recovery, tally.drained + SECOND);
        let requests = mean_and_peak(up.iter().map(Second::all));
        let tries: f64 = tally.seconds.iter().map(|second| second.records).sum();
        Figures {
            probes: mean_and_peak(down.iter().map(Second::all)),
            requests,
            overload: requests.1 / size.capacity as f64,
            drained: (tally.drained - recovery) as f64 / SECOND as f64,
            tries: tries / tally.delivered as f64,
        }
    }

    /// A line for [`HEAD`].
    pub fn line(&self, name: &str) -> String {
        let (probes, probes_peak) = self.probes;
        let (requests, requests_peak) = self.requests;
        format!(
            "| {name} | {} / {} | {} / {} | {:.2} | {} s | {:.3} |",
            grouped(probes),
            grouped(probes_peak),
            grouped(requests),
            grouped(requests_peak),
            self.overload,
            grouped(self.drained),
            self.tries
        )
    }
}

/// The head of the table.
pub const HEAD: &str = "\
| rules, and what a 503 says | probes/s while down: mean / peak | requests/s after: mean / peak \
| peak / capacity | drained after | tries a record |
|---|---|---|---|---|---|";

/// Rounded, with commas between the thousands.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
