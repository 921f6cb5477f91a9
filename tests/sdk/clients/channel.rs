//! Crowds of well-behaved calls over grpcio.

use std::time::Instant;

use serde_json::{Value, json};

use crate::clients::program::Program;
use crate::support::fixture::Fixture;

#[track_caller]
fn expect_none_failed(told: &Value) {
    assert_eq!(told["failed"], json!([]), "of {}", told["calls"]);
}

#[test]
fn no_call_of_64_threads_on_one_channel_fails() {
    let fixture = Fixture::down();
    let mut client = Program::grpcio(&fixture.agent.socket(), &json!({}));
    let order = json!({ "crowd": 64, "rounds": 10, "bytes": 60_000, "threads": true });
    let told = client.ask(&order);
    println!(
        "64 threads, a channel: {told}; peak {:?} KiB",
        fixture.agent.hwm_kib()
    );
    expect_none_failed(&told);
    client.end();
    assert_eq!(fixture.stored().len(), 640);
}

#[test]
fn no_call_of_8_processes_with_40_in_flight_each_fails() {
    let fixture = Fixture::down();
    let mut clients: Vec<_> = (0..8)
        .map(|_| Program::grpcio(&fixture.agent.socket(), &json!({})))
        .collect();
    for (bytes, rounds) in [(100, 20), (60_000, 4)] {
        let order = json!({ "crowd": 40, "rounds": rounds, "bytes": bytes, "threads": false });
        let began = Instant::now();
        for client in &mut clients {
            client.tell(&order);
        }
        let told: Vec<_> = clients.iter().map(Program::hear).collect();
        let peak = fixture.agent.hwm_kib();
        let took = began.elapsed();
        println!(
            "8 processes x 40 calls of {bytes} bytes, {rounds} rounds: {took:?}; peak {peak:?} KiB"
        );
        told.iter().for_each(expect_none_failed);
    }
    clients.into_iter().for_each(Program::end);
    assert_eq!(fixture.stored().len(), 8 * 40 * 24);
}

#[test]
fn no_call_of_40_at_once_on_each_of_24_fresh_channels_fails() {
    let fixture = Fixture::down();
    let mut client = Program::grpcio(&fixture.agent.socket(), &json!({}));
    for bytes in [100, 30_000] {
        let told = client.ask(&json!({
            "crowd": 40, "rounds": 2, "bytes": bytes, "threads": false, "channels": 24,
        }));
        let peak = fixture.agent.hwm_kib();
        println!("24 fresh channels x 40 calls of {bytes} bytes: {told:.900}; peak {peak:?} KiB");
        expect_none_failed(&told);
    }
    client.end();
    assert_eq!(fixture.stored().len(), 24 * 40 * 4);
}
