//! Logs (spec 2) that an operator moves, removes or truncates while the agent runs:
//! they are at their path again, and no record that was set aside is in no file.

mod sessions;

use crate::support;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::support::fixture;
use rustix::process::Signal;
use serde_json::Value;
use support::agent::{Agent, Builder};
use support::sender::{Sender, block_on};
use support::server::{Answer, MainServer};
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use support::store;
use support::{temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(30);
const RUNNING: [&str; 2] = ["agent.log", "agent-success.log"];
const FAILURE: &str = "agent-failure.log";

/// What an operator does with a log.
#[derive(Clone, Copy, Debug)]
enum Act {
    MoveAway,
    Rename,
    Remove,
    Truncate,
    MoveSession,
    RenameSession,
    RemoveSession,
}

const ACTS: [Act; 7] = [
    Act::MoveAway,
    Act::Rename,
    Act::Remove,
    Act::Truncate,
    Act::MoveSession,
    Act::RenameSession,
    Act::RemoveSession,
];

impl Act {
    /// Does it with `log`; the file that has its content afterwards, where one has.
    fn with(self, log: &Path, elsewhere: &Path) -> Option<PathBuf> {
        let session = log.parent().expect("a session");
        let name = log.file_name().expect("a name");
        let moved = |from: &Path, to: PathBuf| {
            fs::rename(from, &to).expect("move");
            to
        };
        match self {
            Act::MoveAway => Some(moved(log, elsewhere.join(name))),
            Act::Rename => Some(moved(log, log.with_extension("log.1"))),
            Act::MoveSession => Some(moved(session, elsewhere.join("kept")).join(name)),
            Act::RenameSession => Some(moved(session, session.with_extension("old")).join(name)),
            Act::Remove => {
                fs::remove_file(log).expect("remove");
                None
            }
            Act::RemoveSession => {
                fs::remove_dir_all(session).expect("remove");
                None
            }
            Act::Truncate => {
                let file = fs::File::options().write(true).open(log);
                file.expect("open").set_len(0).expect("truncate");
                None
            }
        }
    }
}

/// Refuses what says so.
fn server() -> MainServer {
    let server = MainServer::new_up();
    server.on_post(|post| match post.body.ends_with(b"refused\"}") {
        true => Answer::status(422),
        false => Answer::ok(),
    });
    server
}

/// In standby, so that it does not leave meanwhile.
fn builder(base: &Path, server: &MainServer) -> Builder {
    Agent::builder(base)
        .health_url(&server.url())
        .arg("-standby")
}

fn send(agent: &Agent, text: &str) {
    let json = format!("{text:?}");
    let answer = block_on(Sender::reconnecting(&agent.socket()).send(&json, &["p"], "k"));
    assert!(answer.expect("an answer").success);
}

/// The agent's session, which is the only one at its start.
fn session(base: &Path) -> PathBuf {
    let is_session = |name: &String| name.starts_with("session-");
    let session = || names(base).into_iter().find(is_session);
    base.join(wait::some(DEADLINE, session).expect("a session"))
}

fn text(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// The whole lines, each of which must be an object.
fn lines(text: &str) -> Vec<Value> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
    whole.lines().map(parse).collect()
}

fn records(text: &str) -> Vec<String> {
    let record = |line: Value| line["json_data"].as_str().expect("a record").to_owned();
    lines(text).into_iter().map(record).collect()
}

#[test]
fn a_running_log_is_made_again_at_its_path() {
    std::thread::scope(|scope| {
        for act in ACTS {
            for name in RUNNING {
                scope.spawn(move || made_again(act, name));
            }
        }
    });
}

fn made_again(act: Act, name: &str) {
    let (folder, elsewhere) = (temp_folder(), temp_folder());
    let server = server();
    let mut agent = builder(folder.path(), &server).spawn();
    agent.wait_socket();
    // A line of each log, the first within a second of the last one.
    let say = |agent: &Agent| {
        send(agent, "taken");
        send(agent, "refused");
    };
    say(&agent);
    let log = session(folder.path()).join(name);
    wait::until(DEADLINE, "a line", || !lines(&text(&log)).is_empty());
    let kept = act.with(&log, elsewhere.path());
    wait::until(DEADLINE, "a line at the path", || {
        say(&agent);
        !lines(&text(&log)).is_empty()
    });
    // From here on nothing is written elsewhere.
    let kept_size = kept
        .as_ref()
        .map(|kept| fs::metadata(kept).expect("the log").len());
    let before = lines(&text(&log)).len();
    wait::until(DEADLINE, "more lines", || {
        say(&agent);
        lines(&text(&log)).len() > before
    });
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    if name == "agent.log" {
        let last = lines(&text(&log)).pop().expect("a line");
        assert_eq!(last["event"], "agent_stopped", "{act:?}");
    }
    if let Some(kept) = kept {
        let size = fs::metadata(&kept).expect("the log").len();
        assert_eq!(Some(size), kept_size, "{act:?}");
        assert!(!lines(&text(&kept)).is_empty(), "{act:?}");
    }
}

#[test]
fn a_record_set_aside_goes_to_the_failure_log_at_its_path() {
    for act in ACTS {
        let (folder, elsewhere) = (temp_folder(), temp_folder());
        let server = server();
        let mut agent = builder(folder.path(), &server).spawn();
        agent.wait_socket();
        send(&agent, "first refused");
        agent.wait_event("record_set_aside", DEADLINE);
        let log = session(folder.path()).join(FAILURE);
        assert_eq!(records(&text(&log)), ["\"first refused\""], "{act:?}");
        let kept = act.with(&log, elsewhere.path());
        send(&agent, "second refused");
        wait::until(DEADLINE, "a line at the path", || {
            !lines(&text(&log)).is_empty()
        });
        assert_eq!(records(&text(&log)), ["\"second refused\""], "{act:?}");
        if let Some(kept) = kept {
            assert_eq!(records(&text(&kept)), ["\"first refused\""], "{act:?}");
        }
    }
}

/// What follows a link here would be written where another user wants it.
#[test]
fn a_link_in_place_of_a_log_is_not_followed() {
    let (folder, elsewhere) = (temp_folder(), temp_folder());
    let server = server();
    let mut agent = builder(folder.path(), &server).spawn();
    agent.wait_socket();
    send(&agent, "taken");
    send(&agent, "first refused");
    let session = session(folder.path());
    wait::until(DEADLINE, "lines", || {
        let mut logs = RUNNING.iter().map(|name| session.join(name));
        logs.all(|log| !lines(&text(&log)).is_empty())
    });
    agent.wait_event("record_set_aside", DEADLINE);
    let moved = |name: &str| elsewhere.path().join(name);
    for name in RUNNING {
        fs::remove_file(session.join(name)).expect("remove");
        fs::write(moved(name), "mine").expect("a file");
    }
    fs::rename(session.join(FAILURE), moved(FAILURE)).expect("move");
    for name in RUNNING.iter().chain([&FAILURE]) {
        std::os::unix::fs::symlink(moved(name), session.join(name)).expect("a link");
    }
    send(&agent, "second refused");
    // Two of them are more than a second apart.
    wait::until(DEADLINE, "events", || {
        agent.events_named("set_aside_failed").len() >= 2
    });
    for name in RUNNING {
        assert_eq!(text(&moved(name)), "mine");
    }
    assert_eq!(records(&text(&moved(FAILURE))), ["\"first refused\""]);
    let log = session.join(FAILURE);
    fs::remove_file(&log).expect("remove the link");
    wait::until(DEADLINE, "a line at the path", || {
        records(&text(&log)) == ["\"second refused\""]
    });
}

/// The preloaded library that stops the agent, made once for each test.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn stopping(builder: Builder, part: &str, flushes: &Path) -> Builder {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("logs.so");
    let library = support::preload::compile("tests/lifecycle/logs/shim.c", &library);
    builder
        .preload(&library)
        .env("STOP_AFTER", part)
        .env("FLUSH_LOG", flushes.to_str().expect("UTF-8"))
}

