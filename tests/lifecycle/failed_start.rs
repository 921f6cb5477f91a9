//! Exit 73 leaves its reason in a session's log (spec 1): the SDK throws stderr away.

use crate::support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::fixture;
use serde_json::Value;
use support::agent::{Agent, Builder, names_in};
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::temp_folder;

const DEADLINE: Duration = Duration::from_secs(20);
/// How the last line of such an agent ends.
const FAILED: &str = "{\"event\":\"agent_stopped\",\"exit_code\":73}\n";

/// The session folders, oldest first.
fn sessions(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder").flatten();
    let mut sessions: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            name.starts_with("session-")
        })
        .collect();
    sessions.sort();
    sessions
}

/// The events named `agent_stopped` in a session's log.
fn endings(session: &Path) -> Vec<Value> {
    let log = fs::read_to_string(session.join("agent.log")).expect("agent.log");
    let events = log
        .lines()
        .map(|line| serde_json::from_str(line).expect(line));
    events
        .filter(|event: &Value| event["event"] == "agent_stopped")
        .collect()
}

/// An agent that may have so many descriptors open.
fn with_descriptors(count: u32, folder: &Path) -> Builder {
    let script = format!("ulimit -n {count} && exec \"$0\" \"$@\"");
    Agent::by_shell(&script, folder).health_url("http://127.0.0.1:1")
}

/// One that may have too few to serve: it has the lock and fails.
fn too_few_descriptors(folder: &Path) -> Builder {
    with_descriptors(20, folder)
}

fn plain(folder: &Path) -> Builder {
    Agent::builder(folder).health_url("http://127.0.0.1:1")
}

/// Fails with 73; returns the reason.
fn fail(builder: Builder) -> String {
    let mut agent = builder.spawn();
    agent.expect_exit(73, DEADLINE);
    let last = agent.events().pop().expect("events");
    assert_eq!(last["event"], "agent_stopped");
    let reason = last["reason"].as_str().expect("a reason").to_owned();
    assert_eq!(agent.stderr(), format!("echopost: {reason}\n"));
    reason
}

/// A life from an outage to the end.
fn live(folder: &Path) {
    let mut server = MainServer::new_down();
    let mut agent = fixture::start(folder, &server);
    let stored = block_on(Sender::reconnecting(&agent.socket()).send("1", &["p"], "k"));
    assert!(stored.expect("stored").success);
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(agent.events().pop().expect("events").get("exit_code"), None);
}

#[test]
fn one_failure_after_another_adds_its_reason_to_one_session() {
    let folder = temp_folder();
    let base = folder.path();
    let mut reasons = Vec::new();
    // Before there is a life, with the lock and without.
    reasons.push(fail(with_descriptors(8, base)));
    assert!(reasons[0].contains("open files is too low"));
    reasons.push(fail(too_few_descriptors(base)));
    assert!(reasons[1].contains("open files is too low"));
    let lock = File::open(base).expect("the folder");
    lock.lock().expect("lock");
    reasons.push(fail(plain(base)));
    assert!(reasons[2].contains("is locked by another process"));
    drop(lock);
    let socket = base.join("data-nadhi-agent.sock");
    let listener = UnixListener::bind(&socket).expect("bind");
    reasons.push(fail(plain(base)));
    assert!(reasons[3].contains("another program listens there"));
    drop(listener);
    // And in the midst of one.
    let store = base.join("lmdb");
    for _ in 0..2 {
        symlink("/nonexistent", &store).expect("a link");
        reasons.push(fail(plain(base)));
        assert!(reasons.last().expect("a reason").contains("is a link"));
        fs::remove_file(&store).expect("the link");
    }
    reasons.push(fail(too_few_descriptors(base)));

    assert_eq!(names_in(base), ["session"]);
    let session = &sessions(base)[0];
    let lines = endings(session);
    let logged: Vec<_> = lines.iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(logged, reasons);
    for line in lines {
        assert_eq!(line["exit_code"], 73);
        let counts = ["buffered", "delivered", "set_aside"];
        assert!(counts.iter().all(|name| line[name] == 0), "{line}");
        assert_eq!(line["left"], Value::Null);
        assert!(line["seconds"].is_u64() && line["peak_rss_kib"].is_u64());
    }
    assert_eq!(names_in(session), ["agent.log"]);
}

