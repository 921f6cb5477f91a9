//! One channel over the lives of more than one agent.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clients::orders::{expect_stored, record, send};
use crate::clients::program::Program;
use crate::clients::tap::{From, Tap};
use crate::support::fixture::{DEADLINE, Fixture};
use crate::support::wire::DATA;
use crate::support::{store, wait};

#[test]
fn a_channel_goes_on_with_the_next_agent() {
    let mut fixture = Fixture::down();
    let mut client = Program::grpcio(&fixture.agent.socket(), &json!({}));
    let waiting = |json: &str| json!({ "send": record(json), "wait": true });

    expect_stored(&client.ask(&send("\"first life\"")), "first life");
    fixture.stop();
    // Begun while no agent is there, and answered by the next one.
    client.tell(&waiting("\"between\""));
    fixture.restart();
    expect_stored(&client.hear(), "between");
    expect_stored(&client.ask(&waiting("\"second life\"")), "second life");
    let states = client.ask(&json!({ "states": null }))["states"].take();
    println!("over two lives: {states}");
    client.end();
    let expected = ["\"first life\"", "\"between\"", "\"second life\""];
    assert_eq!(fixture.stored(), expected);
}

#[test]
fn forty_calls_that_came_before_sigterm_are_answered() {
    for bytes in [10, 3_000] {
        let mut fixture = Fixture::down();
        let tap = Tap::new(&fixture.agent.socket());
        let mut client = Program::grpcio(&tap.socket(), &json!({}));
        expect_stored(&client.ask(&send("1")), "before");
        fixture.agent.stop();
        client.tell(&json!({ "crowd": 40, "rounds": 1, "bytes": bytes, "threads": false }));
        wait::until(DEADLINE, "41 bodies", || {
            tap.frames(From::Client, DATA) >= 41
        });
        fixture.agent.signal(Signal::TERM);
        fixture.agent.signal(Signal::CONT);
        let told = client.hear();
        assert_eq!(told["failed"], json!([]), "{bytes} bytes");
        fixture.agent.expect_exit(0, DEADLINE);
        client.end();
        assert_eq!(store::records(fixture.agent.folder()).len(), 41);
    }
}

#[test]
fn a_channel_that_never_stops_sending_loses_nothing_to_agents_that_are_stopped() {
    let told = ten_agents_are_stopped(0);
    assert_eq!(told["failed"], json!([]));
}

#[test]
fn nor_does_one_with_large_records() {
    let told = ten_agents_are_stopped(60_000);
    assert_eq!(told["failed"], json!([]));
}

/// Agents are stopped one after the other while sixteen threads send on one channel;
/// how their calls ended.
fn ten_agents_are_stopped(bytes: usize) -> Value {
    let mut fixture = Fixture::down();
    let back_off = json!([
        ["grpc.initial_reconnect_backoff_ms", 100],
        ["grpc.max_reconnect_backoff_ms", 200],
    ]);
    let settings = json!({ "options": back_off });
    let mut client = Program::grpcio(&fixture.agent.socket(), &settings);
    client.ask(&json!({ "steady": 16, "bytes": bytes }));
    for _ in 1..=10 {
        // The signal meets calls in flight.
        let acked = |client: &mut Program| client.ask(&json!({ "acked": null }))["acked"].as_u64();
        let before = acked(&mut client).expect("a number");
        wait::until(DEADLINE, "calls of this life", || {
            acked(&mut client) >= Some(before + 100)
        });
        fixture.stop();
        fixture.restart();
    }
    let told = client.ask(&json!({ "stop": null }));
    client.end();
    let acked = told["acked"].as_array().expect("numbers");
    let (count, failed) = (acked.len(), &told["failed"]);
    println!("over eleven lives, {bytes} bytes: {count} acknowledged, failed: {failed}");
    let mut stored = fixture.stored();
    stored
        .iter_mut()
        .for_each(|json| json.truncate(json.trim_end().len()));
    for number in acked.iter().map(ToString::to_string) {
        let times = stored.iter().filter(|json| **json == number).count();
        assert_eq!(times, 1, "{number} of {count}");
    }
    told
}
