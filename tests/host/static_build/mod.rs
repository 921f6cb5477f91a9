//! A static build in an empty root, as PID 1: what a container from `scratch` is.
#![cfg(all(target_os = "linux", feature = "tls"))]

use crate::certs;
use crate::front;
mod root;
use crate::support;

use std::time::{Duration, Instant};

use certs::{Authority, GOOD, Versions};
use front::{Front, Manner};
use root::Root;
use rustix::process::Signal;
use support::agent::names_in;
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::store;

const DEADLINE: Duration = Duration::from_secs(40);
/// 2 s in spec 5.5; the rest is for a machine that stands still.
const GONE: Duration = Duration::from_millis(4500);
/// Known from the root's /etc/hosts alone.
const HOST: &str = "main.echopost.test";

fn send(root: &Root, json: &str) {
    let sender = Sender::reconnecting(&root.base().join("data-nadhi-agent.sock"));
    let answer = block_on(sender.send(json, &[], ""));
    assert!(answer.expect("an answer").success);
}

#[test]
#[ignore = "needs root: a root folder and a PID namespace of its own"]
fn it_keeps_records_through_a_sigterm_and_delivers_them_over_tls_to_a_name() {
    let authority = Authority::new("Test Authority");
    let identity = authority.identity(&[HOST], GOOD);
    let mut server = MainServer::new_down();
    let front = Front::new(
        server.port(),
        Manner::Serve(identity.server(Versions::Both)),
    );
    let root = Root::new();
    root.write("etc/hosts", &format!("127.0.0.1 {HOST}\n"));
    root.write("authority.crt", &authority.pem());
    let start = || {
        let agent = root.agent().health_url(&front.url(HOST));
        agent.env("SSL_CERT_FILE", "/authority.crt").spawn()
    };

    let mut agent = start();
    agent.wait_socket();
    let started = agent.wait_event("agent_started", DEADLINE);
    assert_eq!(started["pid"], 1);
    let records = ["1", "2", "3"];
    for json in records {
        send(&root, json);
    }
    let at = Instant::now();
    Root::signal(&agent, Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    let took = at.elapsed();
    assert!(took < GONE, "{took:?}");
    assert_eq!(names_in(&root.base()), ["lmdb", "session"]);
    assert_eq!(store::records(&root.base()).len(), records.len());

    server.up();
    start().expect_exit(0, DEADLINE);
    assert_eq!(server.delivered_json(), records.map(str::as_bytes));
    let names: Vec<_> = front.handshakes().into_iter().map(|one| one.name).collect();
    assert_eq!(names.last(), Some(&Some(HOST.to_owned())));
    assert_eq!(names_in(&root.base()), ["session", "session"]);
}

#[test]
#[ignore = "needs root: a root folder and a PID namespace of its own"]
fn without_any_certificate_there_the_authorities_built_in_count() {
    let authority = Authority::new("Test Authority");
    let identity = authority.identity(&["127.0.0.1"], GOOD);
    let server = MainServer::new_up();
    let front = Front::new(
        server.port(),
        Manner::Serve(identity.server(Versions::Both)),
    );
    let root = Root::new();
    let agent = root.agent().health_url(&front.url("127.0.0.1")).spawn();
    let event = agent.wait_event("main_unhealthy_accepting_logs", DEADLINE);
    let said = event["error"].as_str().expect("a reason");
    // Without a list it could not say so.
    let unknown = "TLS: invalid peer certificate: UnknownIssuer";
    assert!(said.starts_with(unknown), "{said}");
}
