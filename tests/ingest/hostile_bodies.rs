//! Clients that promise bodies and do not send them, or send large ones all at
//! once (spec 3): others wait, no call is refused, memory is bounded.

use crate::support;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use echopost::limits::STREAM_WINDOW;
use support::hostile_clients::{HostileClients, well_behaved, well_behaved_with};
use support::raw::{Frame, Got, Raw, begun, call, message, prefixed, whole_call};
use support::sender::{Sender, block_on};
use support::wire::{ACK, DATA, END_STREAM, HEADERS, PING, SETTINGS, WINDOW_UPDATE, frame};

const LARGE: usize = 4_000_000;
/// A well-behaved call takes milliseconds; the machine may be busy.
const PROMPT: Duration = Duration::from_secs(15);
/// For those that wait behind two of the stalled, each for BODY_STALL.
const WAITED_OUT: Duration = Duration::from_secs(60);
/// The most that hostile clients may make of the agent (spec 9).
const PEAK_KIB: u64 = 32 * 1024;

/// What brings a large body into the line for the budget.
const WINDOW: usize = STREAM_WINDOW as usize - 5;

/// A call that declares a large body and sends `length` bytes of it.
fn stalled(socket: &Path, length: usize) -> Raw {
    let mut raw = Raw::open(socket);
    let body = begun(LARGE, length);
    let (first, rest) = body.split_at(body.len().min(16_000));
    raw.call(1, first, 0);
    raw.send(&frame(DATA, 0, 1, rest));
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
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let mut holders: Vec<Raw> = (0..3).map(|_| stalled(&socket, WINDOW)).collect();
    let mut small = 0;
    let waiting: Vec<JoinHandle<Duration>> = (0..8)
        .map(|_| {
            let socket = socket.clone();
            std::thread::spawn(move || well_behaved_with(&socket, &large_json(), WAITED_OUT))
        })
        .collect();
    while waiting.iter().any(|call| !call.is_finished()) {
        well_behaved(&socket, PROMPT);
        small += 1;
    }
    // These did not: that takes ten seconds.
    assert!(small > 10, "{small} small records meanwhile");
    for call in waiting {
        call.join().expect("a well-behaved call");
    }
    // The two that held the budget are told, and their connection goes on.
    for raw in holders.iter_mut().take(2) {
        let answer = wait_answer(raw, 1, WAITED_OUT);
        assert!(status_alone(&answer), "{answer:?}");
        raw.send(&whole_call(3, "{}"));
        let answer = wait_answer(raw, 3, PROMPT);
        assert!(!status_alone(&answer), "{answer:?}");
    }
    drop(holders);
    hostile.well_behaved(PROMPT);
    assert_eq!(hostile.stop(), 12 + small);
}

/// A window or more, whether its client has heard of that or not: nothing is asked of it
/// that has come whole, and nothing is missing.
#[test]
fn a_record_that_comes_whole_while_it_is_in_line_is_taken() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let _holders: Vec<Raw> = (0..3).map(|_| stalled(&socket, WINDOW)).collect();
    let mut waiting: Vec<Raw> = [22_524, 23_500, 40_000, 60_000]
        .map(|size| {
            let body = message(&format!("\"{}\"", "x".repeat(size - 2)));
            let (begin, end) = body.split_at(body.len() - 100);
            let mut raw = Raw::open(&socket);
            raw.call(1, b"", 0);
            for part in begin.chunks(16_000) {
                raw.send(&frame(DATA, 0, 1, part));
            }
            raw.send(&frame(DATA, END_STREAM, 1, end));
            raw
        })
        .into();
    for raw in &mut waiting {
        let answer = wait_answer(raw, 1, WAITED_OUT);
        assert!(!status_alone(&answer), "{answer:?}");
    }
    assert_eq!(hostile.stop(), 1 + 4);
}

#[test]
fn a_trickle_is_no_progress_when_others_wait() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let mut holders: Vec<Raw> = (0..3).map(|_| stalled(&socket, WINDOW)).collect();
    let call = std::thread::spawn(move || well_behaved_with(&socket, &large_json(), WAITED_OUT));
    let pieces = [frame(DATA, 0, 1, b" "), frame(DATA, 0, 1, b"")];
    let mut turn = 0;
    while !call.is_finished() {
        turn += 1;
        for raw in &mut holders {
            raw.try_send(&pieces[turn % 2]);
            raw.next(Duration::from_millis(100));
        }
    }
    call.join().expect("the well-behaved call");
    hostile.well_behaved(PROMPT);
}

#[test]
fn a_pause_is_allowed_while_no_client_waits() {
    let hostile = HostileClients::start();
    let mut raw = Raw::open(&hostile.socket());
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
        hostile.well_behaved(PROMPT);
    }
    raw.send(&frame(DATA, END_STREAM, 1, second));
    let answer = wait_answer(&mut raw, 1, PROMPT);
    assert!(!status_alone(&answer), "{answer:?}");
}

