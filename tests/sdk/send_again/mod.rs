//! The way back for records that were set aside (spec 6): `client --from`, and
//! `resend.py`, between a real agent and a real server.

mod mistakes;
mod programs;
use crate::support;
use crate::venv;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use programs::{Program, Said};
use serde_json::{Value, json};
use support::agent::Agent;
use support::sender::{Sender, block_on};
use support::server::{Answer, MainServer, Request};
use support::temp_folder;

/// For a patience of some seconds, and for an agent to drain and leave.
const DEADLINE: Duration = Duration::from_secs(60);
const OWN_KEY: &str = "own-key";
const AGENTS_KEY: &str = "agents-key";

fn agent(folder: &Path, server: &MainServer) -> Agent {
    let builder = Agent::builder(folder).health_url(&server.url());
    let mut agent = builder.api_key(AGENTS_KEY).spawn();
    agent.wait_socket();
    agent
}

/// What has to be the same when a record comes again.
fn identity(request: &Arc<Request>) -> (Option<String>, Option<String>, Vec<u8>) {
    let header = |name| request.header(name).map(str::to_owned);
    let (key, api_key) = (header("idempotency-key"), header("datanadhi-api-key"));
    assert!(key.is_some() && api_key.is_some());
    (key, api_key, request.body.clone())
}