/// The operator reads what was moved and removes it, all while the line is on its way.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_log_that_is_moved_right_after_its_line_was_flushed_is_written_again() {
    for act in ACTS {
        let (folder, elsewhere) = (temp_folder(), temp_folder());
        let flushes = elsewhere.path().join("flushes");
        let server = server();
        let mut agent = stopping(builder(folder.path(), &server), FAILURE, &flushes).spawn();
        agent.wait_socket();
        let session = session(folder.path());
        let log = session.join(FAILURE);
        send(&agent, "refused");
        agent.wait_stopped(DEADLINE);
        act.with(&log, elsewhere.path());
        let before = text(&flushes).len();
        agent.signal(Signal::CONT);
        wait::until(DEADLINE, "a line at the path", || {
            !lines(&text(&log)).is_empty()
        });
        agent.wait_event("record_set_aside", DEADLINE);
        assert_eq!(records(&text(&log)), ["\"refused\""], "{act:?}");
        agent.signal(Signal::TERM);
        agent.expect_exit(0, DEADLINE);

        // On disk with its folders before anything of the store changes.
        let all = text(&flushes);
        let flushed: Vec<&str> = all[before..].lines().collect();
        let is_store = |path: &&str| path.contains("/lmdb");
        let until_delete = flushed.iter().take_while(|path| !is_store(path));
        let until_delete: HashSet<&str> = until_delete.copied().collect();
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        assert!(until_delete.contains(&*path(&log)), "{act:?}: {flushed:?}");
        if !matches!(act, Act::Truncate) {
            assert!(
                until_delete.contains(&*path(&session)),
                "{act:?}: {flushed:?}"
            );
            assert!(
                until_delete.contains(&*path(folder.path())),
                "{act:?}: {flushed:?}"
            );
        }
    }
}

