//! A proxy that is reloaded, restarted, misconfigured, or has lost the server
//! behind it.

use std::thread::scope;
use std::time::Duration;

use serde_json::{Value, json};

use crate::nginx::{Logged, Nginx, certificate};
use crate::python::Python;
use crate::stage::{Stage, connections, plain, wanting};

/// The shortest back-off (spec 6), less what nginx's milliseconds cut off.
const BACKOFF_MIN: Duration = Duration::from_millis(48);

/// Records that keep the server busy for longer than it takes to be reloaded.
fn slow(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(|n| wanting(n, "slow")).collect()
}

#[test]
fn a_reload_in_the_middle_goes_unnoticed() {
    const RECORDS: u64 = 300;
    let mut stage = Stage::new();
    stage.store(&slow(0..RECORDS));
    let _app = Python::gunicorn_behind(&stage, &[]);
    let nginx = Nginx::start(&stage, "");
    stage.wait_for(20);
    for so_far in 1..=3 {
        nginx.reload("", "");
        stage.until("another connection", |stage| {
            connections(&stage.seen()) > so_far
        });
    }
    stage.finish(RECORDS, 0);
    stage.expect_no_trouble();
    let seen = stage.seen();
    assert_eq!(seen.len() as u64, RECORDS, "each once");
    assert_eq!(connections(&seen), 4, "one for each configuration");
}

#[test]
fn a_restart_in_the_middle_repeats_one_record_at_most() {
    const RECORDS: u64 = 300;
    let mut stage = Stage::new();
    stage.store(&slow(0..RECORDS));
    let _app = Python::gunicorn_behind(&stage, &[]);
    let mut nginx = Nginx::start(&stage, "");
    for n in [30, 70] {
        stage.wait_for(n);
        let outages = |stage: &Stage| {
            stage
                .agent
                .events_named("main_unhealthy_accepting_logs")
                .len()
        };
        let before = outages(&stage);
        drop(nginx);
        stage.until("outage", |stage| outages(stage) > before);
        nginx = Nginx::start(&stage, "");
    }
    stage.finish(RECORDS, 0);
    let repeated = stage.seen().len() as u64 - RECORDS;
    assert!(repeated <= 2, "{repeated} repeated");
    assert_eq!(stage.set_aside(), Vec::<Value>::new());
    for event in stage.agent.events_named("main_unreachable") {
        let why = event["error"].as_str().expect("a reason");
        assert!(why.contains("connect"), "{why}");
    }
}

#[test]
fn without_the_server_behind_it_records_wait_for_ever_and_the_proxy_is_not_pestered() {
    let mut stage = Stage::new();
    stage.store(&plain(0..5));
    let company = stage.company();
    let app = Python::gunicorn_behind(&stage, &[]);
    let nginx = Nginx::start(&stage, "location = / { return 200; }");
    // nginx logs what it has answered: none of them is under way.
    stage.until("answers", |_| nginx.posts(200).len() >= 5);
    let worker = stage.seen()[0].pid;
    app.kill(worker);
    stage.store(&plain(5..10));
    drop(company);
    stage.until("tries", |_| nginx.posts(502).len() >= 4);
    expect_pauses(&nginx.posts(502), BACKOFF_MIN);
    let _app = Python::gunicorn_behind(&stage, &[]);
    stage.finish(10, 0);

    assert_eq!(stage.seen().len(), 10, "each once");
    expect_not_taking(&stage, 502);
}

#[test]
fn a_server_that_dies_or_is_too_slow_gets_the_record_again() {
    // What the record does, how often, what nginx makes of it.
    let table = [
        // nginx waits for less than that.
        ("late", 2, [504, 504]),
        // The worker is gone in the middle of the request.
        ("crash", 2, [502, 502]),
        // gunicorn ends a worker that takes more than two seconds, with an answer if
        // the worker finds the time to give one.
        ("hang", 1, [500, 502]),
    ];
    scope(|scope| {
        for (what, times, statuses) in table {
            scope.spawn(move || {
                let mut stage = Stage::new();
                stage.store(&[
                    wanting(0, "ok"),
                    json!({ "n": 1, "do": what, "times": times }),
                    wanting(2, "ok"),
                ]);
                // Not the others: on a loaded machine they may take as long.
                let patience = if what == "hang" { "2" } else { "60" };
                let _app = Python::gunicorn_behind(&stage, &["--timeout", patience]);
                // Not for the probe before it leaves.
                let limit = if what == "late" { "300ms" } else { "30s" };
                let upstream = crate::python::socket_behind(&stage);
                let location = format!(
                    "location = /log {{ proxy_pass http://unix:{}:; proxy_read_timeout {limit}; }}",
                    upstream.display()
                );
                let nginx = Nginx::start(&stage, &location);
                stage.finish(3, 0);
                // A try that waits behind a late one in gunicorn's one process
                // is late itself.
                let mut failed = nginx.logged();
                failed.retain(|one| one.method == "POST" && statuses.contains(&one.status));
                assert!((times..10).contains(&failed.len()), "{what}: {failed:?}");
                expect_pauses(&failed, BACKOFF_MIN);
                expect_not_taking_but(&stage, &statuses);
                let tries = stage.tries_of(1);
                assert!(tries.len() > times, "{what}: {tries:?}");
                assert_eq!(tries[0].pid == tries[1].pid, what == "late", "{what}");
                assert_eq!(stage.set_aside(), Vec::<Value>::new(), "{what}");
            });
        }
    });
}

