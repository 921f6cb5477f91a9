//! Requests that gRPC's clients do not send, by Python's h2.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::clients::program::{Program, folder};
use crate::support::fixture::Fixture;
use crate::support::raw;
use crate::venv;

/// `frames.py` on a connection.
pub struct Frames(Program);

impl Frames {
    pub fn new(socket: &Path) -> Frames {
        let mut python = Command::new(venv::python());
        let script = format!("{}/frames.py", folder("clients"));
        python.arg(script).arg(socket);
        Frames(Program::start(python))
    }

    /// Sends one request, and then a well-behaved one; what was seen.
    pub fn request(&mut self, pieces: &[Value]) -> Value {
        self.0.ask(&json!({ "pieces": pieces }))
    }

    /// A request of these headers and one DATA frame.
    pub fn whole(&mut self, headers: &[Value], body: &[u8]) -> Value {
        self.request(&[json!({ "headers": headers }), last_data(body)])
    }

    /// The well-behaved call after a request was answered, over the same connection.
    #[track_caller]
    pub fn expect_next(&self, seen: &Value, case: &str) {
        assert_eq!(seen["next"], "0", "{case}: {seen}");
        assert_eq!(seen["again"], false, "{case}: {seen}");
    }

    pub fn end(self) {
        self.0.end();
    }
}

/// The headers of a well-behaved call.
pub fn headers() -> Vec<Value> {
    headers_of("POST", "/logagent.LogAgent/SendLog")
}

fn headers_of(method: &str, path: &str) -> Vec<Value> {
    vec![
        json!([":method", method]),
        json!([":scheme", "http"]),
        json!([":path", path]),
        json!([":authority", "localhost"]),
        json!(["content-type", "application/grpc"]),
        json!(["te", "trailers"]),
    ]
}

