//! Connections that the server ends when it likes: no record is lost, repeated or
//! held up by it.

use std::thread::scope;

use serde_json::json;

use crate::servers::caddy::{Caddy, Settings};
use crate::servers::harness::{Company, Harness, connections, plain};
use crate::servers::python::Python;

#[test]
fn a_limit_of_requests_a_connection_costs_connections_and_nothing_else() {
    const RECORDS: u64 = 120;
    let mut harness = Harness::new();
    harness.store(&plain(0..RECORDS));
    let limit = ["--max-requests", "10"];
    let kept = ["--threads", "2", "--keep-alive", "30"];
    let _server = Python::gunicorn(&harness, &[limit.as_slice(), &kept].concat());
    harness.finish(RECORDS, 0);

    harness.expect_no_trouble();
    let seen = harness.seen();
    assert_eq!(seen.len() as u64, RECORDS, "each once");
    // The first has taken the probe, too.
    assert!(connections(&seen) >= 13);
    let longest = seen.chunk_by(|one, next| one.connection == next.connection);
    assert!(longest.map(<[_]>::len).max() <= Some(10));
}

#[test]
fn a_connection_that_was_closed_while_idle_is_replaced_at_once() {
    scope(|scope| {
        scope.spawn(|| {
            let harness = Harness::new();
            let company = harness.company();
            let _app = Python::gunicorn_behind(&harness, &[]);
            let settings = Settings {
                server: "timeouts {
                    idle 1s
                }"
                .to_owned(),
                ..Settings::default()
            };
            let _caddy = Caddy::start(&harness, &settings);
            idle_between_records(harness, company);
        });
        scope.spawn(|| {
            let harness = Harness::new();
            let company = harness.company();
            let threads = ["--threads", "2", "--keep-alive", "1"];
            let _app = Python::gunicorn(&harness, &threads);
            idle_between_records(harness, company);
        });
        scope.spawn(|| {
            let harness = Harness::new();
            let company = harness.company();
            let _app = Python::uvicorn(&harness, &["--timeout-keep-alive", "1"]);
            idle_between_records(harness, company);
        });
    });
}

fn idle_between_records(mut harness: Harness, company: Company) {
    harness.agent.wait_event(
        "main_healthy_not_accepting_logs",
        crate::servers::harness::DEADLINE,
    );
    let records = plain(0..4);
    for (n, record) in records.iter().enumerate() {
        harness.store(std::slice::from_ref(record));
        harness.wait_for(n as u64);
        harness.wait_closed();
    }
    drop(company);
    harness.finish(4, 0);
    harness.expect_no_trouble();
    let seen = harness.seen();
    assert_eq!(seen.len(), 4, "each once");
    // Elsewhere the test cannot see when the server has closed.
    if cfg!(target_os = "linux") {
        assert_eq!(connections(&seen), 4);
    }
}

/// What is left of the body stands in front of the next request, and the server
/// answers for both.
#[test]
fn a_server_that_turns_records_away_unread_has_none_of_them_set_aside() {
    let mut harness = Harness::new();
    let records = (0..5).map(|n| json!({ "n": n, "text": "with spaces in it" }));
    harness.store(&records.collect::<Vec<_>>());
    let _server = Python::http_server_turning_away(&harness, "HTTP/1.1", 4);
    harness.finish(5, 0);
    assert_eq!(harness.seen().len(), 5, "each once");
}
