//! Many agents and one server. Every request is an event of its own, and they
//! are played in the order of time; only a hot loop is counted (`hot.rs`). The
//! server's queue is in order, so that the answer to a request, and with it the
//! agent's next one, is known when it arrives: one event a request.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::time::Instant;

use super::hot::HotLoop;
use super::rules::{Answer, Next, Rules};
use super::server::{MILLISECOND, Reply, Server, Time};
use super::tally::Tally;
use crate::support::rng::Rng;

/// From an agent to the server and back.
const ROUND_TRIP: Time = 10 * MILLISECOND;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Fleet {
    pub agents: u32,
    /// Records that each agent holds.
    pub records: u32,
    /// All agents start within this time, each at a random moment: an
    /// application starts its agent with the first record that the server does
    /// not take.
    pub start: Time,
    pub server: Server,
    /// The header `Retry-After` of a 503.
    pub retry_after: Option<String>,
    pub seed: u64,
}

struct Agent<R> {
    rules: R,
    /// Records that are still to be delivered.
    left: u32,
    replays: bool,
}

struct Play<'a, R> {
    fleet: &'a Fleet,
    server: Server,
    agents: Vec<Agent<R>>,
    rng: Rng,
    tally: Tally,
}

impl Fleet {
    /// Plays until every agent is drained.
    pub fn play<R: Rules>(&self) -> Tally {
        self.play_with::<R>(R::HOT)
    }

    /// The same; a hot loop is counted, or else played try by try.
    pub fn play_with<R: Rules>(&self, count_hot: bool) -> Tally {
        let epoch = Instant::now();
        let mut rng = Rng(self.seed);
        let mut due: BinaryHeap<Reverse<(Time, u32)>> = (0..self.agents)
            .map(|agent| Reverse((rng.below(self.start.max(1)), agent)))
            .collect();
        let agent = |_| Agent {
            rules: R::new(epoch),
            left: self.records,
            replays: false,
        };
        let mut play = Play {
            fleet: self,
            server: self.server.clone(),
            agents: (0..self.agents).map(agent).collect(),
            rng,
            tally: Tally::default(),
        };
        let period = R::ROUND_TRIPS * ROUND_TRIP;
        let mut hot = HotLoop::new(period);
        let mut now = 0;
        loop {
            let first_hot = hot.first_taken(now, &play.server);
            let first_due = due.peek().map(|&Reverse(first)| first);
            let is_hot = first_hot.is_some_and(|hot| first_due.is_none_or(|due| hot < due));
            let Some((at, agent)) = (if is_hot { first_hot } else { first_due }) else {
                return play.tally;
            };
            play.tally.hot(hot.len(), period, now, at);
            now = at;
            if is_hot {
                hot.leave(at, agent);
                play.tally.hot_try_taken(at);
            }
            let next = match play.request(at, agent) {
                Some(Sent::Again(_)) if count_hot => {
                    hot.enter(at, agent);
                    None
                }
                Some(Sent::Next(at) | Sent::Again(at)) => Some(Reverse((at, agent))),
                None => None,
            };
            if is_hot {
                due.extend(next);
            } else if let Some(mut first) = due.peek_mut() {
                // One step instead of two: the heap is most of the work.
                match next {
                    Some(next) => *first = next,
                    None => drop(PeekMut::pop(first)),
                }
            }
        }
    }
}

/// An agent's next request.
enum Sent {
    Next(Time),
    /// The same record as before.
    Again(Time),
}

impl<R: Rules> Play<'_, R> {
    /// The request of an agent arrives; None when it has no further one.
    fn request(&mut self, now: Time, agent: u32) -> Option<Sent> {
        let agent = &mut self.agents[agent as usize];
        let reply = self.server.arrive(now, agent.replays);
        let answered = match reply {
            Reply::Served { at } => at,
            Reply::NoConnection | Reply::Shed => now,
        };
        let answer = Answer {
            reply,
            at: answered + R::ROUND_TRIPS * ROUND_TRIP,
            retry_after: match reply {
                Reply::Shed => self.fleet.retry_after.as_deref(),
                _ => None,
            },
        };
        if !agent.replays {
            self.tally.probe(now);
            let next = match reply {
                Reply::Served { .. } => {
                    agent.replays = true;
                    agent.rules.probe_healthy(answer.at)
                }
                _ => agent.rules.probe_failed(&answer, fraction(&mut self.rng)),
            };
            return Some(Sent::Next(next));
        }
        self.tally.record(now, reply);
        match agent.rules.record(&answer, fraction(&mut self.rng)) {
            Next::Record(at) => {
                agent.left -= 1;
                (agent.left > 0).then_some(Sent::Next(at))
            }
            Next::Again(at) => Some(Sent::Again(at)),
            Next::Probe(at) => {
                agent.replays = false;
                Some(Sent::Next(at))
            }
        }
    }
}

/// From 0 to below 1.
fn fraction(rng: &mut Rng) -> f64 {
    (rng.next() >> 11) as f64 / (1u64 << 53) as f64
}
