//! The one connection: kept, replaced when the server closes it, given up when
//! the server is mute; and one request at a time on it.

use std::collections::HashSet;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::scope;
use std::time::Duration;

use rustix::net::listen;
use tokio::task::JoinSet;

use crate::support::agent::Agent;
use crate::support::fixture::{DEADLINE, Fixture, key_of, on_try, texts};
use crate::support::http1::Message;
use crate::support::sender::block_on;
use crate::support::server::{Answer, Ending, MainServer};
use crate::support::temp_folder;

const MANY: usize = 1000;

#[test]
fn a_thousand_records_go_over_one_connection_one_at_a_time() {
    let mut fixture = Fixture::down();
    let sender = Arc::new(fixture.sender());
    block_on(async {
        for records in texts(0..MANY).chunks(50) {
            let mut calls = JoinSet::new();
            for json in records {
                let (json, sender) = (json.clone(), Arc::clone(&sender));
                calls.spawn(async move { sender.send(&json, &["p"], "").await });
            }
            let answers = calls.join_all().await;
            assert!(answers.iter().all(|answer| answer.is_ok()), "{answers:?}");
        }
    });
    let down = fixture
        .agent
        .wait_event("main_unhealthy_accepting_logs", DEADLINE);
    assert_eq!(
        down["error"],
        "cannot connect: Connection refused (os error 111)"
    );
    fixture.server.up();
    fixture.server.wait_delivered(MANY, DEADLINE);
    let posts = fixture.server.posts();
    assert_eq!(posts.len(), MANY);
    let records: HashSet<_> = posts.iter().map(|post| post.log_data().to_vec()).collect();
    assert_eq!(records.len(), MANY);
    // The probe's connection is the one that is kept.
    assert_eq!(fixture.server.connections(), 1);
    assert_eq!(fixture.server.most_in_flight(), 1);
}

/// What a server may do with an answer, on `connections` for five records.
struct Manners {
    name: &'static str,
    answer: fn() -> Answer,
    keeps: bool,
}

#[test]
fn answers_of_every_shape_count_once_and_keep_the_connection_where_they_can() {
    let table = [
        Manners {
            name: "closes without a word",
            answer: || Answer::ok().then(Ending::ThenClose),
            keeps: false,
        },
        Manners {
            name: "Connection: close",
            answer: || {
                let answer = Answer::ok().header("Connection", "close");
                answer.then(Ending::ThenClose)
            },
            keeps: false,
        },
        Manners {
            name: "Connection: close, and stays",
            answer: || Answer::ok().header("Connection", "close"),
            keeps: false,
        },
        Manners {
            name: "64 KiB",
            answer: || Answer::status(200).body(&[b'x'; 64 * 1024]),
            keeps: true,
        },
        Manners {
            name: "1 MB",
            answer: || Answer::status(200).body(&[b'x'; 1_000_000]),
            keeps: false,
        },
        Manners {
            name: "64 KiB and a byte",
            answer: || Answer::status(200).body(&[b'x'; 64 * 1024 + 1]),
            keeps: false,
        },
        Manners {
            name: "a head of 60 KiB",
            answer: || Answer::ok().header("X", &"x".repeat(60 << 10)),
            keeps: true,
        },
        Manners {
            name: "a head of 100 lines",
            answer: || (0..99).fold(Answer::ok(), |answer, _| answer.header("X", "y")),
            keeps: true,
        },
        Manners {
            name: "ended by the close",
            answer: || Answer::raw(200, b"HTTP/1.1 200 OK\r\n\r\nok").then(Ending::ThenClose),
            keeps: false,
        },
        Manners {
            name: "no body",
            answer: || Answer::status(204),
            keeps: true,
        },
        Manners {
            name: "chunked",
            answer: || {
                let chunked = b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n\
                    2;x=y\r\n{}\r\n0\r\nTrailer: x\r\n\r\n";
                Answer::raw(200, chunked)
            },
            keeps: true,
        },
        Manners {
            name: "interim answers first",
            answer: || {
                let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n\
                    HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                Answer::raw(200, interim)
            },
            keeps: true,
        },
        Manners {
            name: "HTTP/1.0, ended by the close",
            answer: || {
                let old = b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nthanks";
                Answer::raw(200, old).then(Ending::ThenClose)
            },
            keeps: false,
        },
    ];
    for manners in table {
        let name = manners.name;
        let mut fixture = Fixture::down();
        let answer = manners.answer;
        fixture.server.on_post(move |_| answer());
        let records = texts(0..5);
        fixture.store(&records);
        fixture.server.up();
        fixture.wait_for(&records[4]);
        let posts = fixture.server.posts();
        let order: Vec<_> = posts.iter().map(|post| post.log_data()).collect();
        let records: Vec<_> = records.iter().map(String::as_bytes).collect();
        assert_eq!(order, records, "{name}: each once, in order");
        let used: HashSet<_> = posts.iter().map(|post| post.connection).collect();
        let expected = if manners.keeps { 1 } else { 5 };
        assert_eq!(used.len(), expected, "{name}");
        // A connection replaced is no outage: no probe, no back-off.
        let mut gets = fixture.server.gets();
        gets.retain(|get| get.at < posts[4].at);
        assert_eq!(gets.len(), 1, "{name}");
        assert_eq!(
            fixture.agent.events_named("main_unreachable").len(),
            0,
            "{name}"
        );
    }
}

