//! Root in another user's folder becomes that user (spec 1): an operator that helps at
//! night leaves nothing behind that the application cannot use.
#![cfg(target_os = "linux")]

use crate::support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::fixture;
use rustix::process::Signal;
use support::agent::{Agent, names_in};
use support::server::MainServer;
use support::{temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(20);
/// The folder's user and group, neither root nor the tester.
const OWNER: u32 = 54_321;
const GROUP: u32 = 54_322;

/// A temporary folder that every user reaches, and in it one of the owner's.
fn owners_folder() -> (tempfile::TempDir, PathBuf) {
    let parent = temp_folder();
    fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).expect("chmod");
    let base = parent.path().join("base");
    fs::create_dir(&base).expect("a folder");
    fs::set_permissions(&base, Permissions::from_mode(0o700)).expect("chmod");
    chown(&base, Some(OWNER), Some(GROUP)).expect("chown");
    (parent, base)
}

fn start(base: &Path, server: &MainServer) -> Agent {
    let agent = fixture::spawn(base, server);
    // Not for its socket: a killed one's may be there.
    agent.wait_event("agent_started", DEADLINE);
    agent
}

/// The values of a line of `/proc/<pid>/status`.
fn status(agent: &Agent, name: &str) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let values = line.expect("the line").split_ascii_whitespace();
    values
        .map(|value| value.parse().expect("a number"))
        .collect()
}

fn is_owners_agent(agent: &Agent) {
    assert_eq!(status(agent, "Uid:"), [OWNER; 4]);
    assert_eq!(status(agent, "Gid:"), [GROUP; 4]);
    assert_eq!(status(agent, "Groups:"), [GROUP]);
}

/// Everything below `folder` is the owner's.
fn is_owners(folder: &Path) {
    let found = fs::symlink_metadata(folder).expect("a file");
    assert_eq!(
        (found.uid(), found.gid()),
        (OWNER, GROUP),
        "{}",
        folder.display()
    );
    if found.is_dir() {
        for entry in fs::read_dir(folder).expect("a folder") {
            is_owners(&entry.expect("an entry").path());
        }
    }
}

/// The application's own process connects.
fn owner_connects(socket: &Path) {
    let script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let connected = Command::new("setpriv")
        .args([format!("--reuid={OWNER}"), format!("--regid={GROUP}")])
        .args(["--clear-groups", "/usr/bin/env", "python3", "-c", script])
        .arg(socket)
        .current_dir("/")
        .status();
    assert!(connected.expect("setpriv").success());
}

#[test]
#[ignore = "needs root: it becomes another user"]
fn root_becomes_the_user_of_the_folder() {
    let (_parent, base) = owners_folder();
    let mut server = MainServer::new_down();
    let mut agent = start(&base, &server);
    is_owners_agent(&agent);
    let socket = fs::symlink_metadata(agent.socket()).expect("the name");
    assert!(
        socket.file_type().is_socket(),
        "a client could not follow a link"
    );
    owner_connects(&agent.socket());
    agent.send("1");
    is_owners(&base);
    // What is left, the next one takes, again as root's.
    agent.sigkill();
    let mut agent = start(&base, &server);
    is_owners_agent(&agent);
    agent.wait_event("main_unhealthy_accepting_logs", DEADLINE);
    is_owners(&base);
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered_json(), [b"1"]);
    assert_eq!(names_in(&base), ["session", "session"]);
    is_owners(&base);
}

#[test]
#[ignore = "needs root: it becomes another user"]
fn a_folder_still_to_be_made_is_its_nearest_parents_users() {
    let (_parent, app) = owners_folder();
    let server = MainServer::new_down();
    let base = app.join("not/there/yet");
    let agent = start(&base, &server);
    is_owners_agent(&agent);
    owner_connects(&agent.socket());
    agent.send("1");
    is_owners(&app);
    assert_eq!(
        fs::metadata(&base).expect("the folder").mode() & 0o7777,
        0o700
    );
}

/// An agent of root's was killed in a folder that was root's then.
#[test]
#[ignore = "needs root: it becomes another user"]
fn what_an_agent_of_roots_left_is_the_users() {
    let parent = temp_folder();
    fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).expect("chmod");
    let base = parent.path().join("base");
    let mut server = MainServer::new_down();
    let mut first = start(&base, &server);
    first.send("1");
    first.wait_event("main_unhealthy_accepting_logs", DEADLINE);
    first.sigkill();
    // Not the agent's: no link is followed, no file changed that has another name, and
    // what an agent has no use for stays root's.
    let victim = parent.path().join("victim");
    fs::create_dir(&victim).expect("a folder");
    fs::write(victim.join("agent.log"), "mine").expect("a file");
    symlink(&victim, base.join("session-2026-01-01T00-00-00Z")).expect("a link");
    fs::remove_file(base.join("agent-status.lock")).expect("the flag");
    fs::hard_link(victim.join("agent.log"), base.join("agent-status.lock")).expect("a link");
    fs::write(base.join("notes"), "root's").expect("a file");
    fs::write(base.join("session-of-another-program"), "root's").expect("a file");
    chown(&base, Some(OWNER), Some(GROUP)).expect("chown");

    let mut second = start(&base, &server);
    is_owners_agent(&second);
    for (path, uid) in [
        (victim.clone(), 0),
        (victim.join("agent.log"), 0),
        (base.join("agent-status.lock"), 0),
        (base.join("notes"), 0),
        (base.join("session-of-another-program"), 0),
        (base.join("lmdb/data.mdb"), OWNER),
    ] {
        let found = fs::symlink_metadata(&path).expect("a file");
        assert_eq!(found.uid(), uid, "{}", path.display());
    }
    for name in [
        "notes",
        "session-of-another-program",
        "session-2026-01-01T00-00-00Z",
    ] {
        fs::remove_file(base.join(name)).expect("remove");
    }
    server.up();
    second.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered_json(), [b"1"]);
    is_owners(&base);
    assert_eq!(
        fs::read_to_string(victim.join("agent.log")).expect("the file"),
        "mine"
    );
}

/// Root stays root where the user could not go, or where it may not change.
#[test]
#[ignore = "needs root: it becomes another user"]
fn an_agent_that_cannot_become_the_user_stays_as_it_is() {
    let without = "exec setpriv --bounding-set=-setuid,-setgid --inh-caps=-setuid,-setgid \
                   \"$0\" \"$@\"";
    for (what, script, mode) in [
        ("unreachable", "exec \"$0\" \"$@\"", 0o700),
        ("not permitted", without, 0o755),
    ] {
        let (parent, base) = owners_folder();
        fs::set_permissions(parent.path(), Permissions::from_mode(mode)).expect("chmod");
        let mut server = MainServer::new_down();
        let agent = || {
            Agent::by_shell(script, &base)
                .health_url(&server.url())
                .spawn()
        };
        let mut first = agent();
        first.wait_socket();
        assert_eq!(status(&first, "Uid:"), [0; 4], "{what}");
        first.send("1");
        first.signal(Signal::TERM);
        first.expect_exit(0, DEADLINE);
        // A store of the user's own is taken by root, too.
        chown(base.join("lmdb"), Some(OWNER), Some(GROUP)).expect("chown");
        chown(base.join("lmdb/data.mdb"), Some(OWNER), Some(GROUP)).expect("chown");
        let mut second = agent();
        second.wait_socket();
        second.send("2");
        server.up();
        second.expect_exit(0, DEADLINE);
        wait::until(DEADLINE, what, || server.delivered_json() == [b"1", b"2"]);
    }
}
