//! When an agent sends its next request, by the rules of EchoPost (those that
//! the agent itself runs) and of the Go agent.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use echopost::replay::backoff::Probes;
use echopost::replay::patience::Outcome;
use echopost::replay::schedule::RetrySchedule;
use echopost::replay::{disposition, retry_after};

use super::server::{Reply, SECOND, Time};

/// What an agent hears of its request.
pub struct Answer<'a> {
    pub reply: Reply,
    /// When it hears it.
    pub at: Time,
    /// The header `Retry-After` of a 503.
    pub retry_after: Option<&'a str>,
}

/// One agent's timing.
pub trait Rules {
    /// An agent that has sent nothing yet; `epoch` is the time 0.
    fn new(epoch: Instant) -> Self;
    /// Round trips that a request takes.
    const ROUND_TRIPS: u64;
    /// An agent that was shed is back after its round trips, again and again.
    const HOT: bool;
    /// When the next probe follows on a failed one.
    fn probe_failed(&mut self, answer: &Answer, random: f64) -> Time;
    /// When the first record follows on a healthy probe.
    fn probe_healthy(&mut self, at: Time) -> Time;
    /// What follows on a record's answer.
    fn record(&mut self, answer: &Answer, random: f64) -> Next;
}

/// What follows on a record's answer, and when.
pub enum Next {
    /// It is done with, and the next one is due.
    Record(Time),
    /// It is sent again.
    Again(Time),
    /// It is sent again, once a probe finds the server healthy.
    Probe(Time),
}

/// The agent's own rules, on virtual time.
#[derive(Debug)]
pub struct EchoPost {
    epoch: Instant,
    probes: Probes,
    schedule: RetrySchedule,
}

impl EchoPost {
    fn instant(&self, at: Time) -> Instant {
        self.epoch + Duration::from_nanos(at)
    }

    /// When the record at hand may be sent.
    fn due(&self, at: Time) -> Time {
        match self.schedule.not_before() {
            Some(due) => at.max(nanos(due.saturating_duration_since(self.epoch))),
            None => at,
        }
    }
}

impl Rules for EchoPost {
    const ROUND_TRIPS: u64 = 1;
    const HOT: bool = false;

    fn new(epoch: Instant) -> EchoPost {
        EchoPost {
            epoch,
            probes: Probes::new(),
            schedule: RetrySchedule::default(),
        }
    }

    fn probe_failed(&mut self, answer: &Answer, random: f64) -> Time {
        answer.at + nanos(self.probes.next(random))
    }

    fn probe_healthy(&mut self, at: Time) -> Time {
        self.probes = Probes::new();
        self.due(at)
    }

    fn record(&mut self, answer: &Answer, random: f64) -> Next {
        let now = self.instant(answer.at);
        let status = match answer.reply {
            Reply::NoConnection => {
                self.schedule.not_now(now, random);
                return Next::Probe(answer.at + nanos(self.probes.next(random)));
            }
            Reply::Shed => 503,
            Reply::Served { .. } => 200,
        };
        let asked = answer
            .retry_after
            .and_then(|value| retry_after::parse(value.as_bytes(), clock(answer.at)));
        let disposition = disposition::of_status(status);
        match self.schedule.answered(disposition, asked, now, || random) {
            Outcome::Delivered => {}
            Outcome::SetAside => self.schedule.set_aside(disposition),
            Outcome::RetryUntil(_) => return Next::Again(self.due(answer.at)),
        }
        Next::Record(self.due(answer.at))
    }
}

/// The Go agent: a probe every 5 s; no connection, and an answer of 500 or more,
/// is tried again at once; a connection a record.
#[derive(Debug)]
pub struct GoAgent;

impl Rules for GoAgent {
    const ROUND_TRIPS: u64 = 2;
    const HOT: bool = true;

    fn new(_: Instant) -> GoAgent {
        GoAgent
    }

    fn probe_failed(&mut self, answer: &Answer, _: f64) -> Time {
        answer.at + 5 * SECOND
    }

    fn probe_healthy(&mut self, at: Time) -> Time {
        at
    }

    fn record(&mut self, answer: &Answer, _: f64) -> Next {
        match answer.reply {
            Reply::Served { .. } => Next::Record(answer.at),
            Reply::Shed | Reply::NoConnection => Next::Again(answer.at),
        }
    }
}

/// The wall clock at a moment of virtual time.
pub fn clock(at: Time) -> SystemTime {
    // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110, 5.6.7.
    UNIX_EPOCH + Duration::from_secs(784_111_777) + Duration::from_nanos(at)
}

fn nanos(duration: Duration) -> Time {
    Time::try_from(duration.as_nanos()).expect("less than 500 years")
}
