//! Clients with many calls at once: begun and left, cancelled, never read (spec
//! 3).

use crate::support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use support::hostile_clients::{HostileClients, well_behaved};
use support::raw::{Got, Raw, call, header_block_of, header_block_with, message, whole_call};
use support::rng::Rng;
use support::sender::{Sender, block_on};
use support::wait;
use support::wire::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame,
    opening,
};

const DEADLINE: Duration = Duration::from_secs(20);
/// Between calls of others; the machine is slow and the build is for debugging.
const PROMPT: Duration = Duration::from_secs(15);
/// The most that hostile clients may make of the agent (spec 9).
const PEAK_KIB: u64 = 32 * 1024;
/// What the agent allows the first connections.
const STREAMS: u32 = 64;
const CONNECTIONS: usize = 28;

const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn odd(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

/// Many connections begin as many calls with these headers, as far as the agent takes them,
/// and leave it at that; then well-behaved clients are served and the agent's memory is
/// looked at.
fn flood(case: &str, block: &[u8]) {
    let hostile = HostileClients::start();
    let calls: Vec<u8> = odd(STREAMS)
        .flat_map(|stream| frame(HEADERS, END_HEADERS, stream, block))
        .collect();
    let mut raws: Vec<Raw> = (0..CONNECTIONS)
        .map(|_| Raw::open(&hostile.socket()))
        .collect();
    std::thread::scope(|scope| {
        for part in raws.chunks_mut(CONNECTIONS / 4) {
            scope.spawn(|| {
                for raw in part {
                    raw.try_send(&calls);
                }
            });
        }
    });
    for _ in 0..5 {
        hostile.well_behaved(DEADLINE);
    }
    let peak = hostile.agent.hwm_kib();
    assert!(
        peak.is_none_or(|kib| kib <= PEAK_KIB),
        "{case}: {peak:?} KiB"
    );
}

#[test]
fn large_headers_of_many_calls_take_little() {
    let large = "x".repeat(15_000);
    flood("large headers", &header_block_with(&[("large", &large)]));
}

#[test]
fn refusals_that_are_never_read_take_little() {
    // Percent-encoded, each would be three times as long.
    let path = format!("/{}", "%".repeat(15_000));
    flood("long paths", &header_block_of(&path, &[]));
}

#[test]
fn a_client_that_reads_nothing_holds_no_other() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let before = hostile.agent.rss_kib();
    // No window at all for answers: their messages wait for ever.
    let mut no_window = PREFACE.to_vec();
    no_window.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let mut raws: Vec<Raw> = Vec::new();
    for n in 0..32 {
        let mut raw = Raw::connect(&socket);
        let windows = [opening(), no_window.clone()];
        raw.send(&windows[n % 2]);
        let calls: Vec<u8> = odd(STREAMS)
            .flat_map(|stream| whole_call(stream, "{}"))
            .collect();
        raw.try_send(&calls);
        // And more than it may, for as long as the agent takes it.
        let more: Vec<u8> = (STREAMS..20 * STREAMS)
            .flat_map(|n| whole_call(2 * n + 1, "{}"))
            .collect();
        raw.send_within(&more, Duration::from_millis(50));
        raws.push(raw);
    }
    for _ in 0..10 {
        hostile.well_behaved(PROMPT);
    }
    let grown = hostile
        .agent
        .rss_kib()
        .zip(before)
        .map(|(now, was)| now.saturating_sub(was));
    assert!(
        grown.is_none_or(|kib| kib < 16 * 1024),
        "{grown:?} KiB more"
    );
    drop(raws);
    hostile.well_behaved(PROMPT);
}

#[test]
fn cancelled_calls_leave_nothing_behind() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let mut rng = Rng(7);
    let mut after_warm_up = None;
    for round in 0..24 {
        let mut raw = Raw::open(&socket);
        for at in odd(100) {
            let record = format!("{{\"round\":{round},\"call\":{at}}}");
            let bytes = whole_call(at, &record);
            // Up to some byte, and then the client thinks better of it.
            let headers = call(at, b"", 0).len();
            let cut = headers + rng.index(bytes.len() - headers + 1);
            let part = match cut - headers {
                0 => bytes[..headers].to_vec(),
                n if n < 9 => bytes[..headers].to_vec(),
                n => {
                    let body = &message(&record)[..n - 9];
                    let flags = if cut == bytes.len() { END_STREAM } else { 0 };
                    call(at, body, flags)
                }
            };
            let mut open = raw.try_send(&part);
            if rng.index(2) == 0 {
                raw.next(Duration::from_millis(1));
            }
            open &= raw.try_send(&frame(RST_STREAM, 0, at, &CANCEL));
            if !open {
                break; // h2 has had enough of this connection.
            }
        }
        if rng.index(2) == 0 {
            raw.half_close();
        }
        if round % 8 == 0 {
            hostile.well_behaved(PROMPT);
        }
        if round == 8 {
            after_warm_up = hostile.agent.rss_kib();
        }
    }
    hostile.well_behaved(PROMPT);
    let grown = hostile.agent.rss_kib().zip(after_warm_up);
    let grown = grown.map(|(now, was)| now.saturating_sub(was));
    assert!(grown.is_none_or(|kib| kib < 1024), "{grown:?} KiB more");
    hostile.stop();
}

