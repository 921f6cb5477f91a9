//! Answers that no client can read, or that end their connection (spec 6): the record
//! stays, the event says what was wrong, and there is a pause before the next try.

use std::collections::HashSet;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{scope, sleep, spawn};
use std::time::Duration;

use echopost::proto::store::StoredRecord;
use echopost::store::record;
use rustix::net::{RecvFlags, recv};

use crate::support::agent::{Agent, session_file};
use crate::support::fixture::{DEADLINE, Fixture, lines, on_try, texts};
use crate::support::http1::Message;
use crate::support::server::{Answer, Ending, MainServer};
use crate::support::{store, temp_folder};

/// That before the first probe (spec 5.2).
const PAUSE_MIN: Duration = Duration::from_millis(120);
/// Resident memory that no small record needs, in an unoptimized build.
const PEAK_MAX_KIB: u64 = 12 * 1024;

const CLOSED: &str = "connection closed before message completed";
const INVALID: &str =
    "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: ";

/// What comes twice in place of an answer, and what the event has to say.
fn unreadable() -> Vec<(Vec<u8>, String)> {
    let head = |rest: &str| format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes();
    let closed = [b"H".to_vec(), head(""), head("Content-Le")];
    let lengths = ["four", "-4", "4\r\nContent-Length: 5"];
    let lengths = lengths.map(|length| head(&format!("Content-Length: {length}\r\n\r\ndone")));
    let statuses = ["OK", "20 OK", "2000 OK"];
    let statuses = statuses.map(|status| format!("HTTP/1.1 {status}\r\n\r\n").into_bytes());
    let long = [
        head(&format!("X: {}\r\n\r\n", "x".repeat(256 << 10))),
        head(&format!("X: {}\r\n\r\n", "x".repeat(1 << 20))),
        head(&format!("{}\r\n", "X: y\r\n".repeat(101))),
    ];
    let others: [&[u8]; 5] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x15\x03\x03\x00\x02\x02\x16",
        b"<html>hello</html>\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ];
    let others = others.map(<[u8]>::to_vec);
    let invalid = |what: &str| format!("{INVALID}{what}");
    let mut all = Vec::new();
    for (answers, reason) in [
        (&closed[..], CLOSED.to_owned()),
        (&lengths, invalid("invalid content-length parsed")),
        (&statuses, invalid("invalid HTTP status-code parsed")),
        (&long, invalid("message head is too large")),
        (&others, invalid("invalid HTTP version parsed")),
    ] {
        all.extend(
            answers
                .iter()
                .map(|answer| (answer.clone(), reason.clone())),
        );
    }
    all
}

