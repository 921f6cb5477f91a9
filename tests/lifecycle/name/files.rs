//! What others do to the names, and what an agent finds of an earlier one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::name::{DEADLINE, link};
use crate::support::agent::{Agent, names_in};
use crate::support::fixture;
use crate::support::sender::Sender;
use crate::support::server::MainServer;
use crate::support::{stale_socket, temp_folder, wait};

fn start(base: &Path, server: &MainServer) -> Agent {
    fixture::start(base, server)
}

#[test]
fn what_is_taken_away_of_the_way_is_made_again() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let mut agent = start(folder.path(), &server);
    let agent_folder = folder.path().join(".agent");
    let taken = temp_folder();
    let takes: [(&str, &dyn Fn()); 4] = [
        ("the name", &|| {
            fs::remove_file(agent.socket()).expect("remove")
        }),
        ("the link", &|| {
            fs::remove_file(agent_folder.join("socket")).expect("remove")
        }),
        ("the socket", &|| {
            let (_, socket) = link(folder.path()).expect("a link");
            fs::remove_file(agent_folder.join(socket)).expect("remove");
        }),
        // At once: while it is emptied, the agent puts another socket there.
        ("the folder", &|| {
            fs::rename(&agent_folder, taken.path().join("agent")).expect("rename")
        }),
    ];
    for (what, take) in takes {
        let (_, before) = link(folder.path()).expect("a link");
        take();
        wait::until(DEADLINE, what, || {
            let target = fs::read_link(agent_folder.join("socket"));
            let is_new = target.is_ok_and(|target| !target.ends_with(&before));
            is_new && UnixStream::connect(agent.socket()).is_ok()
        });
        agent.send("1");
    }
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered().len(), 4);
    assert_eq!(names_in(folder.path()), ["session"]);
}

/// The watch must not answer its own changes with further ones.
#[test]
fn an_agent_that_has_made_its_name_is_quiet() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let agent = start(folder.path(), &server);
    fs::remove_file(agent.socket()).expect("remove");
    agent.wait_event("socket_bound_again", DEADLINE);
    let name = link(folder.path());
    agent.wait_event("main_unhealthy_accepting_logs", DEADLINE);
    agent.send("1");
    assert_eq!(link(folder.path()), name);
    assert_eq!(agent.events_named("socket_bound_again").len(), 1);
}

#[test]
fn a_stale_link_is_replaced_and_any_other_is_in_the_way() {
    for (target, is_stale) in [
        (".agent/socket", true),
        (".agent/socket-0123456789abcdef", true),
        ("nowhere", false),
        ("/proc/1/fd/0", false),
    ] {
        let folder = temp_folder();
        let server = MainServer::new_down();
        let name = folder.path().join("data-nadhi-agent.sock");
        symlink(target, &name).expect("a link");
        fs::create_dir(folder.path().join(".agent")).expect("a folder");
        stale_socket(&folder.path().join(".agent/socket-0123456789abcdef"));
        symlink("/proc/1/fd/3/socket", folder.path().join(".agent/socket")).expect("a link");
        let mut agent = fixture::spawn(folder.path(), &server);
        agent.wait_event("agent_started", DEADLINE);
        if !is_stale {
            agent.wait_event("socket_blocked", DEADLINE);
            assert_eq!(fs::read_link(&name).expect("the link"), Path::new(target));
            fs::remove_file(&name).expect("out of the way");
            agent.wait_socket();
        }
        agent.wait_event("main_unhealthy_accepting_logs", DEADLINE);
        wait::until(DEADLINE, target, || link(folder.path()).is_some());
        agent.send("1");
    }
}

/// The copy's name leads to the original's agent until the copy has one of its own.
#[test]
fn a_copy_of_the_folder_beside_a_live_agent_gets_its_own() {
    let parent = temp_folder();
    let (original, copy) = (parent.path().join("original"), parent.path().join("copy"));
    let server = MainServer::new_down();
    let first = start(&original, &server);
    first.send("\"original\"");
    let copied = Command::new("cp")
        .arg("-a")
        .args([&original, &copy])
        .status();
    assert!(copied.expect("cp").success());
    let name = link(&original);
    assert_eq!(link(&copy), name);
    let mut second = start(&copy, &server);
    // Until it holds the lock, the original's links are there, and then none.
    let own = format!("/proc/{}/", second.pid());
    wait::until(DEADLINE, "a name of its own", || {
        fs::read_link(copy.join(".agent/socket")).is_ok_and(|target| {
            target
                .to_str()
                .is_some_and(|target| target.starts_with(&own))
        })
    });
    wait::until(DEADLINE, "its name", || second.socket().is_symlink());
    assert_eq!(link(&copy).map(|(pid, _)| pid), Some(second.pid()));
    assert_eq!(link(&original), name);
    let mut second_server = MainServer::new_down();
    second.send("\"copy\"");
    first.send("\"original 2\"");
    second.signal(Signal::TERM);
    second.expect_exit(0, DEADLINE);
    assert!(UnixStream::connect(first.socket()).is_ok());
    let mut third = start(&copy, &second_server);
    second_server.up();
    third.expect_exit(0, DEADLINE);
    assert_eq!(
        second_server.delivered_json(),
        [&b"\"original\""[..], b"\"copy\""]
    );
}

/// Where the name cannot be renamed out of sight, it is removed: not later, when the
/// agent ends, for then a client could find it in between.
#[test]
fn a_folder_in_the_place_of_the_hidden_name_leaves_no_name_behind() {
    for mode in [0o700, 0o770] {
        let folder = temp_folder();
        let server = MainServer::new_up();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).expect("chmod");
        let mut agent = start(folder.path(), &server);
        assert_eq!(link(folder.path()).is_some(), mode == 0o700);
        let place = folder.path().join(".data-nadhi-agent.so");
        fs::create_dir_all(place.join("mine")).expect("a folder");
        // It has the agent wait for the whole time that it gives the connected.
        let _served = half_served(&agent.socket());
        wait::until(DEADLINE, "no name", || {
            fs::symlink_metadata(agent.socket()).is_err()
        });
        let gone = Instant::now();
        agent.expect_exit(0, DEADLINE);
        let took = gone.elapsed();
        assert!(
            took > Duration::from_millis(100),
            "there to the end: {took:?}"
        );
        assert_eq!(names_in(folder.path()), [".data-nadhi-agent.so", "session"]);
    }
}

/// A client that has called and does not react to what it is told then: its runtime
/// is not polled any more.
fn half_served(socket: &Path) -> impl Sized + use<> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let kept = Sender::keeping(socket);
    let answer = runtime.block_on(kept.send("1", &[], ""));
    assert!(answer.expect("an answer").success);
    (runtime, kept)
}