#[test]
fn calls_that_reset_at_once_cost_the_connection() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let mut raw = Raw::open(&socket);
    let mut closed = false;
    'rounds: for round in 0..200_u32 {
        let pairs: Vec<u8> = (0..100)
            .map(|n| 2 * (round * 100 + n) + 1)
            .flat_map(|stream| {
                let mut bytes = call(stream, b"", 0);
                bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL));
                bytes
            })
            .collect();
        if !raw.try_send(&pairs) {
            closed = true;
            break;
        }
        loop {
            match raw.next(Duration::from_millis(1)) {
                Got::Frame(frame) if frame.kind == GOAWAY => {
                    closed = true;
                    break 'rounds;
                }
                Got::End => {
                    closed = true;
                    break 'rounds;
                }
                Got::Frame(_) => {}
                Got::Nothing => break,
            }
        }
    }
    assert!(closed, "20,000 resets were taken");
    hostile.well_behaved(PROMPT);
    let peak = hostile.agent.hwm_kib();
    assert!(peak.is_none_or(|kib| kib < 16 * 1024), "{peak:?} KiB");
}

#[test]
fn more_calls_than_streams_wait_at_the_client() {
    let hostile = HostileClients::start();
    let sender = Arc::new(Sender::keeping(&hostile.socket()));
    let answers = block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..500 {
            let sender = Arc::clone(&sender);
            calls.spawn(async move { sender.send(&n.to_string(), &["p"], "k").await });
        }
        calls.join_all().await
    });
    for answer in answers {
        assert!(answer.expect("stored").success);
    }
    assert_eq!(hostile.stop(), 501);
}

#[test]
fn a_client_of_its_own_opinion_is_refused_the_stream_alone() {
    let hostile = HostileClients::start();
    let mut raw = Raw::open(&hostile.socket());
    // It has seen the agent's SETTINGS and opens more streams than they allow.
    raw.wait_frame(SETTINGS, PROMPT);
    raw.send(&frame(SETTINGS, ACK, 0, &[]));
    let mut calls: Vec<u8> = odd(STREAMS)
        .flat_map(|stream| call(stream, b"", 0))
        .collect();
    calls.extend(call(2 * STREAMS + 1, b"", 0));
    raw.send(&calls);
    let reset = raw.wait_frame(RST_STREAM, PROMPT);
    assert_eq!(reset.stream, 2 * STREAMS + 1);
    assert_eq!(
        reset.payload,
        [0, 0, 0, 7],
        "REFUSED_STREAM: safe to try again"
    );
    raw.send(&frame(DATA, END_STREAM, 1, &message("{}")));
    let answer = raw.wait_frame(HEADERS, PROMPT);
    assert_eq!(answer.stream, 1);
    hostile.well_behaved(PROMPT);
    assert_eq!(hostile.stop(), 3);
}

#[test]
fn greedy_clients_do_not_starve_a_well_behaved_one() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let greedy: Vec<_> = (0..4)
        .map(|_| {
            let (socket, stop, sent) = (socket.clone(), Arc::clone(&stop), Arc::clone(&sent));
            std::thread::spawn(move || block_on(greed(&socket, &stop, &sent)))
        })
        .collect();
    wait::until(DEADLINE, "the greedy at work", || sent.load(Relaxed) > 100);
    let mut took: Vec<_> = (0..30).map(|_| well_behaved(&socket, DEADLINE)).collect();
    stop.store(true, Relaxed);
    for thread in greedy {
        thread.join().expect("a greedy client");
    }
    let sent = sent.load(Relaxed);
    took.sort();
    println!("well-behaved calls took {took:?} beside {sent} greedy ones");
    // The usual one: any single one may meet a moment in which all stands still.
    assert!(took[15] < Duration::from_secs(2), "{took:?}");
    assert_eq!(hostile.stop(), 31 + sent);
}

/// Four clients that send as fast as they can, eight calls at a time each.
async fn greed(socket: &Path, stop: &Arc<AtomicBool>, sent: &Arc<AtomicUsize>) {
    let json: Arc<str> = format!("\"{}\"", "g".repeat(20_000)).into();
    let mut lanes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let sender = Arc::new(Sender::keeping(socket));
        for _ in 0..8 {
            let (sender, json) = (Arc::clone(&sender), Arc::clone(&json));
            let (stop, sent) = (Arc::clone(stop), Arc::clone(sent));
            lanes.spawn(async move {
                while !stop.load(Relaxed) {
                    let answer = sender.send(&json, &["p"], "k").await;
                    assert!(answer.expect("stored").success);
                    sent.fetch_add(1, Relaxed);
                }
            });
        }
    }
    lanes.join_all().await;
}
