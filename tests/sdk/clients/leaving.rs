//! What a client may still send while the agent asks it to leave, which is what the
//! C core does send when its calls and the agent's GOAWAY cross.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::fixture::Fixture;
use crate::support::raw::{Got, Raw, call, header_block, message};
use crate::support::wire::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, WINDOW_UPDATE, frame,
};

/// The agent has 2 s to exit, whatever its clients do.
const DEADLINE: Duration = Duration::from_millis(1500);
/// How late a client writes a call that crosses the last GOAWAY; it is let 200 ms.
const WRITTEN_LATE: Duration = Duration::from_millis(50);

/// A call is half sent when SIGTERM comes; once the agent has named its last stream,
/// `crossing` is sent, of a later stream, and then the rest of the call.
#[track_caller]
fn expect_the_call_is_answered(crossing: &[u8], case: &str) {
    let mut fixture = Fixture::down();
    let mut raw = Raw::open(&fixture.agent.socket());
    let whole = message("\"in flight\"");
    let (begin, rest) = whole.split_at(8);
    raw.send(&call(1, begin, 0));
    // Answered in order: the agent has the call by then.
    raw.send(&frame(PING, 0, 0, &[1; 8]));
    while raw.wait_frame(PING, Duration::from_secs(30)).payload != [1; 8] {}
    fixture.agent.signal(Signal::TERM);

    let end = Instant::now() + DEADLINE;
    let mut status = None;
    while status.is_none() {
        let got = match raw.next(end.saturating_duration_since(Instant::now())) {
            Got::Frame(got) => got,
            other => panic!("{case}: {other:?} instead of an answer"),
        };
        match got.kind {
            PING if got.flags & ACK == 0 => raw.send(&frame(PING, ACK, 0, &got.payload)),
            GOAWAY => {
                let number = |at: usize| got.payload[at..at + 4].try_into().map(u32::from_be_bytes);
                let (last, code) = (number(0).expect("four"), number(4).expect("four"));
                assert_eq!(code, 0, "{case}: GOAWAY, last stream {last}");
                if last == 1 && !crossing.is_empty() {
                    raw.send(&frame(HEADERS, END_HEADERS, 3, &header_block()));
                    raw.send(crossing);
                }
                if last == 1 {
                    raw.send(&frame(DATA, END_STREAM, 1, rest));
                }
            }
            HEADERS if got.stream == 1 && got.flags & END_STREAM != 0 => status = Some(got),
            RST_STREAM => panic!("{case}: {got:?}"),
            _ => {}
        }
    }
    fixture.agent.expect_exit(0, Duration::from_secs(30));
    fixture.restart();
    assert_eq!(fixture.stored(), ["\"in flight\""], "{case}");
}

#[test]
fn a_call_in_flight_is_answered_after_sigterm() {
    expect_the_call_is_answered(&[], "nothing");
}

#[test]
fn a_later_call_that_crosses_goaway_costs_none_before_it() {
    let whole = message("\"too late\"");
    let data = frame(DATA, END_STREAM, 3, &whole);
    expect_the_call_is_answered(&data, "a whole call");
    let reset = frame(RST_STREAM, 0, 3, &8_u32.to_be_bytes());
    expect_the_call_is_answered(&reset, "one that was given up");
}

#[test]
fn a_later_calls_window_that_crosses_goaway_costs_none_before_it() {
    let window = frame(WINDOW_UPDATE, 0, 3, &1000_u32.to_be_bytes());
    expect_the_call_is_answered(&window, "a window update");
}

/// The client has not read the last GOAWAY yet when it writes its next call: a broken pipe
/// would be a failed call, which GOAWAY makes one to be sent again.
#[test]
fn a_call_that_is_written_after_the_last_goaway_meets_no_broken_pipe() {
    // A machine that stands still for 200 ms is no answer.
    let taken = (0..5).any(|_| {
        let mut fixture = Fixture::down();
        let mut raw = Raw::open(&fixture.agent.socket());
        raw.send(&call(1, &message("1"), END_STREAM));
        while raw.wait_frame(HEADERS, DEADLINE).flags & END_STREAM == 0 {}
        fixture.agent.signal(Signal::TERM);
        let mut ping = raw.wait_frame(PING, DEADLINE);
        while ping.flags & ACK != 0 {
            ping = raw.wait_frame(PING, DEADLINE);
        }
        raw.send(&frame(PING, ACK, 0, &ping.payload));
        raw.until_closed(DEADLINE, |_| {}).expect("the agent's end");
        let taken = !raw.is_closed_within(WRITTEN_LATE)
            && raw.try_send(&call(3, &message("2"), END_STREAM));
        // A client that does not close its end holds no agent.
        fixture.agent.expect_exit(0, DEADLINE);
        taken
    });
    assert!(taken, "the agent closed the connection at once");
}
