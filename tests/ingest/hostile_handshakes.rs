//! Clients that do not get as far as a call: half a handshake, half a header
//! block, headers without end (spec 3).

use crate::support;

use std::time::{Duration, Instant};

use echopost::limits::HEADER_STALL;
use support::fixture::side_by_side;
use support::hostile_clients::{HostileClients, well_behaved};
use support::raw::{Frame, Raw, header_block, header_block_with, message, whole_call};
use support::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame, opening,
};

/// HEADER_STALL, and what a busy machine may add.
const DROPPED: Duration = Duration::from_secs(15);
/// Before its time is up, no client is dropped.
const SPARED: Duration = HEADER_STALL;
/// A well-behaved call takes milliseconds; the machine may be busy.
const PROMPT: Duration = Duration::from_secs(15);

#[test]
fn clients_that_stop_halfway_are_dropped() {
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]);
    let headers = frame(HEADERS, END_HEADERS, 1, &header_block());
    let whole = |parts: &[&[u8]]| parts.concat();
    let halves = [
        ("nothing at all", Vec::new()),
        ("half the preface", opening()[..11].to_vec()),
        ("no SETTINGS", PREFACE.to_vec()),
        ("half the SETTINGS", whole(&[PREFACE, &settings[..12]])),
        ("half the headers", whole(&[&opening(), &headers[..40]])),
        (
            "no end of the headers",
            whole(&[&opening(), &frame(HEADERS, 0, 1, &header_block())]),
        ),
        ("half a frame's head", whole(&[&opening(), &headers[..4]])),
        (
            "half a continuation",
            whole(&[
                &opening(),
                &frame(HEADERS, 0, 1, &header_block()[..2]),
                &frame(CONTINUATION, 0, 1, &header_block()[2..4]),
            ]),
        ),
    ];
    let hostile = HostileClients::start();
    let before = hostile.agent.descriptors();
    let mut watchers = Vec::new();
    for (case, bytes) in &halves {
        // All of them have a place.
        for _ in 0..4 {
            let start = Instant::now();
            let mut raw = Raw::connect(&hostile.socket());
            raw.send(bytes);
            let watch = move || {
                let closed = raw.until_closed(DROPPED, |_| {});
                closed.map(|_| start.elapsed())
            };
            watchers.push((case, std::thread::spawn(watch)));
        }
    }
    hostile.well_behaved(PROMPT);
    for (case, watcher) in watchers {
        let took = watcher.join().expect("the watcher");
        let took = took.unwrap_or_else(|| panic!("{case}: not dropped after {DROPPED:?}"));
        assert!(took >= SPARED, "{case}: dropped after {took:?} already");
    }
    hostile.well_behaved(PROMPT);
    // One or two may be the probe's at either moment.
    let left = hostile.agent.descriptors();
    let most = before.map(|count| count + 3);
    assert!(left <= most, "{left:?} descriptors, {before:?} before");
    assert_eq!(hostile.stop(), 3);
}

#[test]
fn a_preface_or_a_header_block_byte_by_byte_buys_no_time() {
    let hostile = HostileClients::start();
    let block = frame(HEADERS, END_HEADERS, 1, &header_block());
    side_by_side(
        [(vec![], opening()), (opening(), block)],
        |(whole, trickle)| {
            let mut raw = Raw::connect(&hostile.socket());
            raw.send(&whole);
            // A client of a byte a second has not finished after five.
            let alive = trickle.iter().take_while(|byte| {
                let open = raw.try_send(&[**byte]);
                open && raw.until_closed(Duration::from_secs(1), |_| {}).is_none()
            });
            let seconds = alive.count();
            assert!(seconds < 10, "still open after {seconds} s");
        },
    );
    hostile.well_behaved(PROMPT);
}

#[test]
fn a_call_with_too_many_headers_is_refused_alone() {
    let hostile = HostileClients::start();
    let mut raw = Raw::open(&hostile.socket());
    let large = "x".repeat(4000);
    let many: Vec<(&str, &str)> = vec![("large", large.as_str()); 3];
    let mut fat = frame(HEADERS, 0, 1, &header_block_with(&many)[..6_000]);
    fat.extend(frame(
        CONTINUATION,
        END_HEADERS,
        1,
        &header_block_with(&many)[6_000..],
    ));
    raw.send(&fat);
    let refusal = raw.wait_frame(HEADERS, PROMPT);
    assert_eq!(refusal.stream, 1);
    // The status 431, literal or by the name's index.
    assert!(holds(&refusal, b"431"), "{refusal:?}");
    // The same connection goes on.
    raw.send(&whole_call(3, "{}"));
    let answer = raw.wait_frame(HEADERS, PROMPT);
    assert_eq!(answer.stream, 3);
    hostile.well_behaved(PROMPT);
    assert_eq!(hostile.stop(), 3);
}