/// gRPC clients put all their channels to one socket on one connection: the
/// calls that wait must leave room in its window for the one that is served.
#[test]
fn large_records_that_share_a_connection_wait_for_each_other() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    for (calls, size) in [
        (64, 200_000),
        (16, 600_000),
        (12, 1_500_000),
        (24, 3_900_000),
    ] {
        let json = format!("\"{}\"", "x".repeat(size));
        let sender = Arc::new(Sender::keeping(&socket));
        let answers = block_on(async {
            let mut set = tokio::task::JoinSet::new();
            for _ in 0..calls {
                let (sender, json) = (Arc::clone(&sender), json.clone());
                set.spawn(async move { sender.send(&json, &["p"], "k").await });
            }
            set.join_all().await
        });
        for answer in answers {
            assert!(answer.expect("stored").success, "{calls} of {size}");
        }
    }
}

/// Small on the wire, large once decoded.
#[test]
fn a_message_of_two_million_pipelines_is_refused() {
    let hostile = HostileClients::start();
    let body = prefixed(&[0x12, 0x00].repeat(2_000_000));
    let mut raw = Raw::open(&hostile.socket());
    let mut rest = send_body(&mut raw, 1, &body, 0);
    let answer = rest
        .take()
        .unwrap_or_else(|| wait_answer(&mut raw, 1, PROMPT));
    assert!(status_alone(&answer), "{answer:?}");
    let peak = hostile.agent.hwm_kib();
    assert!(peak.is_none_or(|kib| kib <= PEAK_KIB), "{peak:?} KiB");
    hostile.well_behaved(PROMPT);
}

/// Sends a call with a body within the windows, `early` bytes of it before the
/// agent's SETTINGS are looked at; an answer that came meanwhile.
fn send_body(raw: &mut Raw, stream: u32, body: &[u8], early: usize) -> Option<Frame> {
    // RFC 9113 6.9.2: what every connection begins with.
    let (mut connection, mut own) = (65_535_i64, 65_535_i64);
    let mut sent = 0;
    let mut send = |raw: &mut Raw, length: usize| {
        let flags = match sent + length == body.len() {
            true => END_STREAM,
            false => 0,
        };
        raw.send(&frame(DATA, flags, stream, &body[sent..sent + length]));
        sent += length;
        body.len() - sent
    };
    raw.send(&call(stream, b"", 0));
    let mut left = body.len();
    for part in [early.min(16_384), early.saturating_sub(16_384)] {
        left = if part > 0 { send(raw, part) } else { left };
    }
    (connection, own) = (connection - early as i64, own - early as i64);
    // Some round trips later the agent has taken in what it has.
    let (mut round_trips, mut settled) = (0, false);
    raw.send(&frame(PING, 0, 0, &[0; 8]));
    while left > 0 {
        let length = connection.min(own).min(16_384).min(left as i64);
        if settled && length > 0 {
            left = send(raw, length as usize);
            (connection, own) = (connection - length, own - length);
            continue;
        }
        match raw.next(PROMPT) {
            Got::Frame(got) if got.kind == PING && round_trips < 3 => {
                round_trips += 1;
                raw.send(&frame(PING, 0, 0, &[0; 8]));
            }
            Got::Frame(got) if got.kind == PING && !settled => {
                raw.send(&frame(SETTINGS, ACK, 0, b""));
                own += i64::from(STREAM_WINDOW) - 65_535;
                settled = true;
            }
            Got::Frame(got) if got.kind == WINDOW_UPDATE => {
                let more = u32::from_be_bytes(got.payload[..4].try_into().unwrap());
                match got.stream {
                    0 => connection += i64::from(more),
                    _ => own += i64::from(more),
                }
            }
            Got::Frame(frame) if frame.kind == HEADERS => return Some(frame),
            Got::Frame(_) => {}
            other => panic!("no window after {early} early bytes: {other:?}"),
        }
    }
    None
}

/// h2 gives nothing back for little data that came before the client knew the
/// agent's window; that window must then still be open.
#[test]
fn what_comes_before_the_settings_are_known_shuts_no_window() {
    let hostile = HostileClients::start();
    let body = message(&format!("\"{}\"", "x".repeat(100_000)));
    for early in [0, 1, 5_000, 10_000, 16_384, 20_000, 21_844, 24_000, 32_000] {
        let mut raw = Raw::open(&hostile.socket());
        let mut answer = send_body(&mut raw, 1, &body, early);
        let answer = answer
            .take()
            .unwrap_or_else(|| wait_answer(&mut raw, 1, PROMPT));
        assert!(!status_alone(&answer), "{early}: {answer:?}");
    }
}
