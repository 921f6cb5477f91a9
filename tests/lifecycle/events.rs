//! Events (spec 8) and what they and the files must not tell (spec 7).

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::fixture;
use rustix::process::Signal;
use serde_json::Value;
use support::agent::{Agent, session_file};
use support::sender::{Sender, block_on};
use support::server::{Answer, MainServer};
use support::temp_folder;

const DEADLINE: Duration = Duration::from_secs(20);

fn send_with_key(socket: &Path, json: &str, key: &str) {
    let answer = block_on(Sender::reconnecting(socket).send(json, &["p"], key));
    assert!(answer.expect("an answer").success);
}

/// Every file below `folder`, but not the store's.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true if path.file_name().is_some_and(|name| name == "lmdb") => {}
            true => files.extend(files_below(&path)),
            false if path.is_file() => files.push(path),
            false => {}
        }
    }
    files
}

/// `2006-01-02T15:04:05.000000000Z`, digit by digit.
fn is_time(text: &str) -> bool {
    let shape = "0000-00-00T00:00:00.000000000Z";
    text.len() == shape.len()
        && text
            .bytes()
            .zip(shape.bytes())
            .all(|(is, wanted)| match wanted {
                b'0' => is.is_ascii_digit(),
                other => is == other,
            })
}

#[test]
fn a_life_is_told_from_its_start_to_its_sums() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    server.on_post(|post| match post.body.ends_with(b"\"refused\"}") {
        true => Answer::status(422).body(b"no"),
        false => Answer::ok(),
    });
    let mut agent = fixture::start(folder.path(), &server);
    for json in ["1", "\"refused\"", "2", "\"refused\"", "3"] {
        send_with_key(&agent.socket(), json, "k");
    }
    agent.wait_event("main_unhealthy_accepting_logs", DEADLINE);
    server.up();
    server.wait_delivered(3, DEADLINE);
    agent.expect_exit(0, DEADLINE);

    // `events` has seen that every line is a JSON object.
    let events = agent.events();
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or("").to_owned();
    let mut names: Vec<String> = events.iter().map(|event| text(event, "event")).collect();
    // The second record set aside is told, too, where a second lies between the two.
    names.dedup();
    let mut times: Vec<String> = events.iter().map(|event| text(event, "time")).collect();
    assert!(times.iter().all(|time| is_time(time)), "{times:?}");
    let in_order = times.clone();
    times.sort();
    assert_eq!(times, in_order);
    assert_eq!(
        names,
        [
            "agent_started",
            "main_unhealthy_accepting_logs",
            "main_healthy_not_accepting_logs",
            "record_set_aside",
            "grpc_server_stopping",
            "agent_stopped"
        ]
    );
    let Value::Object(last) = &events[events.len() - 1] else {
        unreachable!("an event is an object");
    };
    let fields: Vec<&str> = last.keys().map(String::as_str).collect();
    let mut wanted = [
        "time",
        "event",
        "reason",
        "buffered",
        "delivered",
        "set_aside",
        "left",
        "seconds",
        "peak_rss_kib",
    ];
    wanted.sort_unstable();
    assert_eq!(fields, wanted);
    assert_eq!(last["reason"], "drained");
    assert_eq!(last["buffered"], 5);
    assert_eq!(last["delivered"], 3);
    assert_eq!(last["set_aside"], 2);
    assert_eq!(last["left"], 0);
    assert!((3..60).contains(&last["seconds"].as_u64().expect("a number")));
    if cfg!(target_os = "linux") {
        assert!((500..100_000).contains(&last["peak_rss_kib"].as_u64().expect("a number")));
    }
    let started = &events[0];
    assert_eq!(started["version"], concat!("v", env!("CARGO_PKG_VERSION")));
    assert_eq!(started["pid"], agent.pid());
    // The log has what was printed, the success log what was delivered.
    assert_eq!(
        session_file(folder.path(), "agent.log"),
        Some(agent.stdout())
    );
    let lines = session_file(folder.path(), "agent-success.log").expect("a log");
    let mut count = 0;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert!(line["first"].as_u64() <= line["last"].as_u64());
        assert!(is_time(line["time"].as_str().expect("a time")));
        count += line["count"].as_u64().expect("a number");
    }
    assert_eq!(count, 3);
    let lines = session_file(folder.path(), "agent-failure.log").expect("a log");
    assert_eq!(lines.lines().count(), 2);
}

/// Keys from everywhere, and a server that repeats them wherever it can.
#[test]
fn a_key_or_password_shows_nowhere() {
    let secrets = ["FlagKey-7151", "EnvKey-9034", "RecordKey-2288", "Pass-6617"];
    for (flag, variable) in [(Some(secrets[0]), secrets[1]), (None, secrets[1])] {
        let folder = temp_folder();
        let server = MainServer::new_up();
        let echo = |status: u16, key: &str| {
            Answer::status(status)
                .header("Location", &format!("http://u:{}@h/?k={key}", "Pass-6617"))
                .body(format!("{{\"key\":\"{key}\",\"again\":\"{key}\"}}").as_bytes())
        };
        let mut tries = 0;
        server.on_post(move |post| {
            let key = post
                .header("datanadhi-api-key")
                .unwrap_or_default()
                .to_owned();
            tries += 1;
            echo([302, 503, 422][tries % 3], &key)
        });
        let url = server.url().replace("://", "://user:Pass-6617@");
        let mut builder = Agent::builder(folder.path())
            .health_url(&url)
            .env("DATANADHI_API_KEY", variable);
        if let Some(key) = flag {
            builder = builder.api_key(key);
        }
        let mut agent = builder.spawn();
        agent.wait_socket();
        send_with_key(&agent.socket(), "1", "");
        send_with_key(&agent.socket(), "2", secrets[2]);
        let keys = || {
            let posts = server.posts();
            let keys = posts.iter().map(|post| post.header("datanadhi-api-key"));
            keys.map(|key| key.unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        // Both were set aside once the agent leaves.
        agent.expect_exit(0, DEADLINE);
        let own = flag.unwrap_or(variable).to_owned();
        assert!(keys().contains(&own) && keys().contains(&secrets[2].to_owned()));
        let lines = session_file(folder.path(), "agent-failure.log").expect("a log");
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.contains("again"), "the answer is kept: {lines}");
        let started = &agent.events()[0];
        let shown = server.url().replace("://", "://***@");
        assert_eq!(started["health_url"], shown);
        let printed = agent.stdout() + &agent.stderr();
        let files = files_below(folder.path());
        assert!(files.len() >= 3, "{files:?}");
        for secret in secrets {
            assert!(!printed.contains(secret), "{secret} in {printed}");
            for file in &files {
                let text = fs::read(file).expect("a file");
                let text = String::from_utf8_lossy(&text);
                assert!(!text.contains(secret), "{secret} in {}", file.display());
            }
        }
    }
}

#[test]
fn a_crash_leaves_no_core() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let mut agent = Agent::by_shell("ulimit -c unlimited; exec \"$0\" \"$@\"", folder.path())
        .health_url(&server.url())
        .spawn();
    agent.wait_socket();
    if cfg!(target_os = "linux") {
        let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).expect("limits");
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let words: Vec<&str> = core.expect("the limit").split_whitespace().collect();
        // One byte: a core pattern that is a pipe heeds no other limit (core(5)).
        assert_eq!(words[4..6], ["1", "1"]);
    }
    agent.signal(Signal::ABORT);
    use std::os::unix::process::ExitStatusExt;
    let status = agent.wait_exit(DEADLINE);
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
}
