//! A proxy that is reloaded, restarted, misconfigured, or has lost the server
//! behind it.

use std::thread::scope;
use std::time::Duration;

use serde_json::{Value, json};

use crate::servers::caddy::{Caddy, Logged, Settings, certificate};
use crate::servers::harness::{Harness, connections, plain, wanting};
use crate::servers::python::Python;

/// The shortest back-off (spec 6), less what Caddy's clock may be off by.
const BACKOFF_MIN: Duration = Duration::from_millis(48);

/// Records that keep the server busy for longer than it takes to be reloaded.
fn slow(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(|n| wanting(n, "slow")).collect()
}

#[test]
fn a_reload_in_the_middle_goes_unnoticed() {
    const RECORDS: u64 = 150;
    let mut harness = Harness::new();
    harness.store(&slow(0..RECORDS));
    let _app = Python::gunicorn_behind(&harness, &[]);
    let caddy = Caddy::start(&harness, &Settings::default());
    harness.wait_for(20);
    for so_far in 1..=3 {
        caddy.reload(&Settings::default());
        harness.until("another connection", |harness| {
            connections(&harness.seen()) > so_far
        });
    }
    harness.finish(RECORDS, 0);
    harness.expect_no_trouble();
    let seen = harness.seen();
    assert_eq!(seen.len() as u64, RECORDS, "each once");
    assert_eq!(connections(&seen), 4, "one for each configuration");
}

#[test]
fn a_restart_in_the_middle_repeats_one_record_at_most() {
    const RECORDS: u64 = 150;
    let mut harness = Harness::new();
    harness.store(&slow(0..RECORDS));
    let _app = Python::gunicorn_behind(&harness, &[]);
    let mut caddy = Caddy::start(&harness, &Settings::default());
    for n in [30, 70] {
        harness.wait_for(n);
        let outages = |harness: &Harness| {
            harness
                .agent
                .events_named("main_unhealthy_accepting_logs")
                .len()
        };
        let before = outages(&harness);
        drop(caddy);
        harness.until("outage", |harness| outages(harness) > before);
        caddy = Caddy::start(&harness, &Settings::default());
    }
    harness.finish(RECORDS, 0);
    let repeated = harness.seen().len() as u64 - RECORDS;
    assert!(repeated <= 2, "{repeated} repeated");
    assert_eq!(harness.set_aside(), Vec::<Value>::new());
    for event in harness.agent.events_named("main_unreachable") {
        let why = event["error"].as_str().expect("a reason");
        assert!(why.contains("connect"), "{why}");
    }
}

#[test]
fn a_server_that_dies_or_is_too_slow_gets_the_record_again() {
    // What the record does, how often, what Caddy makes of it.
    let table = [
        // Caddy waits for less than that.
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
                let mut harness = Harness::new();
                harness.store(&[
                    wanting(0, "ok"),
                    json!({ "n": 1, "do": what, "times": times }),
                    wanting(2, "ok"),
                ]);
                // Not the others: on a loaded machine they may take as long.
                let patience = if what == "hang" { "2" } else { "60" };
                let _app = Python::gunicorn_behind(&harness, &["--timeout", patience]);
                // Not for the probe before it leaves.
                let limit = if what == "late" { "300ms" } else { "30s" };
                let settings = Settings {
                    site: "respond / 200".to_owned(),
                    transport: format!("response_header_timeout {limit}"),
                    ..Settings::default()
                };
                let caddy = Caddy::start(&harness, &settings);
                harness.finish(3, 0);
                // A try that waits behind a late one in gunicorn's one process
                // is late itself.
                let mut failed = caddy.logged();
                failed.retain(|one| one.method == "POST" && statuses.contains(&one.status));
                assert!((times..10).contains(&failed.len()), "{what}: {failed:?}");
                expect_pauses(&failed, BACKOFF_MIN);
                expect_not_taking(&harness, &statuses);
                let tries = harness.tries_of(1);
                assert!(tries.len() > times, "{what}: {tries:?}");
                assert_eq!(tries[0].pid == tries[1].pid, what == "late", "{what}");
                assert_eq!(harness.set_aside(), Vec::<Value>::new(), "{what}");
            });
        }
    });
}

#[test]
fn a_probe_to_a_port_for_https_or_http2_says_so_and_nothing_is_sent() {
    scope(|scope| {
        scope.spawn(|| {
            let harness = Harness::new();
            harness.store(&plain(0..3));
            let secure = Settings {
                tls: Some(certificate(&harness)),
                ..Settings::default()
            };
            let caddy = Caddy::start(&harness, &secure);
            expect_unhealthy(&harness, "answered 400");
            assert!(caddy.logged().is_empty());
        });
        scope.spawn(|| {
            let harness = Harness::new();
            harness.store(&plain(0..3));
            let _server = Python::grpc(&harness);
            expect_unhealthy(&harness, "HTTP/1.1");
        });
    });
}

/// The probe says so; no record was sent.
fn expect_unhealthy(harness: &Harness, reason: &str) {
    harness.until("reason", |harness| {
        let events = harness.agent.events_named("main_still_unhealthy");
        events.iter().any(|event| {
            let why = event["error"].as_str();
            why.is_some_and(|why| why.contains(reason))
        })
    });
    for name in ["main_healthy_not_accepting_logs", "record_set_aside"] {
        assert_eq!(harness.agent.events_named(name), Vec::<Value>::new());
    }
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

/// The event with one of these statuses; the agent has not taken it for an outage.
fn expect_not_taking(harness: &Harness, statuses: &[u64]) {
    let events = harness.agent.events_named("main_not_taking_logs");
    assert!(!events.is_empty());
    let named = |event: &Value| event["status"].as_u64();
    assert!(
        events
            .iter()
            .all(|event| named(event).is_some_and(|status| statuses.contains(&status))),
        "{events:?}"
    );
    assert_eq!(harness.agent.events_named("main_unreachable").len(), 0);
    let healthy = harness
        .agent
        .events_named("main_healthy_not_accepting_logs");
    assert_eq!(healthy.len(), 1, "one outage, the first");
}
