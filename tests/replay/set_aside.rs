//! `agent-failure.log`: the whole record, without its API key, and the way back.

use std::collections::HashSet;

use serde_json::Value;

use crate::support::agent::session_file;
use crate::support::fixture;
use crate::support::fixture::{DEADLINE, Fixture, key_of, lines, on_try, texts};
use crate::support::sender::{Sender, block_on};
use crate::support::server::{Answer, MainServer};
use crate::support::{samples, store, temp_folder};
use echopost::proto::store::StoredRecord;
use echopost::store::record;

const OWN: &str = "own-key-0123456789";
const AGENTS: &str = "agents-key-abcdefghij";
const JSON: &str =
    "{\"n\": 1e400, \"t\":\"\\u00e9\u{2028}\\ud800\" , \"n\":12345678901234567890123}";
const KEPT: usize = 2048;

fn fields(line: &Value) -> HashSet<&str> {
    line.as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

#[test]
fn a_record_set_aside_is_logged_whole_and_can_be_sent_again() {
    let server = MainServer::new_up();
    server.on_post(|message| {
        let key = message.header("datanadhi-api-key").unwrap_or_default();
        let answer = format!("no: {key}, I said {key}! \u{e9} {}", "x".repeat(5000));
        Answer::status(422).body(answer.as_bytes())
    });
    // In standby, so that it does not leave before the records come again.
    let fixture = Fixture::with(server, |agent| agent.api_key(AGENTS).arg("-standby"));
    block_on(async {
        let sender = fixture.sender();
        sender
            .send(JSON, &["a", "b\"ü"], OWN)
            .await
            .expect("stored");
        sender.send("\"two\"", &[], "").await.expect("stored");
    });
    fixture.until("two lines", |fixture| fixture.set_aside().len() == 2);

    let posts = fixture.server.posts();
    let aside = fixture.set_aside();
    for (line, post) in aside.iter().zip(&posts) {
        let needed = [
            "key",
            "received_at",
            "pipelines",
            "json_data",
            "status",
            "answer",
            "idempotency_key",
            "api_key_own",
        ];
        let there = fields(line);
        assert!(needed.iter().all(|name| there.contains(name)), "{there:?}");
        assert!(!there.contains("api_key"), "{there:?}");
        assert_eq!(line["idempotency_key"], key_of(post));
        assert!(key_of(post).ends_with(&format!("-{}\"", line["key"])));
        assert_eq!(line["status"], 422);
        let received = line["received_at"].as_str().expect("a time");
        let received = humantime::parse_rfc3339(received).expect("RFC 3339");
        assert!(received.elapsed().is_ok_and(|age| age < DEADLINE));
        let answer = line["answer"].as_str().expect("a text");
        assert!(
            answer.starts_with("no: ***, I said ***! \u{e9} xxx"),
            "{answer:.50}"
        );
        assert!((1900..=KEPT).contains(&answer.len()), "{}", answer.len());
    }
    assert_eq!(aside[0]["json_data"], JSON);
    assert_eq!(aside[0]["pipelines"], serde_json::json!(["a", "b\"ü"]));
    assert_eq!(aside[1]["json_data"], "\"two\"");
    assert_eq!(aside[1]["pipelines"], serde_json::json!([]));
    assert_eq!(
        (&aside[0]["api_key_own"], &aside[1]["api_key_own"]),
        (&true.into(), &false.into())
    );
    no_key_shows(&fixture);
    let events = fixture.agent.events_named("record_set_aside");
    assert_eq!(events[0]["status"], 422);

    // As `client --from agent-failure.log --api-key …` does it.
    fixture.server.on_post(|_| Answer::ok());
    let log = std::fs::read_dir(fixture.folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path().join("agent-failure.log"))
        .find(|path| path.exists())
        .expect("the log");
    assert!(samples::load_from(&log, None).is_err(), "a key is needed");
    let records = samples::load_from(&log, Some(OWN)).expect("a log that can be read");
    let sender = Sender::reconnecting(&fixture.agent.socket());
    block_on(async {
        for record in &records {
            sender.send_sample(record).await.expect("stored");
        }
    });
    fixture.server.wait_delivered(2, DEADLINE);
    for (before, again) in posts.iter().zip(&fixture.server.delivered()) {
        assert_eq!(before.body, again.body);
        assert_eq!(key_of(before), key_of(again));
        let api_key = |post: &crate::support::server::Request| {
            post.header("datanadhi-api-key").map(str::to_owned)
        };
        assert_eq!(api_key(before), api_key(again));
    }
}

/// Such as an agent of another version may have taken.
#[test]
fn a_record_whose_key_no_header_can_hold_is_set_aside() {
    let folder = temp_folder();
    let value = |key: u64, api_key: &str| {
        let record = StoredRecord {
            json_data: "1".into(),
            api_key: api_key.to_owned(),
            ..StoredRecord::default()
        };
        (key, record::encoded(key, &record))
    };
    let values = [value(1, "a\r\nX-Injected: 1"), value(2, "schl\u{fc}ssel")];
    store::put_raw(folder.path(), &values);
    let server = MainServer::new_up();
    let mut agent = fixture::spawn(folder.path(), &server);
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.posts().len(), 1);
    let log = session_file(folder.path(), "agent-failure.log").expect("a log");
    let aside = &lines(&log)[0];
    assert_eq!(
        (&aside["key"], &aside["json_data"]),
        (&1.into(), &"1".into())
    );
    assert_eq!(aside["answer"], "no HTTP header can hold its api_key");
}