#[test]
fn an_unreadable_answer_is_named_and_tried_again_after_a_pause() {
    scope(|scope| {
        for (bytes, reason) in unreadable() {
            scope.spawn(move || {
                let server = MainServer::new_up();
                let answer = Answer::raw(200, &bytes).then(Ending::ThenClose);
                on_try(&server, move |attempt| match attempt.record {
                    "odd" if attempt.number <= 2 => answer.clone(),
                    _ => Answer::ok(),
                });
                let fixture = Fixture::new(server);
                fixture.store(&texts(["good", "odd", "end"]));
                fixture.wait_for(r#""end""#);

                let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
                expect_reason(&fixture, Some(&reason), &shown);
                let tries = fixture.tries_of(r#""odd""#);
                assert_eq!(tries.len(), 3, "{shown}");
                for two in tries.windows(2) {
                    let pause = two[1].at - two[0].at;
                    assert!(pause >= PAUSE_MIN, "{shown}: again after {pause:?}");
                }
                assert!(fixture.set_aside().is_empty(), "{shown}");
                let peak = fixture.agent.hwm_kib();
                assert!(
                    peak.is_none_or(|kib| kib < PEAK_MAX_KIB),
                    "{shown}: {peak:?}"
                );
            });
        }
    });
}

/// Tries failed for this reason, or none did; one event a second tells of them.
fn expect_reason(fixture: &Fixture, reason: Option<&str>, case: &str) {
    let events = fixture.agent.events_named("main_unreachable");
    assert_eq!(events.is_empty(), reason.is_none(), "{case}: {events:?}");
    for event in events {
        assert_eq!(event["error"].as_str(), reason, "{case}");
    }
}

/// Right after the answer to the record before, or when the next one is there.
#[test]
fn a_kept_connection_that_ends_is_replaced_at_once() {
    let farewell = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";
    let farewell = [Answer::ok().bytes(), farewell.into()].concat();
    let cases = [
        ("a", "closed", Answer::ok().then(Ending::ThenClose)),
        (
            "a",
            "reset",
            Answer::ok().then(Ending::ResetAfter(usize::MAX)),
        ),
        (
            "a",
            "a farewell",
            Answer::raw(200, &farewell).then(Ending::ThenClose),
        ),
        ("b", "closed unanswered", Answer::ok().then(Ending::Close)),
        (
            "b",
            "reset unanswered",
            Answer::ok().then(Ending::ResetAfter(0)),
        ),
    ];
    for (record, case, answer) in cases {
        let mut fixture = Fixture::down();
        on_try(&fixture.server, move |attempt| match attempt.number {
            1 if attempt.record == record => answer.clone(),
            _ => Answer::ok(),
        });
        let records = texts(["a", "b", "c"]);
        fixture.store(&records);
        fixture.server.up();
        fixture.wait_noted(3);
        let tries: Vec<_> = records
            .iter()
            .map(|json| fixture.tries_of(json).len())
            .collect();
        let resent = usize::from(record == "b");
        assert_eq!(tries, [1, 1 + resent, 1], "{case}");
        expect_reason(&fixture, None, case);
        assert_eq!(fixture.server.connections(), 2, "{case}");
    }
}

/// A kept connection may have been idle for too long. A fresh one has not, and a record whose
/// last try broke off goes out on no other: each further try is one request.
#[test]
fn a_fresh_connection_that_is_closed_unanswered_is_a_failure() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.record {
        "odd" if attempt.number <= 4 => Answer::ok().then(Ending::Close),
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["good", "odd", "end"]));
    fixture.wait_for(r#""end""#);
    expect_reason(&fixture, Some(CLOSED), "four times");
    let tries = fixture.tries_of(r#""odd""#);
    assert_eq!(tries.len(), 5);
    for two in tries[1..].windows(2) {
        let pause = two[1].at - two[0].at;
        assert!(pause >= PAUSE_MIN, "again after {pause:?}");
    }
}

#[test]
fn a_status_that_no_one_knows_is_not_now() {
    scope(|scope| {
        for (line, status) in [
            ("700 Odd", 700),
            ("999 x", 999),
            ("507", 507),
            ("429 ", 429),
            ("101 x\r\nUpgrade: x\r\nConnection: upgrade", 101),
        ] {
            scope.spawn(move || {
                let server = MainServer::new_up();
                let head = format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
                on_try(&server, move |attempt| match attempt.number {
                    1 => Answer::raw(status, head.as_bytes()),
                    _ => Answer::ok(),
                });
                let fixture = Fixture::new(server);
                fixture.store(&texts(["odd"]));
                fixture.wait_for(r#""odd""#);
                let events = fixture.agent.events_named("main_not_taking_logs");
                assert_eq!(events[0]["status"], status);
                expect_reason(&fixture, None, line);
                // The server may not have read the record: what is left of it would be taken
                // for the next request.
                let tries = fixture.tries_of(r#""odd""#);
                let connections: HashSet<_> = tries.iter().map(|one| one.connection).collect();
                assert_eq!(connections.len(), 2, "{line}");
            });
        }
    });
}

/// It stands in the socket already when the next record is sent, and the agent has not
/// looked at the sockets since: there were records between that it could not send.
#[test]
fn an_answer_that_no_request_asked_for_is_none_to_the_next_record() {
    // A busy server is too late now and then.
    assert!((0..8).any(|_| is_refused_in_spite_of_it()));
}

/// False where that answer came too late.
fn is_refused_in_spite_of_it() -> bool {
    const LAST: u64 = 17;
    let folder = temp_folder();
    // Read from the store at once; and so few that the last refusal is believed.
    let records = (1..=LAST).map(|key| {
        let record = StoredRecord {
            json_data: format!("{key:7000}").into(),
            api_key: ["no\nheader", ""][usize::from(matches!(key, 1 | LAST))].to_owned(),
            ..StoredRecord::default()
        };
        (key, record::encoded(key, &record))
    });
    store::put_raw(folder.path(), &records.collect::<Vec<_>>());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        // Nagle's algorithm would keep back what nobody asked for.
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        serve(&stream, 2, 200);
        sleep(Duration::from_micros(300));
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let in_time = recv(&stream, &mut [0; 1], flags).is_err();
        if in_time {
            stream.write_all(&Answer::ok().bytes()).expect("write");
        }
        spawn(move || serve(&stream, usize::MAX, 422));
        spawn(move || {
            for stream in listener.incoming() {
                serve(&stream.expect("a connection"), usize::MAX, 422);
            }
        });
        in_time
    });
    let mut agent = Agent::builder(folder.path()).health_url(&url).spawn();
    let in_time = server.join().expect("the server");
    agent.expect_exit(0, DEADLINE);
    let log = session_file(folder.path(), "agent-failure.log").expect("a log");
    let aside = lines(&log);
    assert_eq!(
        (aside.len(), &aside[aside.len() - 1]["status"]),
        (LAST as usize - 1, &422.into())
    );
    in_time
}

/// Answers so many requests, each record with this status.
fn serve(mut stream: &TcpStream, requests: usize, status: u16) {
    let mut reader = BufReader::new(stream);
    for _ in 0..requests {
        let Ok(Some(message)) = Message::read(&mut reader) else {
            return;
        };
        let answer = match message.method.as_str() {
            "GET" => Answer::ok(),
            _ => Answer::status(status),
        };
        let _ = stream.write_all(&answer.bytes());
    }
}
