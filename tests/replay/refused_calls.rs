//! Calls that are refused (spec 3): with the right status and its reason, and
//! without a trace in the store.

use crate::support::fixture::{Fixture, texts};
use crate::support::raw::{prefixed, promise};
use crate::support::sender::block_on;
use crate::support::server::MainServer;
use crate::support::wire::PATH;
use echopost::proto::logagent::LogRequest;
use prost::Message;
use tonic::Code;

/// Sends what must be refused, then one good record: that it arrives alone
/// shows that nothing of the rest was stored.
fn nothing_but_the_good_one(calls: impl AsyncFnOnce(&Fixture)) {
    // In standby, so that it does not leave while nothing is stored.
    let fixture = Fixture::standby(MainServer::new_up());
    block_on(calls(&fixture));
    let good = texts(["good"]);
    fixture.store(&good);
    fixture.wait_for(&good[0]);
    assert_eq!(fixture.server.posts().len(), 1);
    assert_eq!(fixture.agent.stderr(), "");
}

#[test]
fn what_is_no_json_value_is_refused_with_its_position_and_not_stored() {
    let deep = "[".repeat(100_000);
    let table = [
        ("", "line 1 column 0"),
        (" \n ", "line 2 column 1"),
        ("{", "line 1 column 1"),
        ("[1,]", "line 1 column 4"),
        ("{\"a\":1,}", "line 1 column 8"),
        ("{a:1}", "line 1 column 2"),
        ("{'a':1}", "line 1 column 2"),
        ("{\"a\" 1}", "line 1 column 6"),
        ("{}{}", "line 1 column 3"),
        ("1 2", "line 1 column 3"),
        ("nul", "line 1 column 3"),
        ("True", "line 1 column 1"),
        ("NaN", "line 1 column 1"),
        ("-Infinity", "line 1 column 2"),
        ("01", "line 1 column 2"),
        ("+1", "line 1 column 1"),
        (".5", "line 1 column 1"),
        ("1.", "line 1 column 2"),
        ("1e", "line 1 column 2"),
        ("0x1F", "line 1 column 2"),
        ("\"a", "line 1 column 2"),
        ("\"a\tb\"", "line 1 column"),
        ("\"\\x41\"", "line 1 column"),
        ("\"\\u12G4\"", "line 1 column"),
        ("// c\n1", "line 1 column 1"),
        ("\u{feff}{}", "line 1 column 1"),
        ("{\"a\":\n\n  oops}", "line 3 column 3"),
        ("\u{0}", "line 1 column 1"),
        (deep.as_str(), "line 1 column 100000"),
    ];
    nothing_but_the_good_one(async |fixture| {
        let sender = fixture.sender();
        for (json, position) in table {
            let status = sender.send(json, &["p"], "").await.expect_err(json);
            assert_eq!(
                status.code(),
                Code::InvalidArgument,
                "{json:.40}: {status:?}"
            );
            let message = status.message();
            assert!(
                message.starts_with("json_data: ") && message.contains(position),
                "{json:.40}: {message}"
            );
        }
    });
}

#[test]
fn broken_calls_are_refused_with_the_status_that_grpc_has_for_them() {
    let good = LogRequest {
        json_data: "{}".into(),
        pipelines: vec!["p".into()],
        api_key: String::new(),
    }
    .encode_to_vec();
    let not_utf8: &[u8] = b"\x0a\x03\"\xff\"";
    let pipeline_not_utf8: &[u8] = b"\x0a\x02{}\x12\x01\xff";
    let wrong_type: &[u8] = b"\x08\x01";
    let cut_field: &[u8] = b"\x0a\x05{}";
    let too_long = prefixed(&good)[..6].to_vec();
    let two_messages = prefixed(&good).repeat(2);
    let huge = promise(u32::MAX as usize);
    let table: Vec<(&str, &str, Vec<u8>, Code)> = vec![
        (
            "unknown method",
            "/logagent.LogAgent/Nope",
            prefixed(&good),
            Code::Unimplemented,
        ),
        (
            "unknown service",
            "/other.Service/SendLog",
            prefixed(&good),
            Code::Unimplemented,
        ),
        (
            "compressed",
            PATH,
            [&[1], &prefixed(&good)[1..]].concat(),
            Code::Unimplemented,
        ),
        ("no body", PATH, Vec::new(), Code::InvalidArgument),
        ("half a prefix", PATH, vec![0, 0, 0], Code::InvalidArgument),
        ("empty message", PATH, prefixed(b""), Code::InvalidArgument),
        ("less than declared", PATH, too_long, Code::InvalidArgument),
        ("two messages", PATH, two_messages, Code::InvalidArgument),
        ("4 GiB declared", PATH, huge, Code::ResourceExhausted),
        (
            "json_data not UTF-8",
            PATH,
            prefixed(not_utf8),
            Code::InvalidArgument,
        ),
        (
            "pipeline not UTF-8",
            PATH,
            prefixed(pipeline_not_utf8),
            Code::InvalidArgument,
        ),
        (
            "wrong field type",
            PATH,
            prefixed(wrong_type),
            Code::InvalidArgument,
        ),
        (
            "cut field",
            PATH,
            prefixed(cut_field),
            Code::InvalidArgument,
        ),
        (
            "no protobuf",
            PATH,
            prefixed(&[0xff; 20]),
            Code::InvalidArgument,
        ),
    ];
    nothing_but_the_good_one(async |fixture| {
        let sender = fixture.sender();
        for (what, path, body, code) in table {
            let status = sender.raw(path, body).await;
            assert_eq!(status.code(), code, "{what}: {status:?}");
            assert!(!status.message().is_empty(), "{what}");
        }
        for key in ["line\nbreak", "return\r", "nul\0", "bell\u{7}", "\u{7f}"] {
            let status = sender.send("{}", &["p"], key).await.expect_err(key);
            assert_eq!(status.code(), Code::InvalidArgument, "{key:?}");
            assert!(status.message().contains("api_key"), "{status:?}");
            assert!(!status.message().contains(key), "{status:?}");
        }
        // The same connection still serves.
        let status = sender.raw("/x", Vec::new()).await;
        assert_eq!(status.code(), Code::Unimplemented);
    });
}
