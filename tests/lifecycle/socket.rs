//! The socket file while the agent runs (spec 5.6), and a base folder that is
//! taken away from under it.

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::fixture::{self, Fixture};
use rustix::process::Signal;
use support::agent::{Agent, names_in};
use support::sender::{Sender, block_on, send};
use support::server::{Answer, MainServer};
use support::{stale_socket, store, temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(20);

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// The socket that its name leads to: another file for each time that it is bound.
fn socket_file(name: &Path) -> Option<PathBuf> {
    fs::canonicalize(name).ok()
}

/// What happens to the socket file of a running agent.
fn lose(what: &str, socket: &Path) {
    match what {
        "deleted" => fs::remove_file(socket).expect("delete"),
        "renamed" => fs::rename(socket, socket.with_extension("old")).expect("rename"),
        "replaced" => {
            let other = socket.with_extension("new");
            stale_socket(&other);
            fs::rename(other, socket).expect("replace");
        }
        _ => unreachable!("{what}"),
    }
}

#[test]
fn a_lost_socket_is_bound_again_and_the_connected_are_served() {
    let (folder, _server, mut agent) = Fixture::down().parts();
    let socket = agent.socket();
    let mut sent = 0;
    for what in ["deleted", "replaced", "renamed", "deleted", "replaced"] {
        let first = socket_file(&socket);
        block_on(async {
            let connected = Sender::keeping(&socket);
            let call = async || {
                let answer = connected.send("1", &[], "").await;
                assert!(answer.expect("an answer").success, "{what}");
            };
            call().await;
            lose(what, &socket);
            wait::until(DEADLINE, what, || {
                let now = socket_file(&socket);
                now.is_some() && now != first && UnixStream::connect(&socket).is_ok()
            });
            call().await;
        });
        send(&socket, "3");
        sent += 3;
    }
    agent.sigkill();
    assert_eq!(store::records(folder.path()).len(), sent);
}

/// Thirteen clients in the backlog, three more than the agent takes at a time.
#[test]
fn clients_that_wait_at_a_socket_that_is_lost_are_served() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let mut agent = Agent::by_shell("ulimit -n 30; exec \"$0\" \"$@\"", folder.path())
        .health_url(&server.url())
        .spawn();
    agent.wait_socket();
    agent.signal(Signal::STOP);
    let clients: Vec<UnixStream> = (0..13)
        .map(|_| {
            let client = UnixStream::connect(agent.socket()).expect("connect");
            client.set_nonblocking(true).expect("non-blocking");
            client
        })
        .collect();
    fs::remove_file(agent.socket()).expect("delete");
    block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for client in clients {
            calls.spawn(async move { Sender::on(client).await?.send("1", &[], "").await });
        }
        // A silent client may be cut after a moment: all have called before it goes on.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        agent.signal(Signal::CONT);
        for answer in calls.join_all().await {
            assert!(answer.expect("an answer").success);
        }
    });
    wait::until(DEADLINE, "the socket", || inode(&agent.socket()).is_some());
    agent.sigkill();
    assert_eq!(store::records(folder.path()).len(), 13);
}

#[test]
fn what_takes_the_socket_s_place_is_not_deleted_and_waited_for() {
    let (folder, _server, agent) = Fixture::down().parts();
    let socket = agent.socket();
    for is_folder in [false, true] {
        let other = folder.path().join("other");
        match is_folder {
            true => {
                fs::create_dir(&other).expect("a folder");
                fs::remove_file(&socket).expect("delete");
                // The agent may be quicker; then its new socket goes too.
                while fs::rename(&other, &socket).is_err() {
                    let _ = fs::remove_file(&socket);
                }
            }
            false => {
                fs::write(&other, "mine").expect("a file");
                fs::rename(&other, &socket).expect("replace");
            }
        }
        let blocked = || agent.events_named("socket_blocked").len();
        let wanted = usize::from(is_folder) + 1;
        wait::until(DEADLINE, "told", || blocked() == wanted);
        match is_folder {
            true => fs::remove_dir(&socket).expect("an empty folder"),
            false => {
                assert_eq!(fs::read_to_string(&socket).expect("the file"), "mine");
                fs::remove_file(&socket).expect("remove");
            }
        }
        wait::until(DEADLINE, "the socket", || inode(&socket).is_some());
        send(&socket, "1");
    }
}

/// The base folder is renamed, and another agent starts in a new one of the
/// same name: they must not get in each other's way.
#[test]
fn an_agent_whose_folder_was_moved_leaves_the_new_one_alone() {
    let parent = temp_folder();
    let (base, moved) = (parent.path().join("base"), parent.path().join("moved"));
    let mut old_server = MainServer::new_up();
    old_server.on_post(|_| Answer::status(503));
    let new_server = MainServer::new_up();
    let mut old = fixture::start(&base, &old_server);
    old.send("\"old\"");
    wait::until(DEADLINE, "a try", || !old_server.posts().is_empty());
    fs::rename(&base, &moved).expect("rename");
    old.wait_event("socket_blocked", DEADLINE);

    let mut new = Agent::builder(&base)
        .health_url(&new_server.url())
        .arg("-standby")
        .spawn();
    new.wait_socket();
    new.wait_event("standby", DEADLINE);
    let socket = inode(&new.socket());
    new_server.on_post(|_| Answer::status(503));
    new.send("\"new\"");
    wait::until(DEADLINE, "a try", || !new_server.posts().is_empty());
    let untouched = ["data-nadhi-agent.sock", "lmdb", "session"];
    assert_eq!(names_in(&base), untouched);

    // It would raise its flag, serve at its socket, and remove its store.
    old_server.down();
    old.wait_event("flag_failed", DEADLINE);
    assert_eq!(names_in(&base), untouched);
    // Its back-off may have grown to half a minute.
    let deadline = 3 * DEADLINE;
    send(&moved.join("data-nadhi-agent.sock"), "\"old 2\"");
    old_server.on_post(|_| Answer::ok());
    old_server.up();
    old_server.wait_delivered(2, deadline);
    old.expect_exit(0, deadline);
    assert_eq!(names_in(&base), untouched);
    assert_eq!(inode(&new.socket()), socket);
    new.send("\"new 2\"");
    new.sigkill();
    let kept: Vec<_> = store::records(&base)
        .into_iter()
        .map(|(_, record)| record.json_data)
        .collect();
    assert_eq!(kept, ["\"new\"", "\"new 2\""]);
    assert_eq!(
        old_server.delivered_json(),
        [b"\"old\"".as_slice(), b"\"old 2\""]
    );
}

/// In standby there is no store: none may be opened in the other's folder.
#[test]
fn a_moved_agent_in_standby_opens_no_store_in_the_new_folder() {
    let parent = temp_folder();
    let (base, moved) = (parent.path().join("base"), parent.path().join("moved"));
    let server = MainServer::new_down();
    let mut old = Agent::builder(&base)
        .health_url(&server.url())
        .arg("-standby")
        .spawn();
    old.wait_socket();
    old.wait_event("standby", DEADLINE);
    fs::rename(&base, &moved).expect("rename");
    fs::create_dir(&base).expect("a new folder");
    let sent =
        block_on(Sender::reconnecting(&moved.join("data-nadhi-agent.sock")).send("1", &[], ""));
    assert!(sent.is_err(), "acknowledged without a store");
    old.expect_exit(73, DEADLINE);
    assert!(old.stderr().contains("moved away"), "{}", old.stderr());
    assert_eq!(names_in(&base), Vec::<String>::new());
}
