//! Agents in a hot loop. What happens to one that is shed is known beforehand:
//! it comes again after each round trip, until a place in the queue is free at
//! that moment. So those tries are counted, not played one by one; the outcome is
//! the same to the nanosecond (the test `a_hot_loop_is_counted_as_it_is_played`).

use std::collections::BTreeSet;

use super::server::{Server, Time};

/// The agents in a hot loop, by when in a round trip they come.
pub struct HotLoop {
    period: Time,
    /// Time of arrival modulo the period, and the agent.
    phases: BTreeSet<(Time, u32)>,
}

impl HotLoop {
    /// None yet; each comes again after `period`.
    pub fn new(period: Time) -> HotLoop {
        HotLoop {
            period,
            phases: BTreeSet::new(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.phases.len()
    }

    /// An agent whose last try was at `at`.
    pub fn enter(&mut self, at: Time, agent: u32) {
        self.phases.insert((at % self.period, agent));
    }

    /// The first try from `now` on that the server takes, and whose it is.
    pub fn first_taken(&self, now: Time, server: &Server) -> Option<(Time, u32)> {
        let mut from = server.takes_from(now);
        loop {
            let first = self.first_from(from)?;
            from = server.takes_from(first.0);
            if from == first.0 {
                return Some(first);
            }
        }
    }

    fn first_from(&self, from: Time) -> Option<(Time, u32)> {
        let phase = from % self.period;
        let turn = from - phase;
        let (turn, (phase, agent)) = match self.phases.range((phase, 0)..).next() {
            Some(&first) => (turn, first),
            None => (turn + self.period, *self.phases.first()?),
        };
        Some((turn + phase, agent))
    }

    /// Its try at `at` was taken.
    pub fn leave(&mut self, at: Time, agent: u32) {
        self.phases.remove(&(at % self.period, agent));
    }
}
