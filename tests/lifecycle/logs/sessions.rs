//! Which sessions are removed, and when.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::{DEADLINE, RUNNING, names, text};
use crate::support::fixture;
use crate::support::server::MainServer;
use crate::support::{temp_folder, wait};

/// Names that sort before all sessions of today, and so would go first.
#[test]
fn only_old_sessions_with_nothing_but_running_logs_are_removed() {
    let (folder, elsewhere) = (temp_folder(), temp_folder());
    let make = |name: &str, files: &[&str]| {
        let session = folder.path().join(name);
        fs::create_dir(&session).expect("a folder");
        for file in files {
            fs::write(session.join(file), "old").expect("a file");
        }
    };
    let others = [
        "session-of-another-program",
        "session-2019-01-01T00-00-00",
        "session-2019-01-01T00-00-00Z-1",
        "session-2019-01-01T00-00-00Z.kept",
        "session-2019-01-01T00:00:00Z",
    ];
    for other in others {
        make(other, &["agent.log"]);
    }
    make("session-2019-01-02T00-00-00Z", &["agent.log", "notes"]);
    make("session-2019-01-03T00-00-00Z", &["agent.log"]);
    let inner = "session-2019-01-03T00-00-00Z/agent-success.log";
    fs::create_dir(folder.path().join(inner)).expect("a folder named like a log");
    make("session-2019-01-04T00-00-00Z", &["agent-success.log"]);
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, folder.path().join(name)).expect("a link");
    };
    fs::write(elsewhere.path().join("agent.log"), "mine").expect("a file");
    link(
        &elsewhere.path().join("agent.log"),
        "session-2019-01-04T00-00-00Z/agent.log",
    );
    link(elsewhere.path(), "session-2019-01-05T00-00-00Z");
    make("session-2019-01-06T00-00-00Z", &[]);
    fs::write(
        folder
            .path()
            .join("session-2019-01-06T00-00-00Z/agent-failure.log"),
        "",
    )
    .expect("a log without a line");
    // Twelve of one second: the first three of them are old.
    let numbered = |number: u32| match number {
        1 => "session-2019-02-01T00-00-00Z".to_owned(),
        _ => format!("session-2019-02-01T00-00-00Z-{number}"),
    };
    for number in 1..=12 {
        make(&numbered(number), &RUNNING);
    }
    make("session-2019-01-01T00-00-00Z", &RUNNING);
    make("session-2019-01-07T00-00-00Z", &[]);
    let before: HashSet<_> = names(folder.path());
    let server = MainServer::new_down();
    let _agent = fixture::spawn(folder.path(), &server);
    // The newest of those that go is the last.
    let last = folder.path().join(numbered(3));
    wait::until(DEADLINE, "the old ones gone", || !last.exists());
    let after = names(folder.path());
    let mut gone: Vec<&String> = before.difference(&after).collect();
    gone.sort();
    let expected = [
        "session-2019-01-01T00-00-00Z",
        "session-2019-01-07T00-00-00Z",
        &numbered(1),
        &numbered(2),
        &numbered(3),
    ];
    assert_eq!(gone, expected);
    assert_eq!(text(&elsewhere.path().join("agent.log")), "mine");
}
