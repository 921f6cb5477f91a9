//! Answers that may be read and are not what most servers give: each counts by
//! its status, once.

use std::thread::scope;

use crate::servers::harness::{Harness, connections, plain, wanting};
use crate::servers::python::Python;

/// Bytes of an answer that are kept with a record set aside (spec 6).
const ANSWER_MAX: usize = 2048;

#[test]
fn answers_of_every_making_deliver_a_record_and_keep_the_connection() {
    type Start = fn(&Harness) -> Python;
    let gunicorn: Start =
        |harness| Python::gunicorn(harness, &["--threads", "2", "--keep-alive", "30"]);
    let http_server: Start = |harness| Python::http_server(harness, "HTTP/1.1");
    let uvicorn: Start = |harness| Python::uvicorn(harness, &["--timeout-keep-alive", "30"]);
    let table: [(&str, Start, &[&str]); 3] = [
        (
            "gunicorn",
            gunicorn,
            &["chunked", "hints", "gzipped", "long_head"],
        ),
        ("http.server", http_server, &["interim", "trailers"]),
        // Chunks whatever it is asked for.
        ("uvicorn", uvicorn, &["any"]),
    ];
    scope(|scope| {
        for (name, start, wanted) in table {
            scope.spawn(move || {
                let mut harness = Harness::new();
                let mut records = Vec::new();
                for (n, what) in (0..).zip(wanted.iter().flat_map(|what| [what; 3])) {
                    records.push(wanting(n, what));
                }
                harness.store(&records);
                let _server = start(&harness);
                harness.finish(records.len() as u64, 0);
                harness.expect_no_trouble();
                let seen = harness.seen();
                assert_eq!(seen.len(), records.len(), "{name}: each once");
                assert_eq!(connections(&seen), 1, "{name}");
            });
        }
    });
}

#[test]
fn refusals_are_set_aside_with_the_start_of_whatever_came_with_them() {
    let mut harness = Harness::new();
    let odd = ["expectation", "gzipped_refusal", "big_refusal"];
    let mut records = plain(0..7);
    for (what, at) in odd.iter().zip([1, 3, 5]) {
        records[at] = wanting(at as u64, what);
    }
    harness.store(&records);
    let _server = Python::gunicorn(&harness, &["--threads", "2"]);
    harness.finish(4, 3);

    assert_eq!(harness.seen().len(), 7, "each once");
    let aside = harness.set_aside();
    let text = |at: usize| aside[at]["answer"].as_str().expect("a text").to_owned();
    let statuses: Vec<_> = aside.iter().map(|line| line["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(417), Some(400), Some(422)]);
    assert_eq!(text(0), "");
    assert!(text(1).starts_with("\u{1f}\u{fffd}\u{8}"), "{}", text(1));
    assert_eq!(text(2), "x".repeat(ANSWER_MAX));
    let events = harness.agent.events_named("record_set_aside");
    assert_eq!(events[0]["status"], 417);
    assert_eq!(harness.agent.events_named("main_unreachable").len(), 0);
}

#[test]
fn an_answer_of_ten_megabytes_costs_its_connection_alone() {
    let mut harness = Harness::new();
    let mut records = plain(0..9);
    for n in [2, 3, 6] {
        records[n] = wanting(n as u64, "big");
    }
    harness.store(&records);
    let _server = Python::gunicorn(&harness, &["--threads", "4", "--keep-alive", "30"]);
    harness.finish(9, 0);
    harness.expect_no_trouble();
    let seen = harness.seen();
    assert_eq!(seen.len(), 9, "each once");
    assert_eq!(connections(&seen), 4);
    harness.expect_flat_memory();
}

#[test]
fn bodies_that_end_elsewhere_than_announced_are_no_part_of_the_next_answer() {
    let mut harness = Harness::new();
    harness.store(&[
        wanting(0, "ok"),
        wanting(1, "surplus"),
        wanting(2, "surplus"),
        // Chunked goes before a length (RFC 9112, 6.3).
        wanting(3, "two_framings"),
    ]);
    let _server = Python::http_server(&harness, "HTTP/1.1");
    harness.finish(4, 0);
    harness.expect_no_trouble();
    assert_eq!(harness.seen().len(), 4, "each once");
}
