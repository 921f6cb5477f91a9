//! What an answer means when its head is there and its body is not (spec 6).

use std::thread::scope;
use std::time::Duration;

use crate::support::fixture::{Fixture, key_of, on_try, texts};
use crate::support::server::{Answer, Ending, MainServer};

/// An answer whose body is not what its head says.
type Plan = fn() -> Answer;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{\"ok\":";

fn short() -> Answer {
    Answer::raw(200, HEAD).then(Ending::ThenClose)
}

fn reset() -> Answer {
    let length = Answer::ok().bytes().len();
    Answer::ok().then(Ending::ResetAfter(length - 3))
}

/// The rest never comes.
fn unfinished() -> Answer {
    Answer::raw(200, HEAD)
}

/// Each byte comes soon, and all of them do not.
fn trickling() -> Answer {
    let body = [b'x'; 1000];
    let answer = Answer::status(200).body(&body);
    answer.then(Ending::Trickle(Duration::from_millis(20)))
}

fn no_chunk() -> Answer {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    Answer::raw(200, head)
}

#[test]
fn a_2xx_whose_body_breaks_off_is_sent_for_once_more_and_then_the_head_decides() {
    let plans: [(&str, Plan); 5] = [
        ("short", short),
        ("reset", reset),
        ("unfinished", unfinished),
        ("trickling", trickling),
        ("no chunk", no_chunk),
    ];
    scope(|scope| {
        for (name, plan) in plans {
            scope.spawn(move || {
                let server = MainServer::new_up();
                server.on_post(move |_| plan());
                let fixture = Fixture::new(server);
                fixture.store(&texts(["first", "second", "third"]));
                fixture.wait_noted(3);
                let first = fixture.tries_of(r#""first""#);
                assert_eq!(first.len(), 2, "{name}");
                assert_eq!(key_of(&first[0]), key_of(&first[1]), "{name}");
                assert_ne!(first[0].connection, first[1].connection, "{name}");
                for record in [r#""second""#, r#""third""#] {
                    assert_eq!(fixture.tries_of(record).len(), 1, "{name}");
                }
                let told = fixture.agent.events_named("main_answers_break_off");
                assert_eq!(told.len(), 1, "{name}");
                let slow = matches!(name, "unfinished" | "trickling");
                let late = told[0]["error"] == "not through after 2s";
                assert_eq!(late, slow, "{name}: {told:?}");
                assert!(fixture.set_aside().is_empty(), "{name}");
                assert_eq!(fixture.outages(), 0, "{name}");
            });
        }
    });
}

/// One such answer alone decides nothing.
#[test]
fn a_2xx_that_breaks_off_once_is_forgotten() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.number {
        1 => reset(),
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["a", "b", "c"]));
    fixture.wait_noted(3);
    for record in [r#""a""#, r#""b""#, r#""c""#] {
        assert_eq!(fixture.tries_of(record).len(), 2);
    }
    let told = fixture.agent.events_named("main_answers_break_off");
    assert!(told.is_empty());
}

#[test]
fn other_statuses_count_by_their_head() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match (attempt.record, attempt.number) {
        ("refused", _) => Answer::raw(400, b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\nbad"),
        ("later", 1) => Answer::raw(503, b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nbad"),
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["refused", "later"]));
    fixture.wait_for(r#""later""#);
    assert_eq!(fixture.tries_of(r#""refused""#).len(), 1);
    assert_eq!(fixture.tries_of(r#""later""#).len(), 2);
    assert_eq!(fixture.set_aside()[0]["status"], 400);
    assert_eq!(fixture.set_aside()[0]["answer"], "bad");
}

#[test]
fn a_probe_is_healthy_whatever_its_body_does() {
    let plans: [(&str, Plan); 5] = [
        ("short", short),
        ("reset", reset),
        ("unfinished", unfinished),
        ("no chunk", no_chunk),
        ("endless", || {
            let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            Answer::raw(200, &[head, vec![b'x'; 8 << 20]].concat())
        }),
    ];
    scope(|scope| {
        for (name, plan) in plans {
            scope.spawn(move || {
                let server = MainServer::new_up();
                server.on_get(move |_| plan());
                let fixture = Fixture::new(server);
                fixture.store(&texts(["one"]));
                fixture.wait_for(r#""one""#);
                assert_eq!(fixture.outages(), 0, "{name}");
            });
        }
    });
}

#[test]
fn a_head_that_only_some_clients_read_is_no_reason_to_send_for_ever() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| {
        let lines = match attempt.record {
            "folded" => "X-A: one\r\n two\r\n",
            "blank" => "X-A : one\r\n",
            "none" => "no header at all\r\n",
            "control" => "X-A: \x01\r\n",
            _ => "",
        };
        let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\n{{}}");
        Answer::raw(200, head.as_bytes())
    });
    let fixture = Fixture::new(server);
    let records = ["folded", "blank", "none", "control", "plain", "end"];
    fixture.store(&texts(records));
    fixture.wait_noted(6);
    let connections = records.map(|record| {
        let tries = fixture.tries_of(&format!("{record:?}"));
        assert_eq!(tries.len(), 1, "{record}");
        tries[0].connection
    });
    let [odd @ .., plain, end] = connections;
    assert!(
        odd.windows(2).all(|two| two[0] != two[1]),
        "{connections:?}"
    );
    assert!(odd[3] != plain && plain == end, "{connections:?}");
    assert!(fixture.agent.events_named("main_unreachable").is_empty());
    // None of it waited for a back-off.
    let posts = fixture.server.posts();
    let took = posts[5].at - posts[0].at;
    assert!(took < Duration::from_secs(5), "{took:?}");
}
