//! A key that is no longer valid (spec 6): what an earlier agent left under it goes with
//! the agent's own, and nothing else does.

use std::fs::{read_dir, remove_dir_all};

use rustix::process::Signal;

use crate::support::agent::{Agent, session_file};
use crate::support::fixture::{DEADLINE, Fixture, PIPELINES};
use crate::support::sender::block_on;
use crate::support::server::{Answer, MainServer};

const OLD: &str = "the-old-key";
const OTHER: &str = "another-tenants-key";
const NEW: &str = "the-new-key";

/// A server, down so far, that takes what comes with the new key, and refuses all else.
fn taking_new_alone(status: u16) -> MainServer {
    let server = MainServer::new_down();
    server.on_post(move |message| match message.header("datanadhi-api-key") {
        Some(NEW) => Answer::ok(),
        _ => Answer::status(status).body(b"you sent the-old-key"),
    });
    server
}

fn store(fixture: &Fixture, records: &[(&str, &str)]) {
    let sender = fixture.sender();
    block_on(async {
        for (json, key) in records {
            let stored = sender.send(json, &PIPELINES, key).await;
            assert!(stored.is_ok_and(|answer| answer.success), "{json}");
        }
    });
}

/// An agent, with the new key, for what an earlier one has left.
fn after_an_earlier_agent(server: MainServer, records: &[(&str, &str)]) -> Fixture {
    let mut fixture = Fixture::with(server, |agent| agent.api_key(OLD));
    store(&fixture, records);
    fixture.agent.signal(Signal::TERM);
    fixture.agent.expect_exit(0, DEADLINE);
    // What is read below is the second one's.
    for entry in read_dir(fixture.folder.path()).expect("the folder") {
        let entry = entry.expect("an entry");
        if entry.file_name().to_string_lossy().starts_with("session-") {
            remove_dir_all(entry.path()).expect("remove a session");
        }
    }
    let builder = Agent::builder(fixture.folder.path());
    fixture.agent = builder
        .health_url(&fixture.server.url())
        .api_key(NEW)
        .spawn();
    fixture.agent.wait_answering();
    fixture
}

/// The keys with which a record went out, one after the other, each once.
fn keys_of(fixture: &Fixture, json: &str) -> Vec<String> {
    let tries = fixture.tries_of(json);
    let keys = tries.iter().map(|request| {
        let key = request.header("datanadhi-api-key");
        key.unwrap_or_default().to_owned()
    });
    let mut keys: Vec<_> = keys.collect();
    keys.dedup();
    keys
}

#[test]
fn what_an_earlier_agent_left_goes_with_the_agents_key_and_what_came_since_does_not() {
    let left = [("1", OLD), ("2", OLD), ("3", NEW), ("4", OLD)];
    let mut fixture = after_an_earlier_agent(taking_new_alone(401), &left);
    // Taken in this life, with the same key.
    store(&fixture, &[("5", OLD), ("6", NEW)]);
    fixture.server.up();
    fixture.wait_for("6");
    assert_eq!(keys_of(&fixture, "1"), [OLD, NEW]);
    // Its patience is the first record's.
    let first = fixture.tries_of("1");
    let tried = first[first.len() - 1].at - first[0].at;
    assert!(tried.as_secs() >= 9, "{tried:?}");
    for json in ["2", "3", "4", "6"] {
        assert_eq!(keys_of(&fixture, json), [NEW], "{json}");
        assert_eq!(fixture.tries_of(json).len(), 1, "{json}");
    }
    assert_eq!(keys_of(&fixture, "5"), [OLD]);
    let aside = fixture.set_aside();
    assert_eq!(aside.len(), 1);
    assert_eq!(
        (&aside[0]["json_data"], &aside[0]["status"]),
        (&"5".into(), &401.into())
    );
    let replaced = fixture.agent.events_named("api_key_replaced");
    assert_eq!(replaced.len(), 1);
    for log in ["agent.log", "agent-failure.log"] {
        let text = session_file(fixture.folder.path(), log).expect("a log");
        assert!(!text.contains(OLD) && !text.contains(NEW), "{log}: {text}");
    }
}

#[test]
fn a_403_moves_no_record_to_another_key() {
    let mut fixture = after_an_earlier_agent(taking_new_alone(403), &[("1", OLD), ("2", NEW)]);
    fixture.server.up();
    fixture.wait_for("2");
    assert_eq!(keys_of(&fixture, "1"), [OLD]);
    assert_eq!(fixture.set_aside()[0]["status"], 403);
}

/// Where the agent's key is not taken either, the record is set aside at once.
#[test]
fn a_record_whose_tenant_the_agents_key_is_not_is_set_aside() {
    let server = MainServer::new_down();
    server.on_post(|message| match message.header("datanadhi-api-key") {
        Some(OTHER) => Answer::status(401).body(b"gone"),
        Some(NEW) if message.body.ends_with(b":1}") => {
            Answer::status(404).body(b"not another-tenants-key's")
        }
        _ => Answer::ok(),
    });
    let mut fixture = after_an_earlier_agent(server, &[("1", OTHER), ("2", NEW)]);
    fixture.server.up();
    fixture.wait_for("2");
    assert_eq!(keys_of(&fixture, "1"), [OTHER, NEW]);
    let tries = fixture.tries_of("1");
    let with_new = tries
        .iter()
        .filter(|request| request.header("datanadhi-api-key") == Some(NEW));
    assert_eq!(with_new.count(), 1);
    let aside = fixture.set_aside();
    assert_eq!(
        (&aside[0]["answer"], &aside[0]["status"]),
        (&"not ***'s".into(), &404.into())
    );
}