fn holds(frame: &Frame, text: &[u8]) -> bool {
    // 431 as hyper's Huffman code has it, or plain.
    let coded = [0b0110_1001, 0b1001_0000, 0b0111_1111];
    let has = |part: &[u8]| frame.payload.windows(part.len()).any(|w| w == part);
    has(text) || has(&coded[..2])
}

#[test]
fn a_flood_of_continuations_costs_the_connection() {
    let hostile = HostileClients::start();
    let before = hostile.agent.hwm_kib();
    let mut raw = Raw::open(&hostile.socket());
    let part = vec![0; 1024];
    let mut sent = 0;
    let mut open = raw.try_send(&frame(HEADERS, 0, 1, &header_block()));
    while open && sent < 10_000 {
        open = raw.try_send(&frame(CONTINUATION, 0, 1, &part));
        sent += 1;
    }
    assert!(!open, "10 MB of one header block were taken");
    hostile.well_behaved(PROMPT);
    let grown = hostile
        .agent
        .hwm_kib()
        .zip(before)
        .map(|(now, was)| now - was);
    assert!(grown.is_none_or(|kib| kib < 1024), "{grown:?} KiB more");
}

#[test]
fn empty_continuations_and_unknown_frames_do_not_hold_others() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let floods: Vec<Vec<u8>> = vec![
        frame(CONTINUATION, 0, 1, &[]),             // in a header block
        frame(0xfa, 0, 0, &[0; 100]),               // RFC 9113 5.5: to be ignored
        frame(PING, 0, 0, &[0; 8]),                 // PING: each wants an answer
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 9, 9]), // SETTINGS: each wants an answer
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),  // WINDOW_UPDATE
        frame(2, 0, 1, &[0, 0, 0, 0, 1]),           // PRIORITY
    ];
    let flooders: Vec<_> = floods
        .into_iter()
        .map(|flood| {
            let mut raw = Raw::open(&socket);
            if flood[3] == CONTINUATION {
                raw.send(&frame(HEADERS, 0, 1, &header_block()));
            }
            let many = flood.repeat(64);
            std::thread::spawn(move || {
                // Never reads: the answers stay where they are, and the agent
                // has to stop reading at some point.
                for _ in 0..500 {
                    if !send_for_a_while(&mut raw, &many) {
                        break;
                    }
                }
            })
        })
        .collect();
    let mut took: Vec<_> = (0..20).map(|_| well_behaved(&socket, PROMPT)).collect();
    took.sort();
    assert!(took[10] < Duration::from_secs(3), "{took:?}");
    for flooder in flooders {
        flooder.join().expect("the flooder");
    }
    hostile.well_behaved(PROMPT);
    let peak = hostile.agent.hwm_kib();
    assert!(peak.is_none_or(|kib| kib < 32 * 1024), "{peak:?} KiB");
}

/// False when the agent closed the connection or no longer reads.
fn send_for_a_while(raw: &mut Raw, bytes: &[u8]) -> bool {
    raw.send_within(bytes, Duration::from_millis(500))
}

#[test]
fn a_broken_frame_costs_its_connection_alone() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let mut good = Raw::open(&socket);
    let broken: Vec<Vec<u8>> = vec![
        frame(HEADERS, END_HEADERS, 2, &header_block()), // an even stream
        frame(HEADERS, END_HEADERS, 0, &header_block()), // no stream
        frame(HEADERS, END_HEADERS, 1, &[0xff; 20]),     // no HPACK
        frame(CONTINUATION, END_HEADERS, 1, &header_block()), // continues nothing
        frame(DATA, END_STREAM, 1, b"x"),                // DATA without HEADERS
        frame(SETTINGS, 0, 0, &[0; 5]),                  // no SETTINGS
        frame(5, END_HEADERS, 1, &header_block()),       // PUSH_PROMISE
        vec![0xff; 9],                                   // 16 MiB of an unknown frame
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    ];
    for bytes in broken {
        let mut raw = Raw::open(&socket);
        raw.send(&bytes);
        let mut said = false;
        let note = |frame: &Frame| said |= matches!(frame.kind, GOAWAY | RST_STREAM);
        let closed = raw.until_closed(DROPPED, note);
        assert!(said, "{bytes:02x?}: not told");
        assert!(closed.is_some(), "{bytes:02x?}: not closed");
        good.send(b"");
        assert!(good.is_open());
    }
    good.call(1, &message("{}"), END_STREAM);
    good.wait_frame(HEADERS, PROMPT);
    hostile.well_behaved(PROMPT);
    assert_eq!(hostile.stop(), 3);
}
