//! Order and completeness, whatever the server does meanwhile; and what
//! `agent-success.log` says of it.

use std::sync::Mutex;
use std::thread::scope;
use std::time::Duration;

use echopost::limits::DELETE_RECORDS_MAX;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::agent::session_file;
use crate::support::fixture::{
    DEADLINE, Fixture, delivered, first_deliveries, lines, place_of, texts,
};
use crate::support::server::{Answer, Ending, MainServer};
use crate::support::wait;

const CLIENTS: usize = 2;
const EACH: usize = 300;
const BREAKS: usize = 6;

#[test]
fn two_clients_and_a_flapping_server_everything_once_and_in_order() {
    // In standby, so that it does not leave when both clients are held up.
    let mut fixture = Fixture::standby(MainServer::new_up());
    // Slow enough for ingest to go on all the while.
    fixture
        .server
        .on_post(|_| Answer::ok().after(Duration::from_millis(2)));
    let acknowledged = Mutex::new(vec![0; CLIENTS]);
    scope(|scope| {
        for client in 0..CLIENTS {
            let (acknowledged, socket) = (&acknowledged, fixture.agent.socket());
            scope.spawn(move || {
                let sender = crate::support::sender::Sender::keeping(&socket);
                crate::support::sender::block_on(async {
                    for number in 0..EACH {
                        let json = format!("[{client},{number}]");
                        let stored = sender.send(&json, &["p"], "").await;
                        assert!(stored.is_ok_and(|answer| answer.success), "{json}");
                        acknowledged.lock().expect("counts")[client] += 1;
                    }
                });
            });
        }
        let total = CLIENTS * EACH;
        for flap in 1..=BREAKS {
            let enough = total * flap / (BREAKS + 2);
            fixture.server.wait_delivered(enough, DEADLINE);
            fixture.server.down();
            fixture.server.up();
        }
    });
    let total = CLIENTS * EACH;
    wait::until(DEADLINE, "everything", || {
        first_deliveries(&fixture.server).0.len() >= total
    });
    let (first, again) = first_deliveries(&fixture.server);
    assert_eq!(first.len(), total);
    assert!(again <= BREAKS, "{again} duplicates, one a break at most");
    let places: Vec<_> = first.iter().map(|post| place_of(post)).collect();
    assert!(places.is_sorted(), "strictly by key");
    for client in 0..CLIENTS {
        let own: Vec<_> = first
            .iter()
            .map(|post| String::from_utf8_lossy(post.log_data()).into_owned())
            .filter(|json| json.starts_with(&format!("[{client},")))
            .collect();
        let sent: Vec<_> = (0..EACH)
            .map(|number| format!("[{client},{number}]"))
            .collect();
        assert_eq!(own, sent, "client {client}");
    }
    assert_eq!(fixture.server.most_in_flight(), 1);
    assert_eq!(fixture.set_aside().len(), 0);
}

#[test]
fn records_are_taken_while_a_record_is_in_flight() {
    let server = MainServer::new_up();
    server.on_post(|_| Answer::ok().then(Ending::Never));
    let fixture = Fixture::new(server);
    fixture.store(&texts(["stuck"]));
    fixture.until("a request in flight", |fixture| {
        !fixture.server.posts().is_empty()
    });
    fixture.store(&texts(0..20));
    assert_eq!(fixture.tries_of("\"0\"").len(), 0);
}

fn success_log(fixture: &Fixture) -> Vec<Value> {
    lines(&session_file(fixture.folder.path(), "agent-success.log").expect("the log"))
}

fn sum(log: &[Value]) -> u64 {
    log.iter()
        .map(|line| line["count"].as_u64().expect("a count"))
        .sum()
}

#[test]
fn the_success_log_has_a_line_a_group_and_their_sum_is_what_was_delivered() {
    let mut fixture = Fixture::down();
    // One is refused: it is no delivery.
    fixture
        .server
        .on_post(|message| match message.body.ends_with(b"\"70\"}") {
            true => Answer::status(400),
            false => Answer::ok(),
        });
    fixture.store(&texts(0..200));
    fixture.server.up();
    fixture.until("the sum", |fixture| sum(&success_log(fixture)) >= 199);
    let log = success_log(&fixture);
    assert_eq!(sum(&log), 199);
    let places: Vec<_> = fixture
        .server
        .delivered()
        .iter()
        .map(|post| place_of(post))
        .collect();
    let mut rest = &places[..];
    for line in &log {
        let count = line["count"].as_u64().expect("a count") as usize;
        assert!((1..=DELETE_RECORDS_MAX).contains(&count), "{line}");
        let (group, after) = rest.split_at(count);
        assert_eq!(line["first"].as_u64(), group.first().copied());
        assert_eq!(line["last"].as_u64(), group.last().copied());
        let time = line["time"].as_str().expect("a time");
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        rest = after;
    }
}

#[test]
fn a_signal_in_the_middle_of_a_replay_leaves_the_sums_right() {
    let server = MainServer::new_up();
    server.on_post(|_| Answer::ok().after(Duration::from_millis(40)));
    let mut fixture = Fixture::new(server);
    let records = texts(0..60);
    fixture.store(&records);
    fixture.until("some deliveries", |fixture| {
        fixture.server.delivered().len() >= 10
    });
    fixture.agent.signal(Signal::TERM);
    fixture.agent.expect_exit(0, DEADLINE);
    let stopped = fixture.agent.wait_event("agent_stopped", DEADLINE);
    let done = stopped["delivered"].as_u64().expect("a count");
    assert_eq!(sum(&success_log(&fixture)), done);
    assert_eq!(stopped["left"].as_u64(), Some(60 - done));
    // One more may have arrived: the one in flight, once the server has read it.
    fixture.until("end of the connection", |fixture| {
        fixture.server.open_connections() == 0
    });
    let arrived = fixture
        .server
        .posts()
        .iter()
        .filter(|post| delivered(post))
        .count() as u64;
    assert!((done..=done + 1).contains(&arrived), "{arrived} of {done}");
    fixture.restart();
    fixture.wait_for(&records[59]);
    let (first, again) = first_deliveries(&fixture.server);
    assert_eq!((first.len(), again as u64), (60, arrived - done));
}