#[test]
fn a_rate_limit_and_its_retry_after_set_the_pace() {
    const RECORDS: u64 = 2;
    let mut stage = Stage::new();
    stage.store(&plain(0..RECORDS));
    let _app = Python::gunicorn_behind(&stage, &[]);
    // One in six seconds; the others are told to come again after a second.
    let limit = "
        location = /log { limit_req zone=slow; error_page 503 @later; UPSTREAM }
        location @later { add_header Retry-After 1 always; return 503; }";
    let upstream = format!(
        "proxy_pass http://unix:{}:;",
        crate::python::socket_behind(&stage).display()
    );
    let nginx = Nginx::start(&stage, &limit.replace("UPSTREAM", &upstream));
    stage.finish(RECORDS, 0);

    assert_eq!(stage.seen().len() as u64, RECORDS, "each once");
    let slowed = nginx.posts(503);
    assert!(!slowed.is_empty());
    for refused in &slowed {
        let log = nginx.logged();
        let next = log
            .iter()
            .find(|next| next.method == "POST" && next.at > refused.at);
        let pause = next.expect("a next try").at - refused.at;
        assert!(pause >= 1.0, "again after {pause} s");
    }
    expect_not_taking(&stage, 503);
}

#[test]
fn a_redirect_is_named_and_waited_out() {
    scope(|scope| {
        for status in [301, 308] {
            scope.spawn(move || {
                let mut stage = Stage::new();
                stage.store(&plain(0..3));
                let _app = Python::gunicorn_behind(&stage, &[]);
                let redirect =
                    format!("location = /log {{ return {status} https://$host$request_uri; }}");
                let nginx = Nginx::start(&stage, &redirect);
                stage.until("tries", |_| nginx.posts(status).len() >= 4);
                expect_pauses(&nginx.posts(status), BACKOFF_MIN);
                nginx.reload("", "");
                stage.finish(3, 0);
                assert_eq!(stage.seen().len(), 3, "{status}: each once");
                let events = stage.agent.events_named("main_redirects");
                assert_eq!(events[0]["status"], status);
                assert_eq!(events[0]["location"], "https://127.0.0.1/log");
                assert_eq!(stage.set_aside(), Vec::<Value>::new());
            });
        }
    });
}

/// nginx answers 400 to HTTP on a port for HTTPS; the agent cannot know that no
/// record is at fault.
#[test]
fn http_to_a_port_for_https_costs_sixteen_records_at_most() {
    const TRUSTED: usize = 16;
    let mut stage = Stage::new();
    stage.store(&plain(0..3));
    let company = stage.company();
    let _app = Python::gunicorn_behind(&stage, &[]);
    let nginx = Nginx::start(&stage, "");
    stage.wait_for(2);
    nginx.reload("ssl", &certificate(&stage));
    stage.store(&plain(3..33));
    stage.until("doubt", |_| nginx.posts(400).len() >= TRUSTED + 3);
    drop(company);
    expect_pauses(&nginx.posts(400)[TRUSTED..], BACKOFF_MIN);
    nginx.reload("", "");
    stage.finish(33 - TRUSTED as u64, TRUSTED as u64);

    let aside = stage.set_aside();
    assert_eq!(aside.len(), TRUSTED);
    let answer = aside[0]["answer"].as_str().expect("a text");
    assert!(
        answer.contains("plain HTTP request was sent to HTTPS port"),
        "{answer}"
    );
    expect_not_taking(&stage, 400);
}

#[test]
fn a_probe_to_a_port_for_https_or_http2_says_so_and_nothing_is_sent() {
    scope(|scope| {
        for (listen, reason) in [("ssl", "answered 400"), ("http2", "HTTP/1.1")] {
            scope.spawn(move || {
                let stage = Stage::new();
                stage.store(&plain(0..3));
                let nginx = Nginx::listening(&stage, listen, &certificate(&stage));
                let said = |event: &Value| {
                    event["error"]
                        .as_str()
                        .is_some_and(|why| why.contains(reason))
                };
                stage.until("reason", |stage| {
                    stage
                        .agent
                        .events_named("main_still_unhealthy")
                        .iter()
                        .any(said)
                });
                assert!(nginx.logged().iter().all(|logged| logged.method != "POST"));
            });
        }
    });
}

/// No two tries are closer together.
fn expect_pauses(logged: &[Logged], least: Duration) {
    for two in logged.windows(2) {
        let pause = two[1].at - two[0].at;
        assert!(
            pause >= least.as_secs_f64(),
            "again after {pause} s: {logged:?}"
        );
    }
}

/// The event with this status; the agent has not taken it for an outage.
fn expect_not_taking(stage: &Stage, status: u64) {
    expect_not_taking_but(stage, &[status]);
}

/// The same where it may be one of several.
fn expect_not_taking_but(stage: &Stage, statuses: &[u64]) {
    let events = stage.agent.events_named("main_not_taking_logs");
    assert!(!events.is_empty());
    let named = |event: &Value| event["status"].as_u64();
    assert!(
        events
            .iter()
            .all(|event| named(event).is_some_and(|status| statuses.contains(&status))),
        "{events:?}"
    );
    assert_eq!(stage.agent.events_named("main_unreachable").len(), 0);
    let healthy = stage.agent.events_named("main_healthy_not_accepting_logs");
    assert_eq!(healthy.len(), 1, "one outage, the first");
}
