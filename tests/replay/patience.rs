//! Spec 6's patience, back-off and `Retry-After`, and that nothing is a hot loop.

use std::thread::scope;
use std::time::{Duration, SystemTime};

use crate::support::fixture::{DEADLINE, Fixture, on_try, texts};
use crate::support::server::{Answer, Ending, MainServer};
use crate::support::wait;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn patience_is_ten_seconds_behind_a_record_set_aside_and_behind_nothing() {
    let spans = |records: &[&str], expected: &[u64]| {
        let server = MainServer::new_up();
        on_try(&server, |attempt| match attempt.record {
            "good" | "end" => Answer::ok(),
            _ => Answer::status(500),
        });
        let fixture = Fixture::new(server);
        fixture.store(&texts(records));
        fixture.wait_for(r#""end""#);
        let pairs = records.iter().zip(&records[1..]);
        let sick = pairs.filter(|(name, _)| name.starts_with("sick"));
        for ((name, next), expected) in sick.zip(expected) {
            let tries = fixture.tries_of(&format!("{name:?}"));
            let span = tries[tries.len() - 1].at - tries[0].at;
            let expected = seconds(*expected);
            assert!(
                span < expected + seconds(5),
                "{records:?}: {name} tried for {span:?}"
            );
            let until = fixture.tries_of(&format!("{next:?}"))[0].at - tries[0].at;
            assert!(
                until >= expected,
                "{records:?}: {name} given up after {until:?}"
            );
        }
    };
    scope(|scope| {
        scope.spawn(|| spans(&["good", "sick 1", "sick 2", "end"], &[2, 10]));
        scope.spawn(|| spans(&["sick 1", "end"], &[10]));
    });
}

#[test]
fn sixteen_refusals_in_a_row_are_believed_and_the_next_one_is_doubted() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.record {
        "end" => Answer::ok(),
        "17" if attempt.number > 4 => Answer::ok(),
        _ => Answer::status(404),
    });
    let fixture = Fixture::new(server);
    let mut records = texts(1..=33);
    records.extend(texts(["end"]));
    fixture.store(&records);
    // 34 of them: 16, the doubted one that is delivered, and 16 again.
    fixture.wait_for(r#""end""#);

    for record in 1..=33 {
        let tries = fixture.tries_of(&format!("\"{record}\"")).len();
        let expected = if record == 17 { 5 } else { 1 };
        assert_eq!(tries, expected, "record {record}");
    }
    assert_eq!(fixture.set_aside().len(), 32);
}

#[test]
fn retry_after_is_a_floor_and_does_not_outlast_patience() {
    scope(|scope| {
        scope.spawn(|| asked(503, || "2".into()));
        scope.spawn(|| asked(429, || "2".into()));
        // A date has whole seconds: up to one is lost.
        scope.spawn(|| {
            asked(503, || {
                httpdate::fmt_http_date(SystemTime::now() + seconds(4))
            })
        });
        scope.spawn(doubtful_asked);
    });
}

fn asked(status: u16, retry_after: impl Fn() -> String + Send + 'static) {
    let server = MainServer::new_up();
    on_try(&server, move |attempt| match attempt.number {
        1 => Answer::status(status).header("Retry-After", &retry_after()),
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["end"]));
    fixture.wait_for(r#""end""#);
    let tries = fixture.tries_of(r#""end""#);
    let waited = tries[1].at - tries[0].at;
    assert_eq!(tries.len(), 2);
    let expected = seconds(2)..seconds(8);
    assert!(expected.contains(&waited), "{status}: waited {waited:?}");
}

fn doubtful_asked() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.record {
        "sick" => Answer::status(500).header("Retry-After", "3600"),
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["good", "sick", "end"]));
    fixture.wait_for(r#""end""#);
    let tries = fixture.tries_of(r#""sick""#);
    let span = tries[tries.len() - 1].at - tries[0].at;
    assert_eq!(tries.len(), 2, "the first and the one at the end");
    assert!((seconds(2)..seconds(6)).contains(&span), "{span:?}");
}

#[test]
fn a_server_that_is_healthy_on_get_alone_is_not_flooded() {
    type Plan = fn() -> Answer;
    let plans: [(&str, Plan); 6] = [
        ("404", || Answer::status(404)),
        ("500", || Answer::status(500)),
        ("503", || Answer::status(503)),
        ("reset", || Answer::ok().then(Ending::ResetAfter(0))),
        ("closed", || Answer::ok().then(Ending::Close)),
        ("garbage", || Answer::raw(200, b"garbage\r\n\r\n")),
    ];
    scope(|scope| {
        for (name, plan) in plans {
            scope.spawn(move || count_requests(name, plan));
        }
    });
}

/// Five tries are made in 0.5 s times 1 + 2 + 4 + 8 at most; what a flood would
/// do in that time is bounded here.
fn count_requests(name: &str, plan: fn() -> Answer) {
    let server = MainServer::new_up();
    server.on_post(move |_| plan());
    let fixture = Fixture::new(server);
    // More than are refused at once, so that 404 has to slow down, too.
    fixture.store(&texts(0..40));
    let window = seconds(4);
    let first = wait::some(DEADLINE, || {
        fixture.server.posts().first().map(|post| post.at)
    });
    let first = first.expect("a request");
    wait::until(DEADLINE, "the window to pass", || first.elapsed() > window);
    let within = fixture.server.requests();
    let (posts, gets): (Vec<_>, Vec<_>) = within
        .iter()
        .filter(|request| request.at < first + window)
        .partition(|request| request.method == "POST");
    // 404: 16 at once, then the doubted one. Broken connections: a kept one is
    // replaced at once, so each try is two requests.
    let limit = if name == "404" { 16 + 15 } else { 2 * 15 };
    assert!(posts.len() <= limit, "{name}: {} POSTs", posts.len());
    assert!(gets.len() <= 15, "{name}: {} GETs", gets.len());
    fixture.until("a second try", |fixture| fixture.server.posts().len() > 1);
}
