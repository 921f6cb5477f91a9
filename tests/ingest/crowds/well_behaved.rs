//! Clients that follow flow control, with more in flight than the agent has room for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::crowds::{CROWD_SERVED, Trial, WELL_BEHAVED_KIB, json};
use crate::support::raw::{Got, Raw, whole_call};
use crate::support::sender::{Sender, block_on};
use crate::support::wire::{
    ACK, DATA, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, frame, opening,
};

/// A parameter of RFC 9113 section 6.5.2.
const MAX_CONCURRENT_STREAMS: u16 = 3;

const PROMPT: Duration = Duration::from_secs(15);

/// Connections that are kept, each with so many calls, of which so many are in flight at
/// a time.
#[derive(Clone, Copy)]
struct Crowd {
    connections: usize,
    calls: usize,
    in_flight: usize,
    bytes: usize,
    /// A call before the others, so that the agent's SETTINGS are known.
    warmed: bool,
}

/// What a failed call is told by.
type Failures = Vec<String>;

impl Crowd {
    /// Sends all, and closes the connections when all are answered.
    fn run(self, socket: &Path) -> (Failures, Duration) {
        block_on(async {
            let senders = self.connect(socket).await;
            let start = Instant::now();
            let served = timeout(CROWD_SERVED, self.send(&senders)).await;
            let failures = served.unwrap_or_else(|_| vec![format!("not in {CROWD_SERVED:?}")]);
            (failures, start.elapsed())
        })
    }

    async fn connect(self, socket: &Path) -> Vec<Arc<Sender>> {
        let mut senders = Vec::new();
        for _ in 0..self.connections {
            let sender = Sender::keeping(socket);
            if self.warmed {
                let first = sender.send("1", &["p"], "k").await;
                assert!(first.expect("the first call").success);
            }
            senders.push(Arc::new(sender));
        }
        senders
    }

    async fn send(self, senders: &[Arc<Sender>]) -> Failures {
        let json: Arc<str> = json(self.bytes).into();
        let mut lanes = JoinSet::new();
        for sender in senders {
            let begun = Arc::new(AtomicUsize::new(0));
            for _ in 0..self.in_flight {
                let (sender, json, begun) =
                    (Arc::clone(sender), Arc::clone(&json), Arc::clone(&begun));
                lanes.spawn(async move {
                    let mut failures = Failures::new();
                    let mut before = Instant::now();
                    while begun.fetch_add(1, Relaxed) < self.calls {
                        let pause = before.elapsed();
                        match sender.send(&json, &["p"], "k").await {
                            Ok(answer) if answer.success => {}
                            other => failures.push(format!("after {pause:?}: {other:?}")),
                        }
                        before = Instant::now();
                    }
                    failures
                });
            }
        }
        lanes.join_all().await.concat()
    }
}

/// None of the calls fails, and the agent stays within what well-behaved clients may
/// make of it, and gives that back.
fn served(load: &str, crowd: Crowd) {
    let mut trial = Trial::start(load);
    let (failures, took) = crowd.run(&trial.hostile.socket());
    trial.note("took", took);
    trial.none_failed(crowd.connections * crowd.calls, &failures);
    trial.peak(WELL_BEHAVED_KIB);
    trial.small_again();
    trial.end();
}

fn kept(connections: usize, calls: usize, in_flight: usize, bytes: usize) -> Crowd {
    Crowd {
        connections,
        calls,
        in_flight,
        bytes,
        warmed: true,
    }
}

#[test]
fn forty_connections_with_64_calls_in_flight_each_are_served() {
    served("40 x 100 of 60 kB, 64 in flight", kept(40, 100, 64, 60_000));
}

#[test]
fn thirty_one_connections_with_64_calls_each_are_served() {
    served("31 x 64 of 60 kB", kept(31, 64, 64, 60_000));
}

#[test]
fn the_memory_of_a_crowd_is_given_back() {
    served("42 x 85 of 60 kB", kept(42, 85, 85, 60_000));
}

#[test]
fn a_hundred_connections_with_eight_calls_each_are_served() {
    served("100 x 8 of 20 kB", kept(100, 8, 8, 20_000));
}

#[test]
fn a_megabyte_on_each_of_192_connections_is_taken() {
    served("192 x 1 of 1 MB", kept(192, 1, 1, 1_000_000));
}