fn no_key_shows(fixture: &Fixture) {
    let session = |name: &str| session_file(fixture.folder.path(), name).expect(name);
    for text in [
        session("agent.log"),
        session("agent-failure.log"),
        session("agent-success.log"),
        fixture.agent.stdout(),
        fixture.agent.stderr(),
    ] {
        // Half a key is too much, too.
        for secret in [OWN, AGENTS, "own-key", "agents-key"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn a_key_that_the_answer_quotes_is_masked_wherever_it_stands() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| {
        let before: usize = attempt.record.parse().expect("a number");
        let answer = "x".repeat(before) + AGENTS + "tail";
        Answer::status(400).body(answer.as_bytes())
    });
    let fixture = Fixture::with(server, |builder| builder.api_key(AGENTS));
    // At the start, whole at the end, cut by the end of what is kept, beyond it.
    let places = [0, KEPT - AGENTS.len(), KEPT - 15, KEPT - 10, KEPT];
    fixture.store(&texts(places));
    fixture.until("lines", |fixture| fixture.set_aside().len() == places.len());
    for (line, place) in fixture.set_aside().iter().zip(places) {
        let answer = line["answer"].as_str().expect("a text");
        let kept = "x".repeat(place);
        assert!(answer.starts_with(&kept), "at {place}");
        let masked = ["", "***", "***tail"].map(|rest| kept.clone() + rest);
        assert!(
            masked.iter().any(|expected| answer == expected),
            "at {place}: {answer}"
        );
    }
    no_key_shows(&fixture);
}

#[test]
fn credentials_of_the_url_that_the_answer_quotes_are_masked() {
    let server = MainServer::new_up();
    server.on_post(|message| {
        let sent = message.header("authorization").unwrap_or_default();
        Answer::status(400).body(format!("you sent {sent}").as_bytes())
    });
    let url = server.url().replace("http://", "http://user:s3cr3t@");
    let fixture = Fixture::with(server, |builder| builder.health_url(&url));
    fixture.store(&texts(["one"]));
    fixture.until("a line", |fixture| fixture.set_aside().len() == 1);
    assert_eq!(fixture.set_aside()[0]["answer"], "you sent Basic ***");
}

#[test]
fn a_redirect_that_quotes_the_key_is_shown_without_it() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.number {
        1 => {
            let (before, after) = ("x".repeat(480), "x".repeat(600));
            let location = format!("http://a:b@there/?{before}{AGENTS}&{AGENTS}{after}");
            Answer::status(302).header("Location", &location)
        }
        _ => Answer::ok(),
    });
    let fixture = Fixture::with(server, |builder| builder.api_key(AGENTS));
    fixture.store(&texts(["a"]));
    fixture.wait_for("\"a\"");
    let event = &fixture.agent.events_named("main_redirects")[0];
    let location = event["location"].as_str().expect("a text");
    assert!(location.starts_with("http://***@there/?xxx"), "{location}");
    assert!(location.len() <= 512, "{location}");
    for text in [&fixture.agent.stdout(), location] {
        assert!(
            !text.contains("agents-key") && !text.contains("a:b@"),
            "{text}"
        );
    }
}

#[test]
fn a_probe_that_is_sent_to_a_login_does_not_show_what_its_page_is_told() {
    let server = MainServer::new_up();
    let mut turn = 0;
    server.on_get(move |_| {
        turn += 1;
        let location = format!("http://a:b@login/{AGENTS}/?key={AGENTS}&next=http://c:d@here/");
        match turn {
            1 => Answer::status(302).header("Location", &location),
            _ => Answer::ok(),
        }
    });
    let fixture = Fixture::with(server, |builder| builder.api_key(AGENTS));
    fixture.store(&texts(["a"]));
    fixture.wait_for("\"a\"");
    let event = &fixture.agent.events_named("main_unhealthy_accepting_logs")[0];
    let why = "answered 302 to another server, not followed: http://***@login/***/";
    assert_eq!(event["error"], why);
}