#[test]
fn a_kept_connection_that_was_closed_while_idle_is_replaced_at_once() {
    // In standby, so that it does not leave between two records.
    let mut fixture = Fixture::standby(MainServer::new_up());
    let records = texts(0..4);
    for (count, json) in (1..).zip(&records) {
        fixture.store(std::slice::from_ref(json));
        fixture.wait_noted(count);
        fixture.server.down();
        fixture.server.up();
    }
    assert_eq!(fixture.server.posts().len(), records.len());
    assert_eq!(fixture.agent.events_named("main_unreachable").len(), 0);
    assert_eq!(fixture.set_aside().len(), 0);
}

#[test]
fn a_broken_exchange_is_repeated_with_the_same_key() {
    type Plan = fn() -> Answer;
    // 10 s by the agent's clock; the server's looks later.
    let mute = Duration::from_secs(7);
    // How often; twice, where a kept connection that breaks without an answer is replaced
    // without ado.
    let broken: [(&str, Plan, u32, Duration); 6] = [
        ("mute", || Answer::ok().then(Ending::Never), 1, mute),
        (
            "half a head",
            || Answer::raw(200, b"HTTP/1.1 200 OK\r\n"),
            1,
            mute,
        ),
        ("hints alone", hints, 1, mute),
        (
            "reset in the head",
            || Answer::ok().then(Ending::ResetAfter(9)),
            2,
            Duration::ZERO,
        ),
        (
            "closed",
            || Answer::ok().then(Ending::Close),
            2,
            Duration::ZERO,
        ),
        (
            "no HTTP",
            || Answer::raw(200, b"SSH-2.0-x\r\n\r\n"),
            2,
            Duration::ZERO,
        ),
    ];
    scope(|scope| {
        for (name, plan, times, least) in broken {
            scope.spawn(move || {
                let server = MainServer::new_up();
                on_try(&server, move |attempt| match attempt.record {
                    "broken" if attempt.number <= times => plan(),
                    _ => Answer::ok(),
                });
                let fixture = Fixture::new(server);
                fixture.store(&texts(["good", "broken", "end"]));
                fixture.wait_for(r#""end""#);
                let tries = fixture.tries_of(r#""broken""#);
                assert_eq!(tries.len() as u32, times + 1, "{name}");
                let keys: HashSet<_> = tries.iter().map(|request| key_of(request)).collect();
                assert_eq!(keys.len(), 1, "{name}");
                let used: HashSet<_> = tries.iter().map(|request| request.connection).collect();
                assert_eq!(used.len(), tries.len(), "{name}");
                let waited = tries[1].at - tries[0].at;
                assert!(
                    (least..least + Duration::from_secs(11)).contains(&waited),
                    "{name}: again after {waited:?}"
                );
                if !least.is_zero() {
                    let broken = fixture.agent.events_named("main_unreachable");
                    let why = "timed out after 10s while waiting for the answer";
                    assert_eq!(broken[0]["error"], why, "{name}");
                }
                assert_eq!(fixture.set_aside().len(), 0, "{name}");
                let mut gets = fixture.server.gets();
                let end = tries[tries.len() - 1].at;
                gets.retain(|get| (tries[0].at..end).contains(&get.at));
                assert!(!gets.is_empty(), "{name}: probed before it goes on");
            });
        }
    });
}

/// Answers before the answer, which never comes.
fn hints() -> Answer {
    Answer::raw(
        200,
        &b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(1000),
    )
}

/// The queue of its server is full: nothing says that no connection comes about.
#[test]
fn a_connection_that_does_not_come_about_is_given_up_after_five_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let folder = temp_folder();
    let url = format!("http://{address}");
    let mut agent = Agent::builder(folder.path()).health_url(&url).spawn();
    agent.wait_socket();
    agent.send("1");
    let (mut stream, _) = listener.accept().expect("the probe's connection");
    let probe = Message::read(&mut BufReader::new(&stream));
    assert_eq!(probe.expect("HTTP").expect("a probe").method, "GET");
    listen(&listener, 0).expect("a short queue");
    let soon = Duration::from_millis(200);
    let fill = || TcpStream::connect_timeout(&address, soon).ok();
    let _full: Vec<_> = std::iter::from_fn(fill).collect();
    let last = Answer::ok().header("Connection", "close");
    stream.write_all(&last.bytes()).expect("write");
    let broken = agent.wait_event("main_unreachable", DEADLINE);
    assert_eq!(broken["error"], "timed out after 5s while connecting");
}
