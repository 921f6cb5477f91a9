//! A server with a capacity, which sheds what is beyond it and is away at times.

use std::ops::Range;

/// Nanoseconds of virtual time.
pub type Time = u64;

pub const SECOND: Time = 1_000_000_000;
pub const MILLISECOND: Time = 1_000_000;

/// What a server does not answer at once waits for at most this long.
const QUEUE: Time = 100 * MILLISECOND;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// No server listens.
    NoConnection,
    /// 503, at once: the queue is full.
    Shed,
    /// 200, once the server has come to it.
    Served { at: Time },
}

/// One queue of records, served in the order of arrival at a steady rate.
/// Shedding costs nothing, which flatters clients that are shed often. A probe
/// is answered at once and costs nothing either, unless the server sheds those,
/// too: with that the whole fleet is in its replay within seconds, which is the
/// harder case.
#[derive(Debug, Clone)]
pub struct Server {
    /// What one request takes.
    service: Time,
    away: Vec<Range<Time>>,
    /// While it takes no records, and says so.
    closed: Range<Time>,
    sheds_probes: bool,
    /// When the queue will be empty.
    busy_until: Time,
}

impl Server {
    /// A server of `capacity` requests a second.
    pub fn new(capacity: u64) -> Server {
        Server {
            service: SECOND / capacity,
            away: Vec::new(),
            closed: 0..0,
            sheds_probes: false,
            busy_until: 0,
        }
    }

    /// The same, away at that time.
    pub fn away(mut self, away: Range<Time>) -> Server {
        self.away.push(away);
        self
    }

    /// The same, shedding every record at that time, while probes are healthy.
    pub fn closed(self, closed: Range<Time>) -> Server {
        Server { closed, ..self }
    }

    /// The same; a probe takes its place in the queue, or is shed like a record.
    pub fn sheds_probes(self) -> Server {
        Server {
            sheds_probes: true,
            ..self
        }
    }

    /// A record or a probe that arrives at `now`.
    pub fn arrive(&mut self, now: Time, is_record: bool) -> Reply {
        if self.away.iter().any(|away| away.contains(&now)) {
            return Reply::NoConnection;
        }
        if !is_record && !self.sheds_probes {
            return Reply::Served { at: now };
        }
        let refused = is_record && self.closed.contains(&now);
        if refused || now < self.room_from() {
            return Reply::Shed;
        }
        self.busy_until = self.busy_until.max(now) + self.service;
        Reply::Served {
            at: self.busy_until,
        }
    }

    /// The first moment from `now` on at which a record is taken, if no other
    /// request comes before.
    pub fn takes_from(&self, now: Time) -> Time {
        let at = now.max(self.room_from());
        let mut shut = self.away.iter().chain([&self.closed]);
        match shut.find(|shut| shut.contains(&at)) {
            Some(shut) => self.takes_from(shut.end),
            None => at,
        }
    }

    fn room_from(&self) -> Time {
        self.busy_until.saturating_sub(QUEUE)
    }
}