/// An unreadable value goes to a file of its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_damaged_record_is_kept_at_its_path_too() {
    for act in ACTS {
        let (folder, elsewhere) = (temp_folder(), temp_folder());
        store::put_raw(folder.path(), &[(7, b"garbled".to_vec())]);
        let flushes = elsewhere.path().join("flushes");
        let server = server();
        let builder = builder(folder.path(), &server);
        let agent = stopping(builder, "/damaged-7", &flushes).spawn();
        agent.wait_stopped(DEADLINE);
        let session = session(folder.path());
        let damaged = session.join("damaged-7");
        act.with(&damaged, elsewhere.path());
        agent.signal(Signal::CONT);
        agent.wait_event("record_set_aside", DEADLINE);
        assert_eq!(text(&damaged), "garbled", "{act:?}");
        let line = &lines(&text(&session.join(FAILURE)))[0];
        assert_eq!(line["intact"], false, "{act:?}");
    }
}

/// An operator's loop that moves the log away, sends it on and removes it.
#[test]
fn no_record_is_in_no_file_while_the_log_is_moved_again_and_again() {
    const COUNT: usize = 400;
    const MILLISECOND: Duration = Duration::from_millis(1);
    let (folder, elsewhere) = (temp_folder(), temp_folder());
    let mut server = MainServer::new_down();
    // Never many in a row: the agent would doubt the server.
    let is_refused = |number: usize| !number.is_multiple_of(4);
    server.on_post(move |post| match post.body.ends_with(b"refused\"}") {
        true => Answer::status(422),
        false => Answer::ok(),
    });
    let mut agent = fixture::start(folder.path(), &server);
    let name = |number: usize| match is_refused(number) {
        true => format!("{number} refused"),
        false => format!("{number}"),
    };
    for number in 0..COUNT {
        send(&agent, &name(number));
    }
    let log = session(folder.path()).join(FAILURE);
    let moved = elsewhere.path().join("moved");
    let mut found: Vec<String> = Vec::new();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let operator = scope.spawn(|| {
            let mut found = Vec::new();
            let mut moves = 0;
            // Not for ever: on a busy machine it is there whenever the agent writes.
            while !over.load(Relaxed) && moves < 60 {
                if fs::rename(&log, &moved).is_ok() {
                    moves += 1;
                    found.extend(records(&text(&moved)));
                    // What is written to it from here on is lost.
                    std::thread::sleep(2 * MILLISECOND);
                    fs::remove_file(&moved).expect("remove");
                }
                // At another moment of the agent's each time.
                std::thread::sleep(moves % 7 * MILLISECOND);
            }
            println!("{moves} moves");
            assert!(moves > 10, "{moves} moves");
            found
        });
        server.up();
        let ended = wait::within(2 * DEADLINE, || !agent.is_running());
        over.store(true, Relaxed);
        found = operator.join().expect("the operator");
        assert!(ended, "still running");
    });
    agent.expect_exit(0, DEADLINE);
    found.extend(records(&text(&log)));
    println!("{} lines", found.len());
    let found: HashSet<String> = found.into_iter().collect();
    let refused = (0..COUNT).filter(|number| is_refused(*number));
    let missing: Vec<_> = refused
        .map(|number| format!("{:?}", name(number)))
        .filter(|json| !found.contains(json))
        .collect();
    assert!(missing.is_empty(), "in no file: {missing:?}");
    assert_eq!(server.delivered().len(), COUNT / 4);
}

fn names(folder: &Path) -> HashSet<String> {
    let entries = fs::read_dir(folder).expect("the folder").flatten();
    let names = entries.map(|entry| entry.file_name().into_string().expect("UTF-8"));
    names.collect()
}
