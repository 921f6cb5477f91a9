//! `@grpc/grpc-js`, which is HTTP/2 by Node.js and gRPC in JavaScript.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clients::keepalive::eager;
use crate::clients::orders::{expect_stored, record, send};
use crate::clients::program::{Program, folder, target};
use crate::clients::tap::{From, Tap};
use crate::support::fixture::{DEADLINE, Fixture};
use crate::support::wait;
use crate::support::wire::{DATA, GOAWAY, PING};

/// The version that the tests were written with.
const GRPC_JS: &str = "1.14.0";

/// `client.js` with these options.
fn client(socket: &Path, options: &Value) -> Program {
    let mut node = Command::new("node");
    node.env("NODE_PATH", modules())
        .arg(format!("{}/client.js", folder("clients")))
        .arg(target(socket))
        .arg(options.to_string());
    Program::start(node)
}

/// Where the package is, installed once for a target folder.
fn modules() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(temporary).expect("the target folder");
    let place = temporary.join(format!("grpc-js-{GRPC_JS}"));
    // Tests run side by side, and so do test executables.
    let guard = File::create(place.with_extension("lock")).expect("the lock file");
    guard.lock().expect("the lock");
    let complete = place.join("complete");
    if !complete.exists() {
        let output = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
            .args(["--no-save", "--prefix"])
            .arg(&place)
            .arg(format!("@grpc/grpc-js@{GRPC_JS}"))
            .output()
            .expect("npm");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "npm: {}\n{said}", output.status);
        File::create(&complete).expect("mark the packages complete");
    }
    place.join("node_modules")
}

#[test]
#[ignore = "needs Node.js and npm"]
fn a_node_client_for_each_record_is_served() {
    let fixture = Fixture::down();
    let mut client = client(&fixture.agent.socket(), &json!({}));
    let records: Vec<String> = (0..30)
        .map(|number| format!("{{\"n\":{number}}}"))
        .collect();
    for json in &records {
        expect_stored(&client.ask(&json!({ "fresh": record(json) })), json);
    }
    client.end();
    assert_eq!(fixture.stored(), records);
}

#[test]
#[ignore = "needs Node.js and npm"]
fn forty_calls_at_once_on_a_fresh_node_client_are_all_answered() {
    let fixture = Fixture::down();
    for bytes in [10, 60_000] {
        let mut client = client(&fixture.agent.socket(), &json!({}));
        let json = format!("\"{}\"", "x".repeat(bytes));
        let told = client.ask(&json!({ "burst": vec![record(&json); 40] }));
        println!("40 calls of {bytes} bytes on a fresh client: {told}");
        assert_eq!(told, json!({ "calls": 40, "failed": [] }));
        client.end();
    }
    assert_eq!(fixture.stored().len(), 80);
}

#[test]
#[ignore = "needs Node.js and npm"]
fn forty_calls_at_once_on_each_of_twenty_fresh_node_clients_are_all_answered() {
    let fixture = Fixture::down();
    let mut client = client(&fixture.agent.socket(), &json!({}));
    for bytes in [10, 30_000] {
        let json = format!("\"{}\"", "x".repeat(bytes));
        let told = client.ask(&json!({ "burst": vec![record(&json); 40], "clients": 20 }));
        let peak = fixture.agent.hwm_kib();
        println!("20 fresh clients x 40 calls of {bytes} bytes: {told:.900}; peak {peak:?} KiB");
        assert_eq!(told, json!({ "calls": 800, "failed": [] }));
    }
    client.end();
    assert_eq!(fixture.stored().len(), 1600);
}

#[test]
#[ignore = "needs Node.js and npm"]
fn forty_calls_that_came_before_sigterm_are_answered_to_node() {
    for bytes in [10, 3_000] {
        let mut fixture = Fixture::down();
        let tap = Tap::new(&fixture.agent.socket());
        let mut client = client(&tap.socket(), &json!({}));
        expect_stored(&client.ask(&send("1")), "before");
        let json = format!("\"{}\"", "x".repeat(bytes));
        fixture.agent.stop();
        client.tell(&json!({ "burst": vec![record(&json); 40] }));
        wait::until(DEADLINE, "41 bodies", || {
            tap.frames(From::Client, DATA) >= 41
        });
        fixture.agent.signal(Signal::TERM);
        fixture.agent.signal(Signal::CONT);
        let told = client.hear();
        println!("40 calls of {bytes} bytes before SIGTERM: {told:.900}");
        assert_eq!(told, json!({ "calls": 40, "failed": [] }));
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.restart();
        let again = json!({ "send": record("2"), "wait": true });
        expect_stored(&client.ask(&again), "afterwards");
        client.end();
        assert_eq!(fixture.stored().len(), 42);
    }
}

#[test]
#[ignore = "needs Node.js and npm"]
fn a_record_of_four_megabytes_comes_whole_from_node() {
    let fixture = Fixture::down();
    let mut client = client(&fixture.agent.socket(), &json!({}));
    let json = format!("\"{}é\"", "0123456789".repeat(400_000));
    expect_stored(&client.ask(&send(&json)), "four megabytes");
    let larger = format!("\"{}\"", "x".repeat(4_194_305));
    let told = client.ask(&send(&larger));
    assert_eq!(told["code"], "RESOURCE_EXHAUSTED", "{told}");
    expect_stored(&client.ask(&send("1")), "after one too large");
    client.end();
    assert!(fixture.stored() == [json.as_str(), "1"], "byte for byte");
}

#[test]
#[ignore = "needs Node.js and npm"]
fn a_node_client_that_pings_while_it_is_idle_is_never_cut() {
    let fixture = Fixture::down();
    let tap = Tap::new(&fixture.agent.socket());
    let mut client = client(&tap.socket(), &eager());
    expect_stored(&client.ask(&send("1")), "before");
    client.ask(&json!({ "idle": 3 }));
    let pings = tap.frames(From::Client, PING);
    expect_stored(&client.ask(&send("2")), "after");
    let (all, pongs) = (tap.frames(From::Client, PING), tap.pongs(From::Agent));
    let states = client.ask(&json!({ "states": null }))["states"].take();
    println!("grpc-js: {pings} pings in 3 s, {all} in all, {pongs} answered; {states}");
    assert_eq!(
        states.as_array().and_then(|states| states.last()),
        Some(&json!("READY"))
    );
    assert_eq!((tap.connections(), tap.frames(From::Agent, GOAWAY)), (1, 0));
    assert!(pings >= 15, "{pings} pings");
    assert!(all - pongs <= 1, "{pongs} of {all} pings are answered");
    client.end();
    assert_eq!(fixture.stored(), ["1", "2"]);
}

#[test]
#[ignore = "needs Node.js and npm"]
fn a_node_client_goes_on_with_the_next_agent() {
    let mut fixture = Fixture::down();
    let mut client = client(&fixture.agent.socket(), &json!({}));
    let waiting = |json: &str| json!({ "send": record(json), "wait": true });
    expect_stored(&client.ask(&send("1")), "first life");
    fixture.stop();
    // To a client that does not wait, it is away.
    let told = client.ask(&send("0"));
    assert_eq!(told["code"], "UNAVAILABLE", "{told}");
    client.tell(&waiting("2"));
    fixture.restart();
    expect_stored(&client.hear(), "between");
    expect_stored(&client.ask(&send("3")), "second life");
    let states = client.ask(&json!({ "states": null }))["states"].take();
    println!("grpc-js over two lives: {states}");
    client.end();
    assert_eq!(fixture.stored(), ["1", "2", "3"]);
}