#[test]
fn a_failure_in_a_life_has_that_lifes_session_and_the_next_adds_to_it() {
    let folder = temp_folder();
    symlink("/nonexistent", folder.path().join("lmdb")).expect("a link");
    let mut reasons = vec![fail(plain(folder.path()))];
    let first = sessions(folder.path());
    for _ in 0..2 {
        reasons.push(fail(plain(folder.path())));
        reasons.push(fail(too_few_descriptors(folder.path())));
    }
    assert_eq!(sessions(folder.path()), first);
    let logged = endings(&first[0]);
    let logged: Vec<_> = logged.iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(logged, reasons);
    let log = fs::read_to_string(first[0].join("agent.log")).expect("agent.log");
    assert!(log.starts_with("{\"time\":") && log.contains("\"agent_started\""));
}

#[test]
fn failures_push_no_session_out_and_a_life_between_them_separates_them() {
    let folder = temp_folder();
    let base = folder.path();
    for day in 1..=10 {
        let session = base.join(format!("session-2020-01-{day:02}T00-00-00Z"));
        fs::create_dir(&session).expect("a session");
        fs::write(session.join("agent.log"), "{}\n").expect("a log");
    }
    let old = sessions(base);
    let lock = File::open(base).expect("the folder");
    lock.lock().expect("lock");
    fail(plain(base));
    drop(lock);
    symlink("/nonexistent", base.join("lmdb")).expect("a link");
    for _ in 0..3 {
        fail(too_few_descriptors(base));
        fail(plain(base));
    }
    fs::remove_file(base.join("lmdb")).expect("the link");
    let after = sessions(base);
    assert_eq!(after[..10], old);
    assert_eq!(after.len(), 11);
    // With a store, the old ones go as always.
    live(base);
    let after = sessions(base);
    assert_eq!(after.len(), 10);
    assert_eq!(after[..8], old[2..]);
    fail(too_few_descriptors(base));
    fail(too_few_descriptors(base));
    let after = sessions(base);
    assert_eq!(after.len(), 11);
    assert_eq!(endings(&after[8]).len(), 7);
    assert_eq!(endings(&after[10]).len(), 2);
}

/// What looks like the session of a failure, and is not one to write into.
#[test]
fn a_failure_writes_into_no_session_that_is_not_a_failures_own() {
    let name = "session-2020-01-01T00-00-00Z";
    type Make = fn(&Path, &Path);
    let cases: [(&str, Make); 7] = [
        ("a life's", |session, _| {
            fs::write(session.join("agent.log"), "{\"exit_code\":73}\n{}\n").expect("write");
        }),
        ("one cut short", |session, _| {
            fs::write(session.join("agent.log"), FAILED.trim_end()).expect("write");
        }),
        ("one that delivered", |session, _| {
            fs::write(session.join("agent.log"), FAILED).expect("write");
            fs::write(session.join("agent-success.log"), "{}\n").expect("write");
        }),
        ("one with a record set aside", |session, _| {
            fs::write(session.join("agent.log"), FAILED).expect("write");
            fs::write(session.join("agent-failure.log"), "{}\n").expect("write");
        }),
        ("one whose log is a link", |session, elsewhere| {
            fs::write(elsewhere.join("agent.log"), FAILED).expect("write");
            symlink(elsewhere.join("agent.log"), session.join("agent.log")).expect("a link");
        }),
        ("a link", |session, elsewhere| {
            fs::write(elsewhere.join("agent.log"), FAILED).expect("write");
            fs::remove_dir(session).expect("the session");
            symlink(elsewhere, session).expect("a link");
        }),
        ("an empty one", |_, _| {}),
    ];
    for (what, make) in cases {
        let (folder, elsewhere) = (temp_folder(), temp_folder());
        let session = folder.path().join(name);
        fs::create_dir(&session).expect("a session");
        make(&session, elsewhere.path());
        let before = fs::read(session.join("agent.log")).unwrap_or_default();
        fail(too_few_descriptors(folder.path()));
        let after = fs::read(session.join("agent.log")).unwrap_or_default();
        assert_eq!(after, before, "{what}");
        let sessions = sessions(folder.path());
        assert_eq!(sessions.len(), 2, "{what}");
        assert_eq!(endings(&sessions[1]).len(), 1, "{what}");
    }
    // The same with none of it.
    let folder = temp_folder();
    let session = folder.path().join(name);
    fs::create_dir(&session).expect("a session");
    fs::write(session.join("agent.log"), FAILED).expect("write");
    fs::write(session.join("agent-success.log"), "").expect("write");
    fail(too_few_descriptors(folder.path()));
    assert_eq!(sessions(folder.path()), [session]);
}

