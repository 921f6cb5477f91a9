//! Statuses as the C core shows them, each with its message.

use serde_json::{Value, json};

use crate::clients::keepalive::was_disconnected;
use crate::clients::orders::{expect_stored, record, send};
use crate::clients::program::Program;
use crate::support::fixture::Fixture;

#[test]
fn every_refusal_has_its_code_and_says_why_and_the_channel_goes_on() {
    let fixture = Fixture::down();
    let mut client = Program::grpcio(&fixture.agent.socket(), &json!({}));
    let key = "k".repeat(300);
    let many =
        |count: usize| json!({ "json_data": "1", "pipelines": vec!["p"; count], "api_key": "" });
    let with = |record: Value, more: Value| {
        let mut order = json!({ "send": record });
        let more = more.as_object().expect("an object").clone();
        order.as_object_mut().expect("an object").extend(more);
        order
    };
    let mut stored = 0;
    for (order, code, message) in [
        (
            with(
                record("1"),
                json!({ "method": "/logagent.LogAgent/Nothing" }),
            ),
            "UNIMPLEMENTED",
            "/logagent.LogAgent/Nothing is not a method",
        ),
        (
            with(record("1"), json!({ "method": "/other.Service/SendLog" })),
            "UNIMPLEMENTED",
            "/other.Service/SendLog is not a method",
        ),
        (send("{\"a\":01}"), "INVALID_ARGUMENT", "line 1 column 7"),
        (send("{}\n{}"), "INVALID_ARGUMENT", "line 2 column 1"),
        (send(""), "INVALID_ARGUMENT", "line 1 column 0"),
        (
            with(
                record("1"),
                json!({ "metadata": [["idempotency-key", key]] }),
            ),
            "INVALID_ARGUMENT",
            "idempotency-key: 300 bytes, the limit is 255",
        ),
        (
            with(many(1025), json!({})),
            "RESOURCE_EXHAUSTED",
            "1025 pipelines, the limit is 1024",
        ),
        (
            json!({ "send": { "json_data": "1", "pipelines": [], "api_key": "a\nb" } }),
            "INVALID_ARGUMENT",
            "api_key",
        ),
        (
            json!({ "send": { "json_data": "1", "pipelines": [], "api_key": "a".repeat(70_000) } }),
            "RESOURCE_EXHAUSTED",
            "70000 bytes, the limit is 65536",
        ),
    ] {
        let told = client.ask(&order);
        println!("{code}: {told}");
        assert_eq!(told["code"], code, "{message}: {told}");
        let said = told["message"].as_str().expect("a message");
        assert!(said.contains(message), "{said}");
        expect_stored(&client.ask(&send("1")), message);
        stored += 1;
    }
    // What is just allowed is taken.
    let key = "k".repeat(255);
    let longest = with(
        record("1"),
        json!({ "metadata": [["idempotency-key", key]] }),
    );
    for order in [longest, with(many(1024), json!({}))] {
        expect_stored(&client.ask(&order), "the most that is allowed");
        stored += 1;
    }
    let states = client.ask(&json!({ "states": null }))["states"].take();
    assert!(!was_disconnected(&states), "{states}");
    client.end();
    assert_eq!(fixture.stored().len(), stored);
}

#[test]
fn metadata_of_five_kibibytes_costs_at_most_its_own_call() {
    let fixture = Fixture::down();
    let mut client = Program::grpcio(&fixture.agent.socket(), &json!({}));
    client.ask(&json!({ "steady": 4, "bytes": 0 }));
    let mut fat_stored = 0;
    for bytes in [1000, 3000, 3900, 4096, 5 * 1024, 8 * 1024, 12 * 1024] {
        for time in 1..=5 {
            let metadata = json!([["x-fat", "m".repeat(bytes)]]);
            let told = client.ask(&json!({ "send": record("\"fat\""), "metadata": metadata }));
            if time == 1 {
                println!("metadata of {bytes} bytes: {told}");
            }
            assert_ne!(told["code"], "DEADLINE_EXCEEDED", "{bytes} bytes: {told}");
            fat_stored += usize::from(told["code"] == "OK");
            assert!(
                bytes > 3000 || told["code"] == "OK",
                "{bytes} bytes: {told}"
            );
        }
    }
    let told = client.ask(&json!({ "stop": null }));
    let states = client.ask(&json!({ "states": null }))["states"].take();
    let acked = told["acked"].as_array().expect("numbers").len();
    println!(
        "beside fat metadata: {acked} answered, failed: {}; {states}",
        told["failed"]
    );
    assert_eq!(told["failed"], json!([]), "of {acked} calls beside it");
    assert!(!was_disconnected(&states), "{states}");
    expect_stored(&client.ask(&send("1")), "afterwards");
    client.end();
    assert_eq!(fixture.stored().len(), acked + fat_stored + 1);
}
