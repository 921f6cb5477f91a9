//! Clients that promise bodies and do not send them, or send large ones all at
//! once (spec 3): others wait, nobody is refused, memory is bounded.

mod support;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::hostile::{Frame, Got, Raw, call, message, prefixed, promise, whole_call};
use support::sender::{Sender, block_on};
use support::siege::{Siege, honest, honest_with};
use support::wire::{DATA, END_STREAM, HEADERS, frame};

const LARGE: usize = 4_000_000;
/// BODY_STALL, and what a busy machine may add.
const DROPPED: Duration = Duration::from_secs(15);
const PROMPT: Duration = Duration::from_secs(5);
/// The most that hostile clients may make of the agent (spec 9).
const PEAK_KIB: u64 = 32 * 1024;

/// A call that declares a large body and sends `length` bytes of it.
fn stalled(socket: &Path, length: usize) -> Raw {
    let mut raw = Raw::open(socket);
    let body = [promise(LARGE), vec![b' '; length]].concat();
    raw.call(1, &body, 0);
    raw
}

/// A record that counts as large.
fn large_json() -> String {
    format!("\"{}\"", "x".repeat(500_000))
}

/// The answer to a call that failed: a status and nothing else.
fn status_alone(frame: &Frame) -> bool {
    frame.kind == HEADERS && frame.flags & END_STREAM != 0
}

fn wait_answer(raw: &mut Raw, stream: u32, deadline: Duration) -> Frame {
    let end = Instant::now() + deadline;
    loop {
        let frame = raw.wait_frame(HEADERS, end.saturating_duration_since(Instant::now()));
        if frame.stream == stream {
            return frame;
        }
    }
}

#[test]
fn stalled_bodies_are_dropped_when_others_wait() {
    let siege = Siege::start();
    let socket = siege.socket();
    let mut holders: Vec<Raw> = (0..3).map(|_| stalled(&socket, 1000)).collect();
    let mut small = 0;
    let waiting: Vec<JoinHandle<Duration>> = (0..8)
        .map(|_| {
            let socket = socket.clone();
            std::thread::spawn(move || honest_with(&socket, &large_json(), DROPPED))
        })
        .collect();
    while waiting.iter().any(|call| !call.is_finished()) {
        honest(&socket, PROMPT); // a small record does not wait for them
        small += 1;
    }
    for call in waiting {
        call.join().expect("an honest call");
    }
    // The two that held the budget are told, and their connection goes on.
    for raw in holders.iter_mut().take(2) {
        let answer = wait_answer(raw, 1, DROPPED);
        assert!(status_alone(&answer), "{answer:?}");
        raw.send(&whole_call(3, "{}"));
        let answer = wait_answer(raw, 3, PROMPT);
        assert!(!status_alone(&answer), "{answer:?}");
    }
    drop(holders);
    siege.honest(PROMPT);
    assert_eq!(siege.stop(), 12 + small);
}

#[test]
fn a_trickle_is_no_progress_when_others_wait() {
    let siege = Siege::start();
    let socket = siege.socket();
    let mut holders: Vec<Raw> = (0..3).map(|_| stalled(&socket, 1000)).collect();
    let call = std::thread::spawn(move || honest_with(&socket, &large_json(), DROPPED));
    let pieces = [frame(DATA, 0, 1, b" "), frame(DATA, 0, 1, b"")];
    let mut turn = 0;
    while !call.is_finished() {
        turn += 1;
        for raw in &mut holders {
            raw.try_send(&pieces[turn % 2]);
            raw.next(Duration::from_millis(100));
        }
    }
    call.join().expect("the honest call");
    siege.honest(PROMPT);
}

#[test]
fn a_pause_is_allowed_while_nobody_waits() {
    let siege = Siege::start();
    let mut raw = Raw::open(&siege.socket());
    let body = message(&format!("[{}1]", "1,".repeat(4000)));
    let (first, second) = body.split_at(4000);
    raw.call(1, first, 0);
    let pause = Instant::now();
    while pause.elapsed() < Duration::from_secs(7) {
        match raw.next(Duration::from_secs(1)) {
            Got::Frame(frame) => assert_ne!(frame.kind, HEADERS, "dropped: {frame:?}"),
            Got::End => panic!("the connection was closed"),
            Got::Nothing => {}
        }
        siege.honest(PROMPT);
    }
    raw.send(&frame(DATA, END_STREAM, 1, second));
    let answer = wait_answer(&mut raw, 1, PROMPT);
    assert!(!status_alone(&answer), "{answer:?}");
}

#[test]
fn many_large_records_at_once_are_all_taken() {
    let siege = Siege::start();
    let socket = siege.socket();
    let json = format!("\"{}\"", "x".repeat(3_900_000));
    let answers = block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let (sender, json) = (Sender::reconnecting(&socket), json.clone());
            calls.spawn(async move { sender.send(&json, &["p"], "k").await });
        }
        calls.join_all().await
    });
    for answer in answers {
        assert!(answer.expect("stored").success);
    }
    let peak = siege.agent.hwm_kib();
    assert!(peak.is_none_or(|kib| kib <= PEAK_KIB), "{peak:?} KiB");
    assert_eq!(siege.stop(), 25);
}

/// Small on the wire, large once decoded.
#[test]
fn a_message_of_two_million_pipelines_is_refused() {
    let siege = Siege::start();
    let body = prefixed(&[0x12, 0x00].repeat(2_000_000));
    let mut raw = Raw::open(&siege.socket());
    let mut rest = send_body(&mut raw, 1, &body);
    let answer = rest
        .take()
        .unwrap_or_else(|| wait_answer(&mut raw, 1, PROMPT));
    assert!(status_alone(&answer), "{answer:?}");
    let peak = siege.agent.hwm_kib();
    assert!(peak.is_none_or(|kib| kib <= PEAK_KIB), "{peak:?} KiB");
    siege.honest(PROMPT);
}

/// Sends a call with a body within the windows; an answer that came meanwhile.
fn send_body(raw: &mut Raw, stream: u32, body: &[u8]) -> Option<Frame> {
    raw.send(&call(stream, b"", 0));
    // RFC 9113 6.9.2, and never more than the agent's smallest.
    let (mut connection, mut own) = (32 * 1024_usize, 32 * 1024_usize);
    let mut rest = body;
    while !rest.is_empty() {
        let length = rest.len().min(connection).min(own).min(16 * 1024);
        if length == 0 {
            match raw.next(DROPPED) {
                Got::Frame(frame) if frame.kind == 8 => {
                    let more = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                    match frame.stream {
                        0 => connection += more as usize,
                        _ => own += more as usize,
                    }
                }
                Got::Frame(frame) if frame.kind == HEADERS => return Some(frame),
                Got::Frame(_) => {}
                other => panic!("no window: {other:?}"),
            }
            continue;
        }
        let (part, after) = rest.split_at(length);
        rest = after;
        (connection, own) = (connection - length, own - length);
        let flags = if rest.is_empty() { END_STREAM } else { 0 };
        raw.send(&frame(DATA, flags, stream, part));
    }
    None
}