/// A record with its prefix.
pub fn message(json: &str) -> Vec<u8> {
    raw::message(json)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn data(bytes: &[u8]) -> Value {
    json!({ "data": hex(bytes) })
}

fn last_data(bytes: &[u8]) -> Value {
    json!({ "data": hex(bytes), "end": true })
}

fn trailers() -> Value {
    json!({ "headers": [["x-trailer", "1"]], "end": true })
}

#[test]
fn a_call_that_is_not_one_whole_message_is_told_so_and_its_connection_goes_on() {
    let fixture = Fixture::down();
    let mut frames = Frames::new(&fixture.agent.socket());
    let start = json!({ "headers": headers() });
    let whole = message("7");
    let cut = &whole[..whole.len() - 1];
    let many = message(&format!("\"{}\"", "x".repeat(50_000)));
    for (case, rest, said) in [
        (
            "an empty last frame",
            vec![last_data(&[])],
            "the request has no message",
        ),
        (
            "an empty frame twice",
            vec![data(&[]), last_data(&[])],
            "the request has no message",
        ),
        (
            "cut off in its prefix",
            vec![last_data(&whole[..3])],
            "the request has no message",
        ),
        ("only a prefix", vec![last_data(&whole[..5])], "holds 0"),
        ("cut off", vec![last_data(cut)], "declares a message of"),
        (
            "cut off in two frames",
            vec![data(&cut[..4]), last_data(&cut[4..])],
            "declares a message of",
        ),
        (
            "cut off before an empty frame",
            vec![data(cut), last_data(&[])],
            "declares a message of",
        ),
        (
            "a large one cut off",
            vec![data(&many[..16_000]), last_data(&many[16_000..20_000])],
            "holds 19995",
        ),
        (
            "more than declared",
            vec![last_data(&[&whole[..], b"xyz"].concat())],
            "declares a message of",
        ),
        (
            "more in a second frame",
            vec![data(&whole), last_data(b"x")],
            "declares a message of",
        ),
        (
            "two messages",
            vec![last_data(&whole.repeat(2))],
            "declares a message of",
        ),
        (
            "two in a frame each",
            vec![data(&whole), last_data(&whole)],
            "declares a message of",
        ),
        (
            "no protobuf",
            vec![last_data(&raw::prefixed(&[0xff; 9]))],
            "",
        ),
        (
            "nothing before trailers",
            vec![trailers()],
            "the request has no message",
        ),
        (
            "cut off before trailers",
            vec![data(cut), trailers()],
            "declares a message of",
        ),
    ] {
        let pieces = [vec![start.clone()], rest].concat();
        let seen = frames.request(&pieces);
        println!("{case}: {seen}");
        assert_eq!(seen["headers"]["grpc-status"], "3", "{case}: {seen}");
        let message = seen["headers"]["grpc-message"].as_str().expect("a message");
        assert!(
            message.replace("%20", " ").contains(said),
            "{case}: {message}"
        );
        assert!(seen["reset"].is_null(), "{case}: {seen}");
        frames.expect_next(&seen, case);
    }
    let seen = frames.request(&[json!({ "headers": headers(), "end": true })]);
    println!("no body at all: {seen}");
    assert_eq!(seen["headers"]["grpc-status"], "3", "{seen}");
    frames.expect_next(&seen, "no body at all");
    frames.end();
    assert_eq!(fixture.stored(), ["1"; 16]);
}

#[test]
fn a_whole_message_is_taken_however_its_frames_are_cut_and_ended() {
    let fixture = Fixture::down();
    let mut frames = Frames::new(&fixture.agent.socket());
    let start = json!({ "headers": headers() });
    let whole = message("7");
    let bytes = |end: bool| {
        let mut pieces: Vec<_> = whole.iter().map(|byte| data(&[*byte])).collect();
        pieces.extend(end.then(|| last_data(&[])));
        pieces
    };
    let no_authority = json!({ "headers": headers().into_iter().filter(|field| field[0] != ":authority").collect::<Vec<_>>() });
    for (case, start, rest) in [
        ("ended by trailers", &start, vec![data(&whole), trailers()]),
        (
            "ended by an empty frame",
            &start,
            vec![data(&whole), last_data(&[])],
        ),
        (
            "empty frames before",
            &start,
            vec![data(&[]), data(&[]), last_data(&whole)],
        ),
        ("byte by byte", &start, bytes(true)),
        (
            "byte by byte, then trailers",
            &start,
            [bytes(false), vec![trailers()]].concat(),
        ),
        ("without :authority", &no_authority, vec![last_data(&whole)]),
    ] {
        let pieces = [vec![start.clone()], rest].concat();
        let seen = frames.request(&pieces);
        assert_eq!(seen["headers"]["grpc-status"], "0", "{case}: {seen}");
        assert!(seen["reset"].is_null(), "{case}: {seen}");
        frames.expect_next(&seen, case);
    }
    frames.end();
    assert_eq!(fixture.stored(), ["7", "1"].repeat(6));
}

#[test]
fn what_is_no_call_at_all_hurts_no_other() {
    let mut fixture = Fixture::down();
    let mut frames = Frames::new(&fixture.agent.socket());
    let path = "/logagent.LogAgent/SendLog";
    let start = |fields: &[Value]| json!({ "headers": fields });
    let only = |fields: &[Value]| json!({ "headers": fields, "end": true });
    let whole = message("7");
    let connect = [
        json!([":method", "CONNECT"]),
        json!([":authority", "localhost:1"]),
    ];
    let extended = [
        headers_of("CONNECT", path),
        vec![json!([":protocol", "websocket"])],
    ]
    .concat();
    let typed = |content_type: &str| {
        let mut fields = headers();
        fields[4] = json!(["content-type", content_type]);
        fields
    };
    let mut upper = headers();
    upper.push(json!(["X-Upper", "1"]));
    let mut hop = headers();
    hop.push(json!(["connection", "close"]));
    for (case, pieces) in [
        ("CONNECT", vec![start(&connect), last_data(&whole)]),
        ("CONNECT and nothing more", vec![only(&connect)]),
        (
            "CONNECT with a path",
            vec![start(&headers_of("CONNECT", path)), last_data(&whole)],
        ),
        (
            "extended CONNECT",
            vec![start(&extended), last_data(&whole)],
        ),
        ("GET", vec![only(&headers_of("GET", path))]),
        (
            "GET with a record",
            vec![start(&headers_of("GET", path)), last_data(&whole)],
        ),
        ("GET elsewhere", vec![only(&headers_of("GET", "/"))]),
        ("HEAD", vec![only(&headers_of("HEAD", path))]),
        ("OPTIONS of *", vec![only(&headers_of("OPTIONS", "*"))]),
        (
            "an empty path",
            vec![start(&headers_of("POST", "")), last_data(&whole)],
        ),
        (
            "a path without a slash",
            vec![start(&headers_of("POST", "x")), last_data(&whole)],
        ),
        (
            "a query",
            vec![
                start(&headers_of("POST", &format!("{path}?x"))),
                last_data(&whole),
            ],
        ),
        (
            "JSON",
            vec![start(&typed("application/json")), last_data(&whole)],
        ),
        (
            "gRPC-Web",
            vec![start(&typed("application/grpc-web")), last_data(&whole)],
        ),
        ("an upper-case name", vec![start(&upper), last_data(&whole)]),
        ("a header of HTTP/1.1", vec![start(&hop), last_data(&whole)]),
        (
            "reset at once",
            vec![start(&headers()), json!({ "reset": 8 })],
        ),
        (
            "reset in its message",
            vec![start(&headers()), data(&whole[..6]), json!({ "reset": 8 })],
        ),
        (
            "reset when whole",
            vec![start(&headers()), last_data(&whole), json!({ "reset": 8 })],
        ),
    ] {
        let seen = frames.request(&pieces);
        println!("{case}: {seen}");
        assert!(fixture.agent.is_running(), "{case}: {seen}");
        assert!(seen["timeout"].is_null(), "{case} is answered: {seen}");
        assert_eq!(seen["next"], "0", "{case}: {seen}");
    }
    frames.end();
    fixture.stop();
}
