//! The largest message, to the byte.

use echopost::proto::logagent::LogRequest;
use prost::Message;
use serde_json::json;

use crate::clients::orders::{expect_stored, send};
use crate::clients::program::Program;
use crate::support::fixture::{DEADLINE, Fixture};

/// Bytes of the largest message.
const LARGEST: usize = 4_194_304;

/// A JSON value whose record, coded, has so many bytes. No two parts of it are alike,
/// so that one that is left out or comes twice is seen.
fn json_of_a_message_of(bytes: usize) -> String {
    let coded = |length: usize| {
        let request = LogRequest {
            json_data: vec![b'x'; length].into(),
            pipelines: vec!["p".to_owned()],
            api_key: "k".to_owned(),
        };
        request.encoded_len()
    };
    let length = (bytes - 32..bytes).find(|&length| coded(length) == bytes);
    let length = length.expect("a length");
    let mut json = String::from("\"");
    for number in 0.. {
        let piece = format!("{number:x}-");
        if json.len() + piece.len() >= length {
            break;
        }
        json.push_str(&piece);
    }
    json.extend(std::iter::repeat_n('.', length - 1 - json.len()));
    json.push('"');
    assert_eq!(json.len(), length);
    json
}

#[test]
fn a_message_of_four_mebibytes_is_taken_byte_for_byte_and_none_of_a_byte_more() {
    let mut fixture = Fixture::down();
    let mut client = Program::grpcio(&fixture.agent.socket(), &json!({}));
    let largest = json_of_a_message_of(LARGEST);
    let larger = json_of_a_message_of(LARGEST + 1);

    for time in 1..=3 {
        let told = client.ask(&send(&larger));
        assert_eq!(told["code"], "RESOURCE_EXHAUSTED", "{time}: {told}");
        let message = told["message"].as_str().expect("a message");
        assert!(message.contains("4194305 bytes"), "{message}");
        expect_stored(&client.ask(&send("1")), "small, after one too large");
        expect_stored(&client.ask(&send(&largest)), "the largest");
    }
    let states = client.ask(&json!({ "states": null }))["states"].take();
    println!("one channel, three too large: {states}");
    client.end();

    fixture.server.up();
    fixture.agent.expect_exit(0, DEADLINE);
    let delivered = fixture.server.delivered_json();
    assert_eq!(delivered.len(), 6);
    for pair in delivered.chunks(2) {
        assert_eq!(pair[0], b"1");
        assert!(pair[1] == largest.as_bytes(), "not byte for byte");
    }
}
