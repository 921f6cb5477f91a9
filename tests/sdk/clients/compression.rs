//! Compressed messages are refused, and a channel that may compress is not.

use serde_json::json;

use crate::clients::frames::{Frames, headers, message};
use crate::clients::orders::{expect_stored, send};
use crate::clients::program::Program;
use crate::support::fixture::Fixture;
use crate::support::rng::Rng;

#[test]
fn a_gzip_channel_is_refused_what_it_compresses_and_served_what_it_does_not() {
    let fixture = Fixture::down();
    let mut client = Program::grpcio(&fixture.agent.socket(), &json!({ "gzip": true }));
    let compressible = format!("\"{}\"", "x".repeat(10_000));

    let told = client.ask(&send(&compressible));
    assert_eq!(told["code"], "UNIMPLEMENTED", "{told}");
    let message = told["message"].as_str().expect("a message");
    assert!(message.contains("compress"), "{message}");

    // The C core leaves alone what would not become smaller.
    expect_stored(&client.ask(&send("1")), "too small to compress");
    // Compressed it is still larger than a window, and than what the agent looks at.
    let large = hardly_compressible(2_000_000);
    let told = client.ask(&send(&large));
    assert_eq!(told["code"], "UNIMPLEMENTED", "{told}");
    expect_stored(&client.ask(&send("2")), "after a refusal");
    client.end();
    assert_eq!(fixture.stored(), ["1", "2"]);
}

/// A JSON string of hexadecimal digits, which gzip halves.
fn hardly_compressible(bytes: usize) -> String {
    let mut rng = Rng(1);
    let digits = (0..bytes).map(|_| char::from(rng.pick(b"0123456789abcdef")));
    format!("\"{}\"", digits.collect::<String>())
}

#[test]
fn the_refusal_says_that_identity_is_accepted() {
    let fixture = Fixture::down();
    let mut frames = Frames::new(&fixture.agent.socket());
    let compressed = [&[1, 0, 0, 0, 3][..], &[0x0a, 1, b'1']].concat();
    for encoding in ["gzip", "deflate", "identity", "unheard-of", ""] {
        let mut fields = headers();
        if !encoding.is_empty() {
            fields.push(json!(["grpc-encoding", encoding]));
        }
        let seen = frames.whole(&fields, &compressed);
        let accepted = &seen["headers"]["grpc-accept-encoding"];
        println!("flagged, grpc-encoding {encoding:?}: {}", seen["headers"]);
        assert_eq!(seen["headers"]["grpc-status"], "12", "{encoding}: {seen}");
        assert_eq!(accepted, "identity", "{encoding}: {seen}");
        assert!(seen["reset"].is_null(), "{encoding}: {seen}");
        frames.expect_next(&seen, encoding);
    }
    frames.end();
    assert_eq!(fixture.stored().len(), 5);
}

#[test]
fn a_message_that_is_not_compressed_is_taken_whatever_the_call_declares() {
    let fixture = Fixture::down();
    let mut frames = Frames::new(&fixture.agent.socket());
    for encoding in ["gzip", "deflate", "identity", "unheard-of"] {
        let mut fields = headers();
        fields.push(json!(["grpc-encoding", encoding]));
        fields.push(json!(["grpc-accept-encoding", "identity,deflate,gzip"]));
        let seen = frames.whole(&fields, &message("\"plain\""));
        assert_eq!(seen["headers"]["grpc-status"], "0", "{encoding}: {seen}");
        frames.expect_next(&seen, encoding);
    }
    frames.end();
    assert_eq!(fixture.stored(), ["\"plain\"", "1"].repeat(4));
}
