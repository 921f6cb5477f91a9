//! Socket activation (spec 5.9): the tests are the systemd that holds the socket
//! and starts an agent when somebody connects.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Pid, Signal, kill_process};
use support::agent::{Agent, Builder, names_in};
use support::dice::Dice;
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{raw, store, temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(20);
/// A shell that passes its stdin as systemd passes a socket.
const PASS: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";

/// A socket unit and its service.
struct Unit {
    folder: PathBuf,
    listener: UnixListener,
    url: String,
}

impl Unit {
    fn new(folder: &Path, server: &MainServer) -> Unit {
        Unit {
            folder: folder.to_owned(),
            listener: UnixListener::bind(folder.join("data-nadhi-agent.sock")).expect("bind"),
            url: server.url(),
        }
    }

    /// What runs `script`, with the socket as its stdin.
    fn agent(&self, script: &str) -> Builder {
        Agent::by_shell(script, &self.folder)
            .health_url(&self.url)
            .stdin(self.descriptor())
    }

    fn start(&self) -> Agent {
        self.agent(PASS).spawn()
    }

    fn descriptor(&self) -> OwnedFd {
        self.listener.try_clone().expect("a second handle").into()
    }

    /// Connects and calls, like the SDK: what must never fail is the connect.
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.join("data-nadhi-agent.sock"));
        let stream = stream.expect("somebody listens");
        stream.set_nonblocking(true).expect("non-blocking");
        stream
    }

    /// Starts an agent whenever somebody waits and none runs, until `over`; tells
    /// how many. Each must end by itself with exit code 0.
    fn supervise(&self, over: &AtomicBool, watch: impl Fn(&mut Agent)) -> u64 {
        let mut started = 0;
        loop {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            let moment = Timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            if poll(&mut fds, Some(&moment)).expect("poll") > 0 {
                started += 1;
                let mut agent = self.start();
                watch(&mut agent);
                agent.expect_exit(0, DEADLINE);
            } else if over.load(Relaxed) {
                return started;
            }
        }
    }
}

/// One call over a connection that is there; the SDK makes one for each.
fn call(stream: UnixStream, json: &str) -> Result<(), tonic::Status> {
    block_on(async {
        let answer = Sender::on(stream).await?.send(json, &[], "").await?;
        assert!(answer.success);
        Ok(())
    })
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("the socket").ino()
}

#[test]
fn the_passed_socket_is_served_and_its_file_is_never_touched() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let unit = Unit::new(folder.path(), &server);
    let socket = folder.path().join("data-nadhi-agent.sock");
    let file = inode(&socket);

    // Who came before the agent is served, too.
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
fn a_second_agent_leaves_and_takes_nobody_from_the_socket() {
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

/// It would take the file of the socket away from those who hold it, and then itself.
#[test]
fn an_agent_that_is_started_by_hand_leaves_the_socket_alone() {
    let folder = temp_folder();
    let server = MainServer::new_up();
    let unit = Unit::new(folder.path(), &server);
    let file = inode(&unit.folder.join("data-nadhi-agent.sock"));
    let mut by_hand = Agent::builder(folder.path())
        .health_url(&server.url())
        .spawn();
    by_hand.expect_exit(73, DEADLINE);
    let stderr = by_hand.stderr();
    assert!(
        stderr.contains("data-nadhi-agent.sock: somebody listens there"),
        "{stderr}"
    );
    assert_eq!(names_in(folder.path()), ["data-nadhi-agent.sock"]);
    assert_eq!(inode(&unit.folder.join("data-nadhi-agent.sock")), file);
    let _agent = unit.start();
    call(unit.connect(), "1").expect("acknowledged");
}

/// The passed socket answers whoever holds the lock: it says nothing about another
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
    assert!(agent.is_running(), "{}", agent.stdout());
    drop(leaving);
    waiting.join().expect("a call").expect("acknowledged");
}

/// A client that says nothing keeps the agent at the door for a moment, where
/// another one finds it.
#[test]
fn an_agent_that_stays_after_all_accepts_again() {
    let folder = temp_folder();
    let server = MainServer::new_up();
    let unit = Unit::new(folder.path(), &server);
    let agent = unit.start();
    call(unit.connect(), "1").expect("acknowledged");
    let _silent = raw::silent(&agent.socket());
    server.wait_delivered(1, DEADLINE);
    let probes = server.gets().len();
    wait::until(DEADLINE, "the probe before it leaves", || {
        server.gets().len() > probes
    });
    sleep_micros(50_000);
    call(unit.connect(), "2").expect("acknowledged");
    call(unit.connect(), "3").expect("acknowledged");
    // Not only when it tried to leave again.
    assert_eq!(server.gets().len(), probes + 1);
}

/// Applications at a time, each with a unit of its own.
const LANES: u64 = 8;
/// Calls of each.
const ROUNDS: u64 = 10;

