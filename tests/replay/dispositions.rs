//! Every row of spec 6's table of answers, and what becomes of the record and
//! of the one behind it.

use std::thread::scope;
use std::time::Duration;

use crate::support::agent::session_file;
use crate::support::fixture::{Fixture, delivered, key_of, on_try, texts};
use crate::support::server::{Answer, MainServer};

const DELIVERED: [u16; 7] = [200, 201, 202, 204, 206, 226, 299];
const REFUSED: [u16; 15] = [
    400, 402, 404, 405, 406, 407, 410, 411, 413, 414, 415, 418, 422, 451, 499,
];
const DOUBTFUL: [u16; 9] = [401, 403, 409, 500, 501, 505, 506, 511, 597];
const NOT_NOW: [u16; 20] = [
    408, 421, 423, 425, 429, 502, 503, 504, 507, 509, 520, 530, 598, 599, 300, 301, 302, 304, 307,
    308,
];

/// Longer than the patience with a record behind a delivered one.
const LONGER_THAN_PATIENCE: Duration = Duration::from_millis(2500);
const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn delivered_and_refused_records_are_sent_once_and_the_next_one_follows() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.record.parse() {
        Ok(status) => Answer::status(status),
        Err(_) => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    let mut statuses = DELIVERED.to_vec();
    // Between two 2xx no more refusals than are believed at once.
    for refused in REFUSED.chunks(5) {
        statuses.extend(refused);
        statuses.push(200 + refused[0] % 100);
    }
    let mut records = texts(&statuses);
    records.push(r#""end""#.into());
    fixture.store(&records);
    fixture.wait_for(r#""end""#);

    let posts = fixture.server.posts();
    let order: Vec<_> = posts.iter().map(|request| request.log_data()).collect();
    let records: Vec<_> = records.iter().map(String::as_bytes).collect();
    assert_eq!(order, records, "each once, in order");
    let aside: Vec<_> = fixture
        .set_aside()
        .iter()
        .map(|line| line["status"].as_u64())
        .collect();
    let refused: Vec<_> = REFUSED.map(|status| Some(u64::from(status))).to_vec();
    assert_eq!(aside, refused);
}

#[test]
fn doubtful_records_are_tried_for_two_seconds_and_then_set_aside() {
    scope(|scope| {
        for status in DOUBTFUL {
            scope.spawn(move || doubtful(status));
        }
    });
}

fn doubtful(status: u16) {
    let server = MainServer::new_up();
    on_try(&server, move |attempt| match attempt.record {
        "always" => Answer::status(status),
        "once" if attempt.number == 1 => Answer::status(status),
        _ => Answer::ok(),
    });
    // Without any key a 401 would say nothing about the record.
    let fixture = Fixture::with(server, |agent| agent.api_key("a key"));
    fixture.store(&texts(["good", "always", "once", "end"]));
    fixture.wait_for(r#""end""#);

    let tries = fixture.tries_of(r#""always""#);
    assert!(tries.len() > 1, "{status}: {} tries", tries.len());
    let span = tries[tries.len() - 1].at - tries[0].at;
    assert!(span < PATIENCE * 3, "{status}: tried for {span:?}");
    // A slow answer may be the last, but nothing comes after it before its time.
    let once = fixture.tries_of(r#""once""#);
    let until = once[0].at - tries[0].at;
    assert!(until >= PATIENCE, "{status}: given up after {until:?}");
    assert_eq!(once.len(), 2, "{status}: {once:?}");
    let aside = fixture.set_aside();
    assert_eq!(aside.len(), 1, "{status}: {aside:?}");
    assert_eq!(aside[0]["status"], status);
    assert_eq!(aside[0]["json_data"], r#""always""#);
}

#[test]
fn not_now_is_retried_beyond_all_patience_and_redirects_are_named() {
    scope(|scope| {
        for status in NOT_NOW {
            scope.spawn(move || not_now(status));
        }
    });
}

fn not_now(status: u16) {
    let server = MainServer::new_up();
    on_try(&server, move |attempt| match attempt.record {
        "later" if attempt.age < LONGER_THAN_PATIENCE => {
            Answer::status(status).header("Location", "http://me:pass@there.example/x")
        }
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["good", "later", "end"]));
    fixture.wait_for(r#""end""#);

    let tries = fixture.tries_of(r#""later""#);
    assert!(tries.len() > 1, "{status}: {} tries", tries.len());
    let keys: Vec<_> = tries.iter().map(|request| key_of(request)).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{status}: {keys:?}");
    assert_eq!(
        session_file(fixture.folder.path(), "agent-failure.log"),
        None
    );
    let (last, before) = tries.split_last().expect("tries");
    assert!(delivered(last) && !before.iter().any(|request| delivered(request)));
    // The server stayed in reach: no second outage.
    let outages = fixture
        .agent
        .events_named("main_healthy_not_accepting_logs");
    assert_eq!(outages.len(), 1, "{status}");

    let redirects = fixture.agent.events_named("main_redirects");
    match status {
        300..400 => assert_eq!(redirects[0]["location"], "http://***@there.example/x"),
        _ => assert_eq!(redirects.len(), 0, "{status}"),
    }
    assert!(!fixture.agent.stdout().contains("me:pass"));
}