#[test]
fn the_largest_records_on_24_connections_are_taken() {
    served("24 x 1 of 3.9 MB", kept(24, 1, 1, 3_900_000));
}

/// Each of them has few calls open, and none of them is many at a time.
#[test]
fn the_memory_of_thirty_steady_clients_is_given_back() {
    served("30 x 100 of 60 kB, one in flight", kept(30, 100, 1, 60_000));
}

/// Just what is in no line, and just what is.
#[test]
fn records_about_as_large_as_a_window_are_taken() {
    for bytes in [22_400, 22_500, 22_600, 45_000] {
        let load = format!("40 x 64 of {bytes} bytes");
        served(&load, kept(40, 64, 64, bytes));
    }
}

#[test]
fn a_burst_on_a_fresh_connection_is_served() {
    for (calls, bytes) in [(40, 7), (64, 7), (40, 20_000), (64, 60_000)] {
        let burst = Crowd {
            warmed: false,
            ..kept(1, calls, calls, bytes)
        };
        served(&format!("a burst of {calls} of {bytes} bytes"), burst);
    }
}

/// Beside more the agent allows fewer streams than a client may begin before it knows.
#[test]
fn a_burst_on_a_fresh_connection_beside_a_few_others_is_served() {
    let mut trial = Trial::start("a burst of 40 beside 3 connections");
    let others: Vec<_> = (0..3)
        .map(|_| Caller::connect(&trial.hostile.socket()))
        .collect();
    let burst = Crowd {
        warmed: false,
        ..kept(1, 40, 40, 7)
    };
    let (failures, took) = burst.run(&trial.hostile.socket());
    trial.note("took", took);
    trial.none_failed(40, &failures);
    drop(others);
    trial.end();
}

#[test]
fn more_kept_connections_than_places_are_served() {
    let crowd = Crowd {
        warmed: false,
        ..kept(300, 20, 1, 100)
    };
    served("300 x 20 of 100 bytes, one in flight", crowd);
}

/// On many connections at once as many as each is allowed.
#[test]
fn as_many_calls_as_192_connections_are_allowed_are_served() {
    for bytes in [22_500, 60_000, 300_000] {
        let shapes = [(4, 64), (12, 8), (176, 1)];
        let crowds = shapes.map(|(connections, calls)| kept(connections, calls, calls, bytes));
        served_together(&format!("192 as allowed of {bytes} bytes"), &crowds);
    }
}

/// What is just in line has often come whole by its turn.
#[test]
fn records_about_as_large_as_a_window_are_taken_beside_large_ones() {
    let large = kept(24, 4, 1, 3_900_000);
    let crowds = [22_600, 23_500, 24_500, 40_000].map(|bytes| kept(6, 40, 1, bytes));
    let crowds = [&crowds[..], &[large]].concat();
    served_together("24 x 4 of 3.9 MB, 24 x 40 of 22.6 to 40 kB", &crowds);
}

fn served_together(load: &str, crowds: &[Crowd]) {
    let mut trial = Trial::start(load);
    let socket = trial.hostile.socket();
    let (failures, took) = block_on(async {
        let mut connected = Vec::new();
        for crowd in crowds {
            connected.push((crowd, crowd.connect(&socket).await));
        }
        let start = Instant::now();
        let mut sending = JoinSet::new();
        for (crowd, senders) in connected {
            let crowd = *crowd;
            sending.spawn(async move { crowd.send(&senders).await });
        }
        let served = timeout(CROWD_SERVED, sending.join_all()).await;
        let failures = served.map(|each| each.concat());
        let late = |_| vec![format!("not in {CROWD_SERVED:?}")];
        (failures.unwrap_or_else(late), start.elapsed())
    });
    trial.note("took", took);
    let calls = crowds.iter().map(|crowd| crowd.connections * crowd.calls);
    trial.none_failed(calls.sum(), &failures);
    trial.peak(WELL_BEHAVED_KIB);
    trial.small_again();
    trial.end();
}

/// A connection with as many whole calls as it is allowed, all written.
struct Caller {
    raw: Raw,
    calls: u32,
}

