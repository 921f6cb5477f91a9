//! Connections that the server ends when it likes: no record is lost, repeated or
//! held up by it.

use std::thread::scope;

use serde_json::json;

use crate::servers::caddy::{Caddy, Settings};
use crate::servers::python::Python;
use crate::servers::stage::{Company, Stage, connections, plain};

#[test]
fn a_limit_of_requests_a_connection_costs_connections_and_nothing_else() {
    const RECORDS: u64 = 120;
    let mut stage = Stage::new();
    stage.store(&plain(0..RECORDS));
    let limit = ["--max-requests", "10"];
    let kept = ["--threads", "2", "--keep-alive", "30"];
    let _server = Python::gunicorn(&stage, &[limit.as_slice(), &kept].concat());
    stage.finish(RECORDS, 0);

    stage.expect_no_trouble();
    let seen = stage.seen();
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
            let stage = Stage::new();
            let company = stage.company();
            let _app = Python::gunicorn_behind(&stage, &[]);
            let settings = Settings {
                server: "timeouts {
                    idle 1s
                }"
                .to_owned(),
                ..Settings::default()
            };
            let _caddy = Caddy::start(&stage, &settings);
            idle_between_records(stage, company);
        });
        scope.spawn(|| {
            let stage = Stage::new();
            let company = stage.company();
            let threads = ["--threads", "2", "--keep-alive", "1"];
            let _app = Python::gunicorn(&stage, &threads);
            idle_between_records(stage, company);
        });
        scope.spawn(|| {
            let stage = Stage::new();
            let company = stage.company();
            let _app = Python::uvicorn(&stage, &["--timeout-keep-alive", "1"]);
            idle_between_records(stage, company);
        });
    });
}

fn idle_between_records(mut stage: Stage, company: Company) {
    stage.agent.wait_event(
        "main_healthy_not_accepting_logs",
        crate::servers::stage::DEADLINE,
    );
    let records = plain(0..4);
    for (n, record) in records.iter().enumerate() {
        stage.store(std::slice::from_ref(record));
        stage.wait_for(n as u64);
        stage.wait_closed();
    }
    drop(company);
    stage.finish(4, 0);
    stage.expect_no_trouble();
    let seen = stage.seen();
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
    let mut stage = Stage::new();
    let records = (0..5).map(|n| json!({ "n": n, "text": "with spaces in it" }));
    stage.store(&records.collect::<Vec<_>>());
    let _server = Python::http_server_turning_away(&stage, "HTTP/1.1", 4);
    stage.finish(5, 0);
    assert_eq!(stage.seen().len(), 5, "each once");
}
