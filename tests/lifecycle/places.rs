//! Folders that are not the agent's to write, and surroundings with little in
//! them (spec 1, 5.1, 7): a clear error and its exit code, or a life as always.

use crate::support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::time::Duration;

use crate::support::fixture;
use rustix::process::Signal;
use support::agent::{Agent, names_in};
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(20);
/// A user that is neither root nor the tester.
const STRANGER: u32 = 54_321;

fn is_root() -> bool {
    let own = temp_folder();
    fs::metadata(own.path()).expect("the folder").uid() == 0
}

/// One line that names the folder.
fn says_one_line(agent: &Agent, folder: &std::path::Path) {
    let stderr = agent.stderr();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(&*folder.to_string_lossy()), "{stderr}");
}

#[test]
fn a_read_only_folder_is_a_clear_error() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    // Root writes where the mode forbids it, but not on a read-only mount.
    let script = match is_root() {
        true => format!(
            "unshare -m sh -c 'mount --make-rprivate / && mount -t tmpfs -o ro none \"{}\" && \
             exec \"$0\" \"$@\"' \"$0\" \"$@\"",
            folder.path().display()
        ),
        false => {
            let mode = fs::Permissions::from_mode(0o500);
            fs::set_permissions(folder.path(), mode).expect("chmod");
            "exec \"$0\" \"$@\"".to_owned()
        }
    };
    let mut agent = Agent::by_shell(&script, folder.path())
        .health_url(&server.url())
        .spawn();
    agent.expect_exit(73, DEADLINE);
    says_one_line(&agent, folder.path());
    assert!(names_in(folder.path()).is_empty());
}

#[test]
#[ignore = "needs root: it becomes another user"]
fn another_users_folder_is_left_alone_unless_it_is_open_to_all() {
    let server = MainServer::new_down();
    // The stranger has to reach the executable, which may lie below /root.
    let tools = temp_folder();
    fs::set_permissions(tools.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let executable = tools.path().join("echopost");
    support::copy_executable(Agent::executable().as_ref(), &executable);
    let script = format!(
        "exec setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups \"{}\" \"$@\"",
        executable.display()
    );
    for (mode, serves) in [(0o700, false), (0o755, false), (0o777, true)] {
        let folder = temp_folder();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("chmod");
        let mut agent = Agent::by_shell(&script, folder.path())
            .health_url(&server.url())
            .spawn();
        if !serves {
            agent.expect_exit(73, DEADLINE);
            says_one_line(&agent, folder.path());
            assert!(names_in(folder.path()).is_empty(), "{mode:o}");
            continue;
        }
        agent.wait_socket();
        let sender = Sender::reconnecting(&agent.socket());
        let stored = block_on(sender.send("{}", &["p"], "k"));
        assert!(stored.expect("stored").success);
        // A store of another user's is not used: neither the agent's nor the folder's owner.
        agent.sigkill();
        chown(folder.path().join("lmdb"), Some(STRANGER + 1), None).expect("chown");
        let mut agent = Agent::by_shell(&script, folder.path())
            .health_url(&server.url())
            .spawn();
        agent.expect_exit(73, DEADLINE);
        assert!(
            agent.stderr().contains("another user"),
            "{}",
            agent.stderr()
        );
    }
}

#[test]
fn an_empty_environment_is_enough() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let mut agent = Agent::by_shell("cd /; exec env -i \"$0\" \"$@\"", folder.path())
        .health_url(&server.url())
        .spawn();
    agent.wait_socket();
    let sender = Sender::reconnecting(&agent.socket());
    let stored = block_on(sender.send("{}", &["p"], "k"));
    assert!(stored.expect("stored").success);
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered().len(), 1);
    assert_eq!(names_in(folder.path()), ["session"]);
}

#[test]
fn a_flag_that_could_not_be_raised_is_raised_when_it_can_be() {
    let folder = temp_folder();
    let flag = folder.path().join("agent-status.lock");
    fs::create_dir(&flag).expect("a folder in its place");
    let mut server = MainServer::new_down();
    let mut agent = fixture::spawn(folder.path(), &server);
    agent.wait_event("flag_failed", DEADLINE);
    agent.wait_event("main_unhealthy_accepting_logs", DEADLINE);
    fs::remove_dir(&flag).expect("remove the folder");
    wait::until(DEADLINE, "the flag", || flag.is_file());
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(names_in(folder.path()), ["session"]);
}

/// An agent whose store was removed with one record in it.
fn with_a_removed_store(server: &MainServer) -> (tempfile::TempDir, Agent) {
    let folder = temp_folder();
    let agent = fixture::start(folder.path(), server);
    send(&agent).expect("stored");
    fs::remove_dir_all(folder.path().join("lmdb")).expect("remove the store");
    (folder, agent)
}

fn send(agent: &Agent) -> Result<(), tonic::Status> {
    block_on(Sender::reconnecting(&agent.socket()).send("1", &["p"], "k")).map(drop)
}

/// What was removed is the remover's loss; what comes after it is not lost.
#[test]
fn a_store_that_was_removed_takes_no_more_records() {
    let mut server = MainServer::new_down();
    let (folder, mut agent) = with_a_removed_store(&server);
    let refused = send(&agent).expect_err("an ack for what is written nowhere");
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("was removed"), "{refused:?}");
    agent.wait_event("store_removed", DEADLINE);
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered_json(), [b"1"]);
    assert_eq!(names_in(folder.path()), ["session"]);
}

