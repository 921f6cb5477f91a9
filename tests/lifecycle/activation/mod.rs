//! Socket activation (spec 5.9): the tests are the systemd that holds the socket
//! and starts an agent when a client connects.
#![cfg(target_os = "linux")]

mod exits;
use crate::support;
mod unit;

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::fixture;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::Signal;
use support::agent::{Agent, names_in};
use support::raw::Raw;
use support::sender::{Sender, block_on};
use support::server::{Answer, MainServer};
use support::{stale_socket, store, temp_folder, wait};
use unit::{DEADLINE, PASS, Unit, call, sleep_micros};

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("the socket").ino()
}

#[test]
fn the_passed_socket_is_served_and_its_file_is_never_touched() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let unit = Unit::new(folder.path(), &server);
    let socket = folder.path().join("data-nadhi-agent.sock");
    // What an agent of before there was a unit left where its name led.
    fs::create_dir(folder.path().join(".agent")).expect("a folder");
    stale_socket(&folder.path().join(".agent/socket-0123456789abcdef"));
    let file = inode(&socket);

    // A client that came before the agent is served, too.
    let early = unit.connect();
    let mut agent = unit.start();
    call(early, "1").expect("acknowledged");
    let started = agent.wait_event("agent_started", DEADLINE);
    assert_eq!(started["activated"], true);
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    let names = ["data-nadhi-agent.sock", "lmdb", "session"];
    assert_eq!(names_in(folder.path()), names);
    assert_eq!(inode(&socket), file);
    assert_eq!(store::records(folder.path()).len(), 1);

    // The next one delivers what it left, and its file may be anywhere.
    server.up();
    let elsewhere = folder.path().join("elsewhere");
    let mut agent = unit.start();
    call(unit.connect(), "2").expect("acknowledged");
    fs::rename(&socket, &elsewhere).expect("rename");
    agent.expect_exit(0, DEADLINE);
    assert!(agent.events_named("socket_bound_again").is_empty());
    assert_eq!(names_in(folder.path()), ["elsewhere", "session", "session"]);
    assert_eq!(inode(&elsewhere), file);
    assert_eq!(server.delivered_json(), [b"1", b"2"]);
}

#[test]
fn in_standby_it_stays_and_serves_one_outage_after_the_other() {
    let folder = temp_folder();
    let server = MainServer::new_up();
    let unit = Unit::new(folder.path(), &server);
    let mut agent = unit.agent(PASS).arg("-standby").spawn();
    for number in 1..=2 {
        call(unit.connect(), &number.to_string()).expect("acknowledged");
        wait::until(DEADLINE, "standby", || {
            server.delivered().len() == number && names_in(folder.path()).len() == 2
        });
    }
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    assert_eq!(
        names_in(folder.path()),
        ["data-nadhi-agent.sock", "session"]
    );
}

#[test]
fn what_is_no_listening_unix_stream_socket_is_refused_and_nothing_is_touched() {
    let place = temp_folder();
    let path = |name: &str| place.path().join(name);
    let listener: OwnedFd = UnixListener::bind(path("stream")).expect("bind").into();
    let packets = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
    let packets = packets.expect("a socket");
    let address = SocketAddrUnix::new(path("packets")).expect("an address");
    rustix::net::bind(&packets, &address).expect("bind");
    rustix::net::listen(&packets, 1).expect("listen");
    let datagrams = UnixDatagram::bind(path("datagrams")).expect("bind");
    let (connected, _other) = UnixStream::pair().expect("a pair");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let file = File::create(path("file")).expect("a file");
    let second = || listener.try_clone().expect("a second handle");
    let no_listener = "is no UNIX stream socket that listens; ";
    let with = |old: &str, new: &str| PASS.replace(old, new);
    for (passed, script, words) in [
        (packets, PASS.to_owned(), no_listener),
        (datagrams.into(), PASS.to_owned(), no_listener),
        (connected.into(), PASS.to_owned(), no_listener),
        (tcp.into(), PASS.to_owned(), no_listener),
        (file.into(), PASS.to_owned(), "the passed descriptor 3: "),
        (
            second(),
            with("3<&0", "3<&-"),
            "the passed descriptor 3: Bad file descriptor",
        ),
        (second(), with("FDS=1", "FDS=2"), "LISTEN_FDS is 2, but"),
        (second(), with("FDS=1", "FDS=0"), "LISTEN_FDS is 0, but"),
        (
            second(),
            with("$$", "nobody"),
            "LISTEN_PID nobody is no process id",
        ),
    ] {
        let before = names_in(place.path());
        let mut agent = Agent::by_shell(&script, &path("base"))
            .stdin(passed)
            .spawn();
        agent.expect_exit(64, DEADLINE);
        let stderr = agent.stderr();
        assert!(stderr.contains(words), "{script}: {stderr}");
        assert!(stderr.contains("ListenStream="), "no remedy: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr:?}");
        assert_eq!(names_in(place.path()), before, "{words}");
    }
}

