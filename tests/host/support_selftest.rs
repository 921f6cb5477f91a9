//! Tests of the tests' own tools: a broken one makes every test above it
//! worthless. The main server and the ledger have files of their own.

use crate::support;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::agent::{Agent, names_in};
use support::samples::{self, Generator, Sample};
use support::{temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn samples_are_there_and_generated_records_are_unique_and_numbered() {
    let samples = samples::load();
    assert_eq!(samples.len(), 200);
    let generator = Generator::new();
    for number in [0, 1, 199, 200, 123_456_789] {
        let record = generator.record(number);
        assert_eq!(
            samples::number_of(record.json_data.as_bytes()),
            Some(number)
        );
        assert!((300..=4200).contains(&record.json_data.len()));
        serde_json::from_str::<serde_json::Value>(&record.json_data).expect("JSON");
        assert_eq!(record, generator.record(number));
    }
    assert_eq!(samples::number_of(samples[0].json_data.as_bytes()), None);
    for (what, json) in samples::nasty_json() {
        let mut parser = serde_json::Deserializer::from_str(&json);
        let ignored: Result<serde::de::IgnoredAny, _> =
            serde::Deserialize::deserialize(&mut parser);
        assert!(ignored.and(parser.end()).is_ok(), "{what} is no JSON");
        assert!(json.len() < echopost::limits::MESSAGE_MAX - 100, "{what}");
    }
}

#[test]
fn files_of_records_name_what_is_wrong_with_them() {
    let folder = temp_folder();
    let path = folder.path().join("agent-failure.log");
    let load = |text: &str, key: Option<&str>| {
        std::fs::write(&path, text).expect("write the file");
        samples::load_from(&path, key)
    };
    let line = |own: bool| {
        format!(
            r#"{{"key":1,"received_at":"t","pipelines":["p"],"json_data":"{{\"a\": 1}}","status":422,"answer":"no","idempotency_key":"\"s-1\"","api_key_own":{own}}}"#
        )
    };
    let expected = |api_key: &str| Sample {
        json_data: r#"{"a": 1}"#.to_owned(),
        pipelines: vec!["p".to_owned()],
        api_key: api_key.to_owned(),
        idempotency_key: Some("\"s-1\"".to_owned()),
    };
    assert_eq!(load(&line(false), None), Ok(vec![expected("")]));
    assert_eq!(load(&line(false), Some("k")), Ok(vec![expected("")]));
    assert_eq!(load(&line(true), Some("k")), Ok(vec![expected("k")]));
    for (text, needle) in [
        (
            format!("{}\n{}", line(false), line(true)),
            "line 2: the record came with an API key",
        ),
        ("{}".to_owned(), "line 1: json_data is missing"),
        (
            r#"{"json_data":{}}"#.to_owned(),
            "json_data is {}, not a string",
        ),
        (
            r#"{"json_data":"1","pipelines":"p"}"#.to_owned(),
            "pipelines: ",
        ),
        ("no".to_owned(), "line 1: expected"),
    ] {
        let error = load(&text, None).expect_err(needle);
        assert!(error.contains(needle), "{error}");
        assert!(error.contains("agent-failure.log"), "{error}");
    }
}

/// A shell script in the agent's place; `$1` is the folder.
fn script(text: &str, folder: &Path) -> Agent {
    let mut command = Command::new("sh");
    command.arg("-c").arg(text);
    Agent::from_command(command, folder).spawn()
}

#[test]
fn an_agent_is_watched_to_its_end() {
    let folder = temp_folder();
    let mut agent = script(
        r#"echo '{"event":"agent_started","n":1}'; printf '{"event":"half'; echo oops >&2; until [ -e "$1/go" ]; do sleep 0.01; done; exit 73"#,
        folder.path(),
    );
    let started = agent.wait_event("agent_started", DEADLINE);
    assert_eq!(started["n"], 1);
    wait::until(DEADLINE, "the message", || agent.stderr() == "oops\n");
    assert!(agent.stdout().ends_with("half"));
    assert_eq!(agent.events().len(), 1, "half a line is no event yet");
    assert!(agent.is_running());
    if cfg!(target_os = "linux") {
        let (rss, hwm) = (agent.rss_kib(), agent.hwm_kib());
        assert!(
            rss.is_some_and(|rss| rss > 100 && Some(rss) <= hwm),
            "{rss:?} {hwm:?}"
        );
    }
    std::fs::write(folder.path().join("go"), "").expect("let it go on");
    agent.expect_exit(73, DEADLINE);
    assert!(!agent.is_running());
}

#[test]
fn an_agent_dies_when_told_or_dropped() {
    let folder = temp_folder();
    let mut agent = script("exec sleep 1000", folder.path());
    agent.sigkill();
    assert!(!agent.is_running());
    let agent = script("exec sleep 1000", folder.path());
    let pid = rustix::process::Pid::from_raw(agent.pid().cast_signed()).expect("a pid");
    drop(agent);
    assert_eq!(
        rustix::process::test_kill_process(pid),
        Err(rustix::io::Errno::SRCH)
    );
}

#[test]
#[should_panic(expected = "no socket within")]
fn an_agent_without_a_socket_fails_the_test() {
    let folder = temp_folder();
    script("exit 0", folder.path()).wait_socket();
}

#[test]
fn a_socket_is_told_from_a_file() {
    let folder = temp_folder();
    std::fs::create_dir(folder.path().join("session-2026-11-23T09-00-32Z")).expect("a folder");
    let mut agent = script("exec sleep 1000", folder.path());
    let listener = std::os::unix::net::UnixListener::bind(agent.socket()).expect("bind");
    assert!(agent.wait_socket() < DEADLINE);
    drop(listener);
    assert_eq!(
        names_in(folder.path()),
        ["data-nadhi-agent.sock", "session"]
    );
}

#[test]
#[should_panic(expected = "not within 20ms: the impossible")]
fn waiting_ends_at_its_deadline() {
    wait::until(Duration::from_millis(20), "the impossible", || false);
}
