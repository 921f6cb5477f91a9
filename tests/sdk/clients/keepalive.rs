//! Pings that keep a connection alive.

use serde_json::{Value, json};

use crate::clients::frames::Frames;
use crate::clients::orders::{expect_stored, send};
use crate::clients::program::Program;
use crate::clients::tap::{From, Tap};
use crate::support::fixture::Fixture;
use crate::support::wire::{GOAWAY, PING};

/// Pings as often as clients of gRPC may be told to send them.
pub fn eager() -> Value {
    json!({
        "grpc.keepalive_time_ms": 100,
        "grpc.keepalive_timeout_ms": 1000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
    })
}

/// Whether a channel that has been ready, by these states of it, was not so later.
pub fn was_disconnected(states: &Value) -> bool {
    let states = states.as_array().expect("states");
    let ready = states.iter().position(|state| state == "READY");
    let after = &states[ready.expect("ready once")..];
    after.iter().any(|state| state != "READY")
}

#[test]
fn a_channel_that_pings_while_it_is_idle_is_never_cut() {
    let fixture = Fixture::down();
    let tap = Tap::new(&fixture.agent.socket());
    let options: Vec<_> = eager()
        .as_object()
        .expect("options")
        .clone()
        .into_iter()
        .collect();
    let mut client = Program::grpcio(&tap.socket(), &json!({ "options": options }));

    expect_stored(&client.ask(&send("1")), "before");
    client.ask(&json!({ "idle": 3 }));
    let idle_pings = tap.frames(From::Client, PING);
    expect_stored(&client.ask(&send("2")), "after");
    client.ask(&json!({ "idle": 1 }));
    expect_stored(&client.ask(&send("3")), "and once more");
    let states = client.ask(&json!({ "states": null }))["states"].take();
    let (pings, pongs) = (tap.frames(From::Client, PING), tap.pongs(From::Agent));
    println!("grpcio: {idle_pings} pings in 3 s, {pings} in all, {pongs} answered; {states}");
    // The C core takes a second for the least, whatever it is told.
    assert!(idle_pings >= 2, "{idle_pings} pings in 3 s");
    assert!(!was_disconnected(&states), "{states}");
    assert_eq!(tap.connections(), 1);
    assert_eq!(tap.frames(From::Agent, GOAWAY), 0);
    assert!(pings - pongs <= 1, "{pongs} of {pings} pings are answered");
    client.end();
    assert_eq!(fixture.stored(), ["1", "2", "3"]);
}

#[test]
fn thirty_pings_in_three_seconds_are_all_answered() {
    let fixture = Fixture::down();
    let mut frames = Frames::new(&fixture.agent.socket());
    let seen = frames.request(&[json!({ "pings": 30, "pause": 0.1 })]);
    assert_eq!(seen["pongs"], 30, "{seen}");
    assert_eq!(seen["closed"], false, "{seen}");
    frames.expect_next(&seen, "the pings");
    // A thousand at once are many, but not yet a flood.
    let seen = frames.request(&[json!({ "pings": 1000, "pause": 0 })]);
    println!("a thousand pings: {seen}");
    frames.expect_next(&seen, "a thousand pings");
    frames.end();
    assert_eq!(fixture.stored(), ["1", "1"]);
}