#[test]
fn a_socket_for_another_process_is_not_taken() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let other = temp_folder();
    let unit = Unit::new(other.path(), &server);
    let mut agent = Agent::by_shell(&PASS.replace("$$", "1"), folder.path())
        .health_url(&server.url())
        .stdin(unit.descriptor())
        .spawn();
    agent.wait_socket();
    let started = agent.wait_event("agent_started", DEADLINE);
    assert_eq!(started["activated"], false);
    let sent = block_on(Sender::reconnecting(&agent.socket()).send("1", &[], ""));
    assert!(sent.expect("an answer").success);
}

/// The first one is held up, so that only the second could answer.
#[test]
fn a_second_agent_leaves_and_takes_no_client_from_the_socket() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let unit = Unit::new(folder.path(), &server);
    let mut first = unit.start();
    call(unit.connect(), "1").expect("acknowledged");
    first.signal(Signal::STOP);
    let waiting = unit.connect();
    let mut second = unit.start();
    second.expect_exit(0, DEADLINE);
    assert_eq!(second.events_named("another_agent_serves").len(), 1);
    assert_eq!(second.events().len(), 1);
    first.signal(Signal::CONT);
    call(waiting, "2").expect("acknowledged");
    first.sigkill();
    assert_eq!(store::records(folder.path()).len(), 2);
}

/// It would take the file of the socket away from its holder, and then itself.
#[test]
fn an_agent_that_is_started_by_hand_leaves_the_socket_alone() {
    let folder = temp_folder();
    let server = MainServer::new_up();
    let unit = Unit::new(folder.path(), &server);
    let file = inode(&unit.folder.join("data-nadhi-agent.sock"));
    let mut by_hand = fixture::spawn(folder.path(), &server);
    by_hand.expect_exit(73, DEADLINE);
    let stderr = by_hand.stderr();
    assert!(
        stderr.contains("data-nadhi-agent.sock: another program listens there"),
        "{stderr}"
    );
    let names = names_in(folder.path());
    assert_eq!(names, ["data-nadhi-agent.sock", "session"]);
    assert_eq!(inode(&unit.folder.join("data-nadhi-agent.sock")), file);
    let _agent = unit.start();
    call(unit.connect(), "1").expect("acknowledged");
}

/// The passed socket answers whichever agent holds the lock: it says nothing about another
/// agent, which may just be leaving.
#[test]
fn an_agent_that_is_leaving_is_waited_for() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let unit = Unit::new(folder.path(), &server);
    let leaving = File::open(folder.path()).expect("the folder");
    leaving.lock().expect("the lock");
    let mut agent = unit.start();
    let stream = unit.connect();
    let waiting = std::thread::spawn(move || call(stream, "1"));
    // As long as a leaving agent may take.
    sleep_micros(500_000);
    // A child of another test may still have a copy of it, which closing would not end.
    leaving.unlock().expect("unlock");
    // One that was held up for as long as it waits has gone, and its systemd starts
    // another.
    let mut starts = 1;
    wait::until(DEADLINE, "the call", || {
        if !waiting.is_finished() && !agent.is_running() {
            agent = unit.start();
            starts += 1;
        }
        waiting.is_finished()
    });
    waiting.join().expect("a call").expect("acknowledged");
    assert!(starts <= 3, "{starts} agents");
}

/// A client that says nothing keeps the agent waiting for a moment, where
/// another one finds it.
#[test]
fn an_agent_that_stays_after_all_accepts_again() {
    // The test itself may come too late.
    assert!((0..5).any(|_| stays_after_all()));
}

/// False when the agent had gone before the test came.
fn stays_after_all() -> bool {
    let folder = temp_folder();
    let server = MainServer::new_up();
    let unit = Unit::new(folder.path(), &server);
    let mut agent = unit.start();
    call(unit.connect(), "1").expect("acknowledged");
    server.wait_delivered(1, DEADLINE);
    let probes = server.gets().len();
    // A client that comes during the probe before it leaves, and says nothing.
    let (socket, silent) = (agent.socket(), Mutex::new(None));
    server.on_get(move |_| {
        *silent.lock().expect("the client") = Some(Raw::connect(&socket));
        Answer::status(200)
    });
    wait::until(DEADLINE, "the probe before it leaves", || {
        server.gets().len() > probes
    });
    let probed = Instant::now();
    sleep_micros(50_000);
    let stream = unit.connect();
    let calling = std::thread::spawn(move || call(stream, "2"));
    wait::until(DEADLINE, "an answer or an end", || {
        calling.is_finished() || !agent.is_running()
    });
    if !agent.is_running() {
        let _next = unit.start();
        calling.join().expect("a call").expect("acknowledged");
        return false;
    }
    calling.join().expect("a call").expect("acknowledged");
    call(unit.connect(), "3").expect("acknowledged");
    // Not only when it tried to leave again.
    let again = server.gets().len() - probes - 1;
    if probed.elapsed() > Duration::from_millis(1500) {
        return false;
    }
    assert_eq!(again, 0);
    true
}
