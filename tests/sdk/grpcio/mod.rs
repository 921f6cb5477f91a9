//! The agent and gRPC's own C core, through Python's grpcio: what the SDK uses.

use crate::support;
use crate::venv;

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::fixture;
use serde_json::{Value, json};
use support::agent::names_in;
use support::samples::{self, Sample};
use support::server::MainServer;
use support::temp_folder;

/// For an agent to probe, replay 200 records and leave.
const DRAIN: Duration = Duration::from_secs(30);

#[test]
fn the_sdks_records_arrive_once_in_order_and_byte_for_byte() {
    let folder = temp_folder();
    outage(&folder.path().join("d"), |socket| format!("unix:{socket}"));
}

#[test]
fn the_target_with_two_slashes_works_too() {
    let folder = temp_folder();
    outage(&folder.path().join("d"), |socket| {
        format!("unix://{socket}")
    });
}

#[test]
fn a_folder_may_have_spaces_and_letters_beyond_ascii() {
    let folder = temp_folder();
    outage(
        &folder.path().join("журнал & söhne 日誌"),
        |socket| format!("unix:{socket}"),
    );
}

/// All samples are sent while the main server is down; then it comes up.
fn outage(folder: &Path, target: impl Fn(&str) -> String) {
    let samples = samples::load();
    let mut server = MainServer::new_down();
    let mut agent = fixture::start(folder, &server);

    let socket = agent.socket();
    let answers = send(&target(socket.to_str().expect("UTF-8")), &samples);
    let stored = json!({ "success": true, "message": "stored" });
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(answer, &stored, "record {at}");
    }
    assert_eq!(answers.len(), samples.len());
    assert_eq!(server.connections(), 0);

    server.up();
    agent.expect_exit(0, DRAIN);
    expect_deliveries(&server, &samples);
    assert_eq!(names_in(folder), ["session"]);
}

fn expect_deliveries(server: &MainServer, samples: &[Sample]) {
    let delivered = server.delivered();
    assert_eq!(server.posts().len(), delivered.len(), "answered with 2xx");
    let mut keys = HashSet::new();
    for (at, (request, sample)) in delivered.iter().zip(samples).enumerate() {
        let log_data = String::from_utf8_lossy(request.log_data());
        assert_eq!(log_data, sample.json_data, "record {at}");
        assert_eq!(request.pipelines(), sample.pipelines, "record {at}");
        let api_key = request.header("datanadhi-api-key");
        assert_eq!(api_key, Some(sample.api_key.as_str()), "record {at}");
        let key = request.header("idempotency-key").map(str::to_owned);
        assert!(key.is_some() && keys.insert(key), "record {at}");
    }
    assert_eq!(delivered.len(), samples.len());
}

/// Sends the samples with grpcio; returns the answers.
fn send(target: &str, samples: &[Sample]) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/grpcio/sdk.py");
    let mut python = Command::new(venv::python())
        .arg(script)
        .arg(target)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start python");
    let mut stdin = python.stdin.take().expect("a pipe");
    // The answers wait in a pipe meanwhile; 200 of them fit well into 64 KiB.
    for sample in samples {
        let line = json!({
            "json_data": sample.json_data,
            "pipelines": sample.pipelines,
            "api_key": sample.api_key,
        });
        writeln!(stdin, "{line}").expect("hand a record to python");
    }
    drop(stdin);
    let output = python.wait_with_output().expect("wait for python");
    assert!(output.status.success(), "python: {}", output.status);
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}