#[test]
fn no_call_fails_and_no_record_is_lost_around_the_exit() {
    let server = MainServer::new_up();
    let folders: Vec<_> = (0..LANES).map(|_| temp_folder()).collect();
    let agents = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (server, agents) = (&server, &agents);
            let folder = folders[lane as usize].path();
            scope.spawn(move || {
                let unit = Unit::new(folder, server);
                let over = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    let supervisor = scope.spawn(|| unit.supervise(&over, |_| {}));
                    let logged = std::panic::catch_unwind(|| log_around_exits(&unit, lane));
                    over.store(true, Relaxed);
                    agents.fetch_add(supervisor.join().expect("agents"), Relaxed);
                    logged.expect("calls");
                });
                let mut names = names_in(folder);
                names.dedup();
                assert_eq!(names, ["data-nadhi-agent.sock", "session"]);
            });
        }
    });
    let (calls, agents) = (LANES * ROUNDS, agents.into_inner());
    println!("{calls} calls, {agents} agents started");
    assert!(agents > calls / 4, "the calls were not near the exits");
    let mut delivered = BTreeSet::new();
    for json in server.delivered_json() {
        let number: u64 = String::from_utf8_lossy(&json).parse().expect("a number");
        assert!(delivered.insert(number), "{number} came twice");
    }
    assert_eq!(delivered, (0..calls).collect());
}

fn log_around_exits(unit: &Unit, lane: u64) {
    let mut dice = Dice(lane);
    for round in 0..ROUNDS {
        if round > 0 {
            wait_for_the_exit(&unit.folder, &mut dice);
        }
        let number = lane * ROUNDS + round;
        let answer = call(unit.connect(), &number.to_string());
        answer.unwrap_or_else(|status| panic!("record {number}: {status}"));
    }
}

/// Sleeps so that the next call falls near the agent's leaving.
fn wait_for_the_exit(folder: &Path, dice: &mut Dice) {
    match dice.below(3) {
        // By the clock: 2 s of quiet, a probe, and all that may happen.
        0 => sleep_micros(1_950_000 + dice.below(400_000)),
        // While the store is closed and the process ends.
        kind => {
            let end = Instant::now() + DEADLINE;
            let store = folder.join("lmdb");
            while store.exists() {
                assert!(Instant::now() < end, "the agent does not leave");
                sleep_micros(100);
            }
            sleep_micros(dice.below(if kind == 1 { 2_000 } else { 40_000 }));
        }
    }
}

fn sleep_micros(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}

/// Clients that call without a pause while one agent after the other is stopped.
#[test]
fn a_stopped_agent_leaves_those_who_wait_to_the_next() {
    const CLIENTS: u64 = 4;
    const STOPS: u64 = 12;
    let folder = temp_folder();
    let server = MainServer::new_up();
    let unit = Unit::new(folder.path(), &server);
    let over = AtomicBool::new(false);
    let stops = AtomicU64::new(0);
    let acknowledged = Mutex::new(BTreeSet::new());
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (unit, stops, acknowledged) = (&unit, &stops, &acknowledged);
                let failed = &failed;
                scope.spawn(move || {
                    let mut number = client;
                    while stops.load(Relaxed) < STOPS {
                        match call(unit.connect(), &number.to_string()) {
                            Ok(()) => drop(acknowledged.lock().expect("a lock").insert(number)),
                            Err(status) => {
                                println!("record {number}: {status}");
                                failed.fetch_add(1, Relaxed);
                            }
                        }
                        number += CLIENTS;
                    }
                })
            })
            .collect();
        let supervisor = scope.spawn(|| {
            let dice = Mutex::new(Dice(1));
            unit.supervise(&over, |agent| {
                if stops.load(Relaxed) < STOPS {
                    agent.wait_event("agent_started", DEADLINE);
                    sleep_micros(dice.lock().expect("a lock").below(150_000));
                    let pid = Pid::from_raw(agent.pid().cast_signed()).expect("a process id");
                    kill_process(pid, Signal::TERM).expect("signal the agent");
                    stops.fetch_add(1, Relaxed);
                }
            })
        });
        for client in clients {
            client.join().expect("a client");
        }
        // The last one delivers what the others left.
        call(unit.connect(), "\"last\"").expect("acknowledged");
        over.store(true, Relaxed);
        let agents = supervisor.join().expect("agents");
        println!("{agents} agents");
        assert_eq!(failed.load(Relaxed), 0, "calls that failed");
    });
    let acknowledged = acknowledged.into_inner().expect("a lock");
    let delivered: BTreeSet<u64> = server
        .delivered_json()
        .iter()
        .filter_map(|json| String::from_utf8_lossy(json).parse().ok())
        .collect();
    println!(
        "{} acknowledged, {} delivered",
        acknowledged.len(),
        delivered.len()
    );
    assert!(acknowledged.len() > STOPS as usize, "{acknowledged:?}");
    let lost: Vec<_> = acknowledged.difference(&delivered).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