impl Caller {
    fn connect(socket: &Path) -> Caller {
        let mut raw = Raw::open(socket);
        let settings = raw.wait_frame(SETTINGS, PROMPT).payload;
        raw.send(&frame(SETTINGS, ACK, 0, &[]));
        let streams = settings.chunks_exact(6).find_map(|parameter| {
            let (name, value) = parameter.split_at(2);
            let is_streams = name == MAX_CONCURRENT_STREAMS.to_be_bytes();
            is_streams.then(|| u32::from_be_bytes(value.try_into().expect("four bytes")))
        });
        Caller {
            raw,
            calls: streams.unwrap_or(u32::MAX).min(64),
        }
    }

    /// One call, which does not wait for a place.
    fn at_once(socket: &Path) -> Caller {
        let mut raw = Raw::connect(socket);
        raw.send(&[opening(), whole_call(1, "{}")].concat());
        Caller { raw, calls: 1 }
    }

    fn write(&mut self) {
        let calls: Vec<u8> = (0..self.calls)
            .flat_map(|n| whole_call(2 * n + 1, "{}"))
            .collect();
        self.raw.send(&calls);
    }

    /// Reads until all are answered; what went wrong.
    fn failures(&mut self) -> Failures {
        let mut answered = vec![0; self.calls as usize];
        while answered.iter().any(|frames| *frames < 3) {
            let got = match self.raw.next(PROMPT) {
                Got::Frame(frame) => frame,
                other => {
                    let left = answered.iter().filter(|frames| **frames < 3).count();
                    let calls = self.calls;
                    return vec![format!("{left} of {calls} without an answer: {other:?}")];
                }
            };
            let frames = answered.get_mut((got.stream / 2) as usize);
            match (got.kind, got.flags & END_STREAM, frames) {
                (PING, _, _) if got.flags & ACK == 0 => {
                    self.raw.try_send(&frame(PING, ACK, 0, &got.payload));
                }
                // An answer's headers, its message and its trailers.
                (HEADERS, 0, Some(frames)) if *frames == 0 => *frames = 1,
                (DATA, 0, Some(frames)) if *frames == 1 => *frames = 2,
                (HEADERS, END_STREAM, Some(frames)) if *frames == 2 => *frames = 3,
                (HEADERS | DATA | RST_STREAM, _, _) => return vec![format!("{got:?}")],
                _ => {}
            }
        }
        Failures::new()
    }
}

/// The agent is told to end when all calls are written; with `stopped`, it has read none
/// of them by then.
fn told_to_end(stopped: bool) {
    let mut trial = Trial::start(&format!("SIGTERM beside whole calls, stopped: {stopped}"));
    let socket = trial.hostile.socket();
    let mut callers: Vec<_> = (0..32).map(|_| Caller::connect(&socket)).collect();
    if stopped {
        trial.hostile.agent.stop();
    }
    for caller in &mut callers {
        caller.write();
    }
    trial.hostile.agent.signal(Signal::TERM);
    trial.hostile.agent.signal(Signal::CONT);
    let told = Instant::now();
    let calls = callers.iter().map(|caller| caller.calls as usize).sum();
    let failures: Failures = std::thread::scope(|scope| {
        let reading = |caller| scope.spawn(|| Caller::failures(caller));
        let threads: Vec<_> = callers.iter_mut().map(reading).collect();
        let failures = threads.into_iter().map(|thread| thread.join());
        failures.flat_map(|each| each.expect("a reader")).collect()
    });
    trial.note("answered after", told.elapsed());
    trial.none_failed(calls, &failures);
    trial.end();
}

/// Some of them are accepted only then.
#[test]
fn calls_of_more_connections_than_places_are_answered_at_the_end() {
    let mut trial = Trial::start("SIGTERM beside 600 connections");
    let socket = trial.hostile.socket();
    let mut callers: Vec<_> = (0..600).map(|_| Caller::at_once(&socket)).collect();
    trial.hostile.agent.signal(Signal::TERM);
    let told = Instant::now();
    let failures: Failures = callers.iter_mut().flat_map(Caller::failures).collect();
    trial.note("answered after", told.elapsed());
    trial.none_failed(callers.len(), &failures);
    trial.end();
}

#[test]
fn calls_that_came_whole_before_the_end_are_answered() {
    told_to_end(false);
}

#[test]
fn calls_that_were_not_read_before_the_end_are_answered() {
    told_to_end(true);
}