#[test]
fn a_signal_says_that_what_was_left_in_a_removed_store_is_lost() {
    let server = MainServer::new_down();
    let (_folder, mut agent) = with_a_removed_store(&server);
    agent.signal(Signal::TERM);
    agent.expect_exit(74, DEADLINE);
    assert!(agent.stderr().contains("was removed"), "{}", agent.stderr());
    assert_eq!(agent.events().pop().expect("events")["left"], 1);
}

/// One life, from an outage to the end, with one record.
fn live(folder: &std::path::Path, server: &mut MainServer) {
    let before = server.delivered().len();
    let mut agent = fixture::start(folder, server);
    send(&agent).expect("stored");
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered().len(), before + 1);
    server.down();
}

#[test]
fn what_is_not_the_agents_stays_in_the_stores_folder() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let store = folder.path().join("lmdb");
    live(folder.path(), &mut server);
    fs::create_dir_all(store.join("mine")).expect("a folder");
    fs::write(store.join("note"), "mine").expect("a file");
    // mdb_stat and mdb_dump leave one.
    fs::write(store.join("lock.mdb"), "").expect("a file");
    let untouched = || {
        assert_eq!(names_in(&store), ["mine", "note"]);
        assert_eq!(fs::read(store.join("note")).expect("the file"), b"mine");
    };
    for _ in 0..2 {
        live(folder.path(), &mut server);
        untouched();
    }
    // In standby it is no reason to wake, and closing the store is the same.
    let mut agent = Agent::builder(folder.path())
        .health_url(&server.url())
        .arg("-standby")
        .spawn();
    agent.wait_event("standby", DEADLINE);
    untouched();
    send(&agent).expect("stored");
    server.up();
    server.wait_delivered(4, DEADLINE);
    wait::until(DEADLINE, "sleep", || {
        agent.events_named("standby").len() == 2
    });
    untouched();
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    untouched();
}

#[test]
fn a_store_put_in_the_place_of_the_agents_own_is_left_to_the_next() {
    let mut server = MainServer::new_down();
    let (first, other) = (temp_folder(), temp_folder());
    for folder in [&first, &other] {
        let mut agent = fixture::start(folder.path(), &server);
        send(&agent).expect("stored");
        agent.signal(Signal::TERM);
        agent.expect_exit(0, DEADLINE);
    }
    let (store, restored) = (first.path().join("lmdb"), other.path().join("lmdb"));
    let mut agent = fixture::spawn(first.path(), &server);
    agent.wait_event("main_unhealthy_accepting_logs", DEADLINE);
    fs::remove_dir_all(&store).expect("remove the store");
    fs::rename(&restored, &store).expect("another store");
    let before = names_in(&store);
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(names_in(&store), before);
    assert_eq!(server.delivered().len(), 1);
    let mut agent = fixture::spawn(first.path(), &server);
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered().len(), 2);
    assert!(!store.exists());
}

/// An agent in a mount namespace of its own, where a shell has done `before` in the base
/// folder, ends with `run`, which is to start it.
#[cfg(target_os = "linux")]
fn among_mounts(folder: &std::path::Path, server: &MainServer, before: &str, run: &str) -> Agent {
    let script = format!(
        "exec unshare -m sh -c 'set -e; mount --make-rprivate /; cd {}; {before}; {run}' \
         \"$0\" \"$@\"",
        folder.display()
    );
    let mut agent = Agent::by_shell(&script, folder)
        .health_url(&server.url())
        .spawn();
    agent.wait_socket();
    agent
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "needs root: it mounts"]
fn a_store_folder_that_is_a_mount_point_stays_and_is_an_empty_store() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    // Twice, and in between it is looked at.
    let mount = "mkdir lmdb; mount -t tmpfs -o mode=0700 none lmdb";
    let twice = "\"$0\" \"$@\"; test -z \"$(ls -A lmdb)\"; exec \"$0\" \"$@\"";
    let mut agent = among_mounts(folder.path(), &server, mount, twice);
    for life in 1..=2 {
        agent.wait_answering();
        send(&agent).expect("stored");
        server.up();
        wait::until(DEADLINE, "the end of a life", || {
            agent.events_named("agent_stopped").len() == life
        });
        server.down();
    }
    agent.expect_exit(0, DEADLINE);
    assert_eq!(agent.stderr(), "");
    assert_eq!(server.delivered().len(), 2);
    let mut names = names_in(folder.path());
    names.dedup();
    assert_eq!(names, ["lmdb", "session"]);
}

/// A file that something is mounted on has a name that cannot be removed.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "needs root: it mounts"]
fn a_data_file_that_cannot_be_removed_is_a_failed_disk() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let run = "exec \"$0\" \"$@\"";
    let mut agent = among_mounts(folder.path(), &server, "true", run);
    send(&agent).expect("stored");
    let data = folder.path().join("lmdb/data.mdb");
    let mounted = std::process::Command::new("nsenter")
        .args(["-m", "-t", &agent.pid().to_string(), "mount", "--bind"])
        .args([&data, &data])
        .status();
    assert!(mounted.expect("nsenter").success());
    server.up();
    agent.expect_exit(74, DEADLINE);
    let stderr = agent.stderr();
    assert!(
        stderr.contains("removing ") && stderr.contains("busy"),
        "{stderr}"
    );
    assert!(data.is_file());
}