/// A record is delivered, the server turns to 401 and 422, the agent sets three
/// records aside and leaves; then the server is mended.
fn outage(folder: &Path) -> (MainServer, PathBuf) {
    let server = MainServer::new_up();
    server.on_post(|message| {
        let has = |text: &str| String::from_utf8_lossy(&message.body).contains(text);
        match () {
            () if has("good") => Answer::ok(),
            () if has("locked") => Answer::status(401),
            () => Answer::status(422),
        }
    });
    let mut agent = agent(folder, &server);
    let sender = Sender::keeping(&agent.socket());
    for (json, key) in [
        (r#""good""#, ""),
        (r#"{"locked": 1e400}"#, ""),
        (r#""own""#, OWN_KEY),
        (r#""last""#, ""),
    ] {
        let answer = block_on(sender.send(json, &["p", "q"], key));
        assert!(answer.is_ok_and(|answer| answer.success), "{json}");
    }
    agent.expect_exit(0, DEADLINE);
    assert_eq!(agent.events_named("record_set_aside")[0]["status"], 401);
    assert_eq!(agent.events_named("agent_stopped")[0]["set_aside"], 3);
    let log = failure_log(folder);
    let statuses: Vec<Value> = fs::read_to_string(&log)
        .expect("the log")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["status"].clone())
        .collect();
    assert_eq!(statuses, [401, 422, 422]);
    server.on_post(|_| Answer::ok());
    (server, log)
}

fn failure_log(folder: &Path) -> PathBuf {
    fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path().join("agent-failure.log"))
        .find(|path| path.exists())
        .expect("a failure log")
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// From the first 401 to all delivered, twice over.
fn way_back(program: Program) {
    let folder = temp_folder();
    let (server, log) = outage(folder.path());
    let before = fs::read(&log).expect("the log");
    let failed: Vec<_> = server
        .posts()
        .iter()
        .filter(|post| post.status != Some(200))
        .map(identity)
        .collect();
    // The one in doubt was tried several times, each time as the same.
    let mut first = failed.clone();
    first.dedup();
    assert_eq!(first.len(), 3);

    for time in 1..=2 {
        let delivered = server.delivered().len();
        // Healthy once both have run, so that the agent stays for them.
        server.set_health(503);
        let mut agent = agent(folder.path(), &server);
        let said = program.run(folder.path(), &[&log], None);
        assert!(
            said.code != 0 && said.all.contains("1 of 3 records"),
            "{said:?}"
        );
        let said = program.run(folder.path(), &[&log], Some(OWN_KEY));
        assert_eq!(said.code, 0, "{said:?}");
        server.set_health(200);
        agent.expect_exit(0, DEADLINE);
        let again: Vec<_> = server.delivered()[delivered..]
            .iter()
            .map(identity)
            .collect();
        assert_eq!(again, first, "time {time}");
        assert_eq!(fs::read(&log).expect("the log"), before);
        assert!(!beside(&log, ".failed").exists(), "nothing failed");
    }
    assert_eq!(first[0].1.as_deref(), Some(AGENTS_KEY));
    assert_eq!(first[1].1.as_deref(), Some(OWN_KEY));
}

#[test]
fn the_client_delivers_what_was_set_aside() {
    way_back(Program::Client);
}

#[test]
fn the_script_delivers_what_was_set_aside() {
    way_back(Program::Script(venv::python()));
}

fn line(json: &str, number: u32) -> String {
    let line = json!({
        "key": number, "pipelines": ["p"], "json_data": json, "status": 401,
        "idempotency_key": format!("\"s-{number}\""), "api_key_own": false, "intact": true,
    });
    format!("{line}\n")
}

/// A log in which only some lines can be sent; returns those that cannot.
fn mixed_log(path: &Path) -> Vec<u8> {
    let damaged = line("{}", 3).replace("\"intact\":true", "\"intact\":false");
    let spaced = "  {\"json_data\": \"{not\\u0020json\",  \"pipelines\": [], \
                  \"idempotency_key\": \"\\\"s-4\\\"\", \"api_key_own\": false, \"intact\": true}\r\n";
    let unquoted = line("{}", 7).replace(r#""{}""#, "{}");
    let cut = &line("\"cut\"", 6)[..70];
    let mut bytes = Vec::new();
    let mut bad = Vec::new();
    for (part, is_good) in [
        (line("\"one\"", 1).as_bytes(), true),
        (b"\xff garbled {\n", false),
        (damaged.as_bytes(), false),
        (spaced.as_bytes(), false),
        (unquoted.as_bytes(), false),
        (line("\"five\"", 5).as_bytes(), true),
        (cut.as_bytes(), false),
    ] {
        bytes.extend_from_slice(part);
        if !is_good {
            bad.extend_from_slice(part);
        }
    }
    fs::write(path, bytes).expect("write the log");
    bad
}

/// What cannot be sent is kept; the rest is delivered.
fn keeps_the_rest(program: Program) {
    let folder = temp_folder();
    let log = folder.path().join("agent-failure.log");
    let bad = mixed_log(&log);
    let before = fs::read(&log).expect("the log");
    let server = MainServer::new_up();
    // Healthy once all have run, so that the agent stays for them.
    server.set_health(503);
    let mut running = agent(folder.path(), &server);
    let said = program.run(folder.path(), &[&log], None);
    assert_eq!(said.code, 1, "{said:?}");
    for told in ["INVALID_ARGUMENT", "not intact", "cut off"] {
        assert!(said.all.contains(told), "{told}: {said:?}");
    }
    let kept = beside(&log, ".failed");
    assert_eq!(fs::read(&kept).expect("the kept lines"), bad);
    let mode = fs::metadata(&kept).expect("its mode").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read(&log).expect("the log"), before);

    // A second time nothing is overwritten, and nothing is sent.
    let said = program.run(folder.path(), &[&log], None);
    assert!(said.code != 0 && said.all.contains(".failed"), "{said:?}");
    assert_eq!(fs::read(&kept).expect("the kept lines"), bad);

    // Mended, the kept file is a file like the first one.
    let mended = bad.replace(b"{not\\u0020json", b"{}");
    fs::write(&kept, mended).expect("mend the line");
    let said = program.run(folder.path(), &[&kept], None);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(!said.all.contains("INVALID_ARGUMENT"), "{said:?}");
    let left = fs::read(beside(&kept, ".failed")).expect("what is left");
    assert!(left.len() < bad.len() && left.starts_with(b"\xff garbled"));

    server.set_health(200);
    running.expect_exit(0, DEADLINE);
    let keys: Vec<_> = server
        .delivered()
        .iter()
        .map(|post| identity(post).0.unwrap_or_default())
        .collect();
    assert_eq!(keys, ["\"s-1\"", "\"s-5\"", "\"s-4\""]);
}

trait Replace {
    fn replace(&self, from: &[u8], to: &[u8]) -> Vec<u8>;
}

impl Replace for Vec<u8> {
    fn replace(&self, from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = self.windows(from.len()).position(|part| part == from);
        let at = at.expect("there");
        [&self[..at], to, &self[at + from.len()..]].concat()
    }
}

#[test]
fn the_client_keeps_what_failed_again() {
    keeps_the_rest(Program::Client);
}

#[test]
fn the_script_keeps_what_failed_again() {
    keeps_the_rest(Program::Script(venv::python()));
}

/// grpcio takes its target for a URI, and a `,` for the end of an address.
#[test]
fn the_script_serves_a_folder_whose_path_no_target_could_name() {
    let parent = temp_folder();
    let folder = parent.path().join("a,b#c?d%25");
    fs::create_dir(&folder).expect("a folder");
    let server = MainServer::new_down();
    let _agent = agent(&folder, &server);
    let said = Program::Script(venv::python()).run(&folder, &[&three_lines(&folder)], None);
    assert!(said.all.contains("3 stored, 0 failed"), "{said:?}");
}

fn three_lines(folder: &Path) -> PathBuf {
    let log = folder.join("agent-failure.log");
    let lines = [line("1", 1), line("2", 2), line("3", 3)].concat();
    fs::write(&log, lines).expect("write the log");
    log
}

/// Runs the client on a log of three good lines, with more flags.
fn client(folder: &Path, more: &[&str]) -> (PathBuf, Said) {
    let log = three_lines(folder);
    let mut arguments = vec![log.as_path()];
    arguments.extend(more.iter().map(Path::new));
    let said = Program::Client.run(folder, &arguments, None);
    (log, said)
}

#[test]
fn without_an_agent_nothing_is_sent_or_written() {
    for (program, code) in [(Program::Client, 64), (Program::Script(venv::python()), 1)] {
        let folder = temp_folder();
        let log = three_lines(folder.path());
        let said = program.run(folder.path(), &[&log], None);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.all.contains("no agent answers"), "{said:?}");
        assert!(!beside(&log, ".failed").exists());
    }
}

#[test]
fn what_was_left_out_is_kept_too_wherever_it_is_to_go() {
    let folder = temp_folder();
    let server = MainServer::new_up();
    server.set_health(503);
    let mut agent = agent(folder.path(), &server);
    let kept = folder.path().join("rest");
    let more = ["--count", "1", "--keep", kept.to_str().expect("UTF-8")];
    let (log, said) = client(folder.path(), &more);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(
        fs::read_to_string(&kept).expect("the rest"),
        [line("2", 2), line("3", 3)].concat()
    );
    assert!(!beside(&log, ".failed").exists());

    // Neither the file itself nor a folder that is not there.
    for (keep, told) in [
        (log.to_str().expect("UTF-8"), "is there already"),
        ("/nowhere/at/all", "no such folder"),
    ] {
        let (log, said) = client(folder.path(), &["--keep", keep]);
        assert_eq!(said.code, 64, "{said:?}");
        assert!(said.all.contains(told), "{said:?}");
        assert_eq!(
            fs::read_to_string(&log).expect("the log").lines().count(),
            3
        );
    }
    server.set_health(200);
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.posts().len(), 1);
}

#[test]
fn a_file_that_cannot_be_written_whole_is_not_left_half() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let _agent = agent(folder.path(), &server);
    let log = folder.path().join("agent-failure.log");
    let lines = line(&"x".repeat(3000), 1);
    fs::write(&log, &lines).expect("write the log");
    let said = Program::Client.run_with_small_files(folder.path(), &log);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.all.contains("send the whole of"), "{said:?}");
    assert!(!beside(&log, ".failed").exists());
    assert_eq!(fs::read_to_string(&log).expect("the log"), lines);
}