#[test]
fn sessions_of_a_clock_that_was_ahead_do_not_count() {
    let folder = temp_folder();
    let ahead = folder.path().join("session-2999-01-01T00-00-00Z");
    fs::create_dir(&ahead).expect("a session");
    fail(too_few_descriptors(folder.path()));
    fail(too_few_descriptors(folder.path()));
    let sessions = sessions(folder.path());
    assert_eq!(sessions.len(), 2);
    assert_eq!(endings(&sessions[0]).len(), 2);
}

/// A long life's own log is worth keeping.
#[test]
fn a_life_that_had_a_store_keeps_its_session() {
    let folder = temp_folder();
    let before = folder.path().join("session-2020-01-01T00-00-00Z");
    fs::create_dir(&before).expect("a session");
    fs::write(before.join("agent.log"), FAILED).expect("write");
    let server = MainServer::new_down();
    let mut agent = Agent::builder(folder.path())
        .health_url(&server.url())
        .arg("-standby")
        .spawn();
    agent.wait_event("standby", DEADLINE);
    symlink("/nonexistent", folder.path().join("lmdb")).expect("a link");
    let sent = block_on(Sender::reconnecting(&agent.socket()).send("1", &[], ""));
    assert!(sent.is_err(), "acknowledged without a store");
    agent.expect_exit(73, DEADLINE);
    let sessions = sessions(folder.path());
    assert_eq!(sessions.len(), 2);
    assert_eq!(endings(&sessions[0]).len(), 1);
    let own = endings(&sessions[1]);
    assert!(
        own[0]["reason"]
            .as_str()
            .expect("text")
            .contains("is a link")
    );
    assert_eq!(own[0]["exit_code"], 73);
}

#[test]
#[cfg(target_os = "linux")] // /proc
fn nothing_is_written_into_a_folder_that_took_the_place_of_its_own() {
    use support::wait;

    let parent = temp_folder();
    let (base, moved) = (parent.path().join("base"), parent.path().join("moved"));
    fs::create_dir(&base).expect("the folder");
    let lock = File::open(&base).expect("the folder");
    lock.lock().expect("lock");
    let mut agent = plain(&base).spawn();
    let descriptors = format!("/proc/{}/fd", agent.pid());
    wait::until(DEADLINE, "the folder is open", || {
        let open = fs::read_dir(&descriptors).expect("its descriptors");
        open.flatten()
            .any(|entry| fs::read_link(entry.path()).is_ok_and(|path| path == base))
    });
    fs::rename(&base, &moved).expect("rename");
    fs::create_dir(&base).expect("another folder");
    agent.expect_exit(73, DEADLINE);
    assert_eq!(agent.events_named("agent_stopped")[0]["exit_code"], 73);
    assert_eq!(names_in(&base), Vec::<String>::new());
    assert_eq!(names_in(&moved), Vec::<String>::new());
}
