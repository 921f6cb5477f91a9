//! curl, whose HTTP/2 is nghttp2's: an answer that came while it was still sending
//! would be a stream error to it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::clients::frames::message;
use crate::support::fixture::Fixture;
use crate::support::raw;

const SEND_LOG: &str = "/logagent.LogAgent/SendLog";

/// What curl said about a call.
fn call(fixture: &Fixture, path: &str, more: &[&str], body: &[u8]) -> String {
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--verbose", "--max-time", "60"])
        .args(["--noproxy", "*", "--http2-prior-knowledge", "--unix-socket"])
        .arg(fixture.agent.socket())
        .args(["--header", "content-type: application/grpc"])
        .args(["--header", "te: trailers"])
        .args(more)
        .args([
            "--data-binary",
            "@-",
            "--output",
            "/dev/null",
            "--dump-header",
            "-",
        ])
        .arg(format!("http://localhost{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl");
    let mut stdin = curl.stdin.take().expect("a pipe");
    stdin.write_all(body).expect("hand curl the body");
    drop(stdin);
    let output = curl.wait_with_output().expect("wait for curl");
    let heads = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{heads}\n{said}",
        output.status
    );
    for word in ["RST_STREAM", "was not closed cleanly", "stream error"] {
        assert!(!said.contains(word), "{word}: {said}");
    }
    heads
}

#[test]
#[ignore = "needs curl with HTTP/2"]
fn curl_is_told_of_an_unknown_path_and_of_a_bad_key_without_a_stream_error() {
    let fixture = Fixture::down();
    let record = message("1");
    let long = format!("idempotency-key: {}", "k".repeat(300));
    let bad_key = raw::prefixed(b"\x0a\x011\x1a\x03a\nb");
    let larger = message(&format!("\"{}\"", "x".repeat(15_000)));
    let large = message(&format!("\"{}\"", "x".repeat(60_000)));
    let bad_json = message(&"x".repeat(60_000));
    let compressed = [&[1], &larger[1..]].concat();
    let too_long = vec!["--header", &long];
    let cases = [
        ("a record", SEND_LOG, vec![], &record, "0"),
        ("an unknown path", "/no/such", vec![], &record, "12"),
        ("the same, larger", "/no/such", vec![], &larger, "12"),
        ("a key that is no header", SEND_LOG, vec![], &bad_key, "3"),
        ("a key too long", SEND_LOG, too_long.clone(), &record, "3"),
        ("the same, large", SEND_LOG, too_long, &large, "3"),
        ("bad JSON, large", SEND_LOG, vec![], &bad_json, "3"),
        ("compressed", SEND_LOG, vec![], &compressed, "12"),
        ("a large record", SEND_LOG, vec![], &large, "0"),
    ];
    for (case, path, more, body, status) in cases {
        let heads = call(&fixture, path, &more, body);
        assert!(heads.starts_with("HTTP/2 200"), "{case}: {heads}");
        let line = format!("grpc-status: {status}\r\n");
        assert!(heads.contains(&line), "{case}: {heads}");
    }
    assert_eq!(fixture.stored().len(), 2);
}
