//! Answers that nobody can read: the record stays, the event says what was wrong,
//! and there is a pause before the next try.

use std::thread::scope;
use std::time::Duration;

use serde_json::{Value, json};

use crate::servers::python::Python;
use crate::servers::stage::{Stage, wanting};

/// The shortest pause after an unreadable answer: that before the first probe
/// (spec 5.2), less what the servers' clock may be off by.
const PAUSE_MIN: Duration = Duration::from_millis(120);
/// How often a record is answered like this before it is taken.
const TIMES: usize = 2;

const CLOSED: &str = "connection closed before message completed";
const NO_HTTP: &str = "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: invalid HTTP version parsed";
const STATUS: &str = "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: invalid HTTP status-code parsed";
const LENGTH: &str = "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: invalid content-length parsed";
const LONG: &str = "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: message head is too large";

/// What http.server is made to give, and what the event has to say.
const UNREADABLE: [(&str, &str); 12] = [
    ("cut_head", CLOSED),
    ("no_number", LENGTH),
    ("negative", LENGTH),
    ("two_lengths", LENGTH),
    ("no_status", STATUS),
    ("status_of_four_digits", STATUS),
    ("many_headers", LONG),
    ("http2", NO_HTTP),
    ("http2_settings", NO_HTTP),
    ("tls_alert", NO_HTTP),
    ("html", NO_HTTP),
    ("ssh", NO_HTTP),
];

#[test]
fn an_unreadable_answer_is_named_and_tried_again_after_a_pause() {
    scope(|scope| {
        for (what, reason) in UNREADABLE {
            scope.spawn(move || {
                let start = |stage: &Stage| Python::http_server(stage, "HTTP/1.1");
                let stage = tried_again(start, &records(what, TIMES));
                expect_reason(&stage, reason);
                expect_pauses(&stage, what);
            });
        }
    });
}

/// The head of a 2xx was read: only its body is asked for once more, and at once.
#[test]
fn a_body_that_breaks_off_costs_one_more_try() {
    let start = |stage: &Stage| Python::http_server(stage, "HTTP/1.1");
    scope(|scope| {
        for what in ["cut_body", "cut_chunk", "bad_chunk"] {
            scope.spawn(move || {
                let stage = tried_again(start, &records(what, 1));
                stage.expect_no_trouble();
            });
        }
    });
}

/// Other clients skip it.
#[test]
fn a_line_that_is_no_header_is_skipped() {
    let mut stage = Stage::new();
    stage.store(&records("bad_header", TIMES));
    let _server = Python::http_server(&stage, "HTTP/1.1");
    stage.finish(3, 0);
    assert_eq!(stage.tries_of(1).len(), 1);
    stage.expect_no_trouble();
}

#[test]
fn a_head_longer_than_is_read_is_no_answer_and_costs_no_memory() {
    let start = |stage: &Stage| Python::gunicorn(stage, &["--threads", "2"]);
    let stage = tried_again(start, &records("too_long_head", TIMES));
    expect_reason(&stage, LONG);
    expect_pauses(&stage, "too_long_head");
    stage.expect_flat_memory();
}

/// A kept connection that closes without an answer may have been idle for too
/// long: it is replaced at once, without an event. A fresh one is not.
#[test]
fn a_connection_closed_instead_of_an_answer_is_replaced_once() {
    let start = |stage: &Stage| Python::http_server(stage, "HTTP/1.1");
    scope(|scope| {
        scope.spawn(|| {
            let stage = tried_again(start, &records("nothing", 1));
            stage.expect_no_trouble();
        });
        scope.spawn(|| {
            let stage = tried_again(start, &records("nothing", 2));
            expect_reason(&stage, CLOSED);
            let tries = stage.tries_of(1);
            let pause = tries[2].at - tries[1].at;
            assert!(pause >= PAUSE_MIN.as_secs_f64(), "again after {pause} s");
        });
    });
}

#[test]
fn a_number_that_is_no_status_is_not_now() {
    let start = |stage: &Stage| Python::http_server(stage, "HTTP/1.1");
    let stage = tried_again(start, &records("status_700", TIMES));
    let events = stage.agent.events_named("main_not_taking_logs");
    assert_eq!(events[0]["status"], 700);
}

/// A record that is answered like this so many times, between two others.
fn records(what: &str, times: usize) -> [Value; 3] {
    let odd = json!({ "n": 1, "do": what, "times": times });
    [wanting(0, "ok"), odd, wanting(2, "ok")]
}

/// Sees `records` delivered, the odd one after as many tries as it wants.
fn tried_again(start: impl Fn(&Stage) -> Python, records: &[Value; 3]) -> Stage {
    let mut stage = Stage::new();
    stage.store(records);
    let _server = start(&stage);
    stage.finish(3, 0);
    let times = records[1]["times"].as_u64().expect("a number");
    let tries = stage.tries_of(1).len() as u64;
    assert_eq!(tries, times + 1, "{}", records[1]);
    let others = stage.seen().len() as u64 - tries;
    assert_eq!(others, 2, "{}", records[1]);
    stage
}

fn expect_reason(stage: &Stage, reason: &str) {
    let events = stage.agent.events_named("main_unreachable");
    assert!(!events.is_empty(), "{reason}");
    for event in events {
        assert_eq!(event["error"], reason);
    }
}

fn expect_pauses(stage: &Stage, what: &str) {
    for two in stage.tries_of(1).windows(2) {
        let pause = two[1].at - two[0].at;
        assert!(
            pause >= PAUSE_MIN.as_secs_f64(),
            "{what}: again after {pause} s"
        );
    }
}
