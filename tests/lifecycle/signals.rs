//! Signals (spec 5.5): the agent is gone within 2 s, whatever others do, and
//! what it has acknowledged is on disk.

use crate::support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::fixture::{self, Fixture};
use rustix::process::{Pid, Signal, kill_process};
use support::agent::{Agent, names_in};
use support::raw::{self, Raw};
use support::sender::{Sender, block_on};
use support::server::{Answer, Ending, MainServer};
use support::{store, temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(20);
/// 2 s in spec 5.5; the rest is for a debug build on a machine that stands still.
/// An agent that waited for a server or a client would take 5 s.
const GONE: Duration = Duration::from_millis(4500);

/// Signals the agent and waits for exit 0; checks what is left in the folder.
fn leave(agent: &mut Agent, signal: Signal) -> Duration {
    let at = Instant::now();
    agent.signal(signal);
    agent.expect_exit(0, DEADLINE);
    let took = at.elapsed();
    assert!(took < GONE, "{signal:?}: {took:?}");
    let mut names = names_in(agent.folder());
    names.retain(|name| name != "lmdb");
    assert_eq!(names, ["session"], "{signal:?}");
    took
}

/// The last event, which must be the summary.
fn stopped(agent: &Agent) -> serde_json::Value {
    let last = agent.events().pop().expect("an event");
    assert_eq!(last["event"], "agent_stopped");
    last
}

#[test]
fn a_signal_ends_it_whatever_the_server_and_clients_do() {
    for (signal, name) in [
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::HUP, "SIGHUP"),
    ] {
        let folder = temp_folder();
        let server = MainServer::new_up();
        server.on_post(|_| Answer::ok().then(Ending::Never));
        let mut agent = Agent::hearing(folder.path())
            .health_url(&server.url())
            .spawn();
        agent.wait_socket();
        for number in 0..5 {
            agent.send(&number.to_string());
        }
        wait::until(DEADLINE, "a record on its way", || {
            !server.posts().is_empty()
        });
        let socket = agent.socket();
        let _clients = (
            Raw::connect(&socket),
            raw::half_open(&socket),
            raw::half_sent(&socket, 100, 50),
        );
        let took = leave(&mut agent, signal);
        println!("{name}: {took:?}");
        let summary = stopped(&agent);
        assert_eq!(summary["reason"], name);
        assert_eq!(summary["left"], 5);
        assert_eq!(summary["buffered"], 5);
        assert_eq!(summary["delivered"], 0);
        assert_eq!(store::records(folder.path()).len(), 5);
    }
}

#[test]
fn a_server_that_never_answers_a_probe_holds_no_agent() {
    let folder = temp_folder();
    let server = MainServer::new_up();
    server.on_get(|_| Answer::ok().then(Ending::Never));
    let mut agent = fixture::start(folder.path(), &server);
    wait::until(DEADLINE, "a probe", || !server.gets().is_empty());
    agent.send("1");
    leave(&mut agent, Signal::TERM);
    assert_eq!(stopped(&agent)["left"], 1);
}

/// A signal that comes as soon as the socket can be seen, or sooner.
#[test]
fn a_signal_right_after_the_start_is_not_too_early() {
    let server = MainServer::new_down();
    for _ in 0..20 {
        let folder = temp_folder();
        let mut agent = fixture::spawn(folder.path(), &server);
        let end = Instant::now() + DEADLINE;
        while !agent.socket().exists() {
            assert!(Instant::now() < end, "no socket");
        }
        leave(&mut agent, Signal::TERM);
    }
}

/// Sixteen clients that call without a pause while the signal comes.
#[test]
fn calls_in_flight_are_answered_and_what_was_acknowledged_is_left() {
    let (folder, _server, mut agent) = Fixture::down().parts();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let over = AtomicBool::new(false);
    let mut took = Duration::ZERO;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (socket, acknowledged) = (agent.socket(), &acknowledged);
            let over = &over;
            scope.spawn(move || {
                block_on(async {
                    let sender = Sender::keeping(&socket);
                    let lane = async || {
                        while let Ok(answer) = sender.send("{\"a\":1}", &[], "").await {
                            assert!(answer.success);
                            acknowledged.fetch_add(1, Relaxed);
                        }
                    };
                    tokio::join!(lane(), lane(), lane(), lane());
                });
                assert!(over.load(Relaxed), "a call failed before the signal");
            });
        }
        wait::until(DEADLINE, "traffic", || acknowledged.load(Relaxed) > 200);
        over.store(true, Relaxed);
        took = leave(&mut agent, Signal::TERM);
    });
    let left = store::records(folder.path()).len() as u64;
    let acknowledged = acknowledged.load(Relaxed);
    // Every connection is ended in order, so none that was stored has lost its answer;
    // unless the disk held them up for as long as they are waited for.
    let lost = left
        .checked_sub(acknowledged)
        .expect("acknowledged and not there");
    assert!(
        lost == 0 || (lost <= 16 && took > Duration::from_secs(1)),
        "{lost} without an answer"
    );
    let summary = stopped(&agent);
    assert_eq!(summary["left"], left);
    assert_eq!(summary["buffered"], left);
}

/// An agent that waits on takes 1.2 s at least, each time.
#[test]
fn a_second_signal_ends_it_at_once() {
    let quickest = (0..5).map(|_| ended_by_a_second_signal()).min();
    println!("second signal: {quickest:?}");
    assert!(quickest < Some(Duration::from_secs(1)), "{quickest:?}");
}

fn ended_by_a_second_signal() -> Duration {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let mut agent = Agent::hearing(folder.path())
        .health_url(&server.url())
        .spawn();
    agent.wait_socket();
    agent.send("1");
    // It waits for this one, after the first signal.
    let _half = raw::half_sent(&agent.socket(), 100, 50);
    wait::within(Duration::from_millis(200), || !agent.is_running());
    let at = Instant::now();
    agent.signal(Signal::TERM);
    agent.wait_event("grpc_server_stopping", DEADLINE);
    agent.signal(Signal::INT);
    agent.expect_exit(0, DEADLINE);
    let took = at.elapsed();
    assert_eq!(stopped(&agent)["left"], 1);
    assert_eq!(store::records(folder.path()).len(), 1);
    took
}

/// Closed standard streams, and a pipe that is full and is never read.
#[test]
fn closed_and_unread_streams_hold_nothing_up() {
    let folder = temp_folder();
    let pipe_path = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe_path).status();
    assert!(made.expect("mkfifo").success());
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut pipe: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblocking)
        .open(&pipe_path)
        .expect("open the pipe");
    while pipe.write(&[b'x'; 4096]).is_ok() {}
    while pipe.write(b"x").is_ok() {}
    let full = format!("exec \"$0\" \"$@\" >{0} 2>{0}", pipe_path.display());
    let unread = "exec \"$0\" \"$@\" 1>&3 2>&3 3>&-";
    let no_reader = format!(
        "exec 3>{}; rm {}; exec 1>&- 2>&-; {unread}",
        pipe_path.display(),
        pipe_path.display()
    );
    for (what, script) in [
        ("all closed", "exec \"$0\" \"$@\" <&- >&- 2>&-"),
        ("a full pipe", full.as_str()),
        ("a full device", "exec \"$0\" \"$@\" >/dev/full 2>/dev/full"),
        ("a pipe without a reader", &no_reader),
    ] {
        if what == "a full device" && !Path::new("/dev/full").exists() {
            continue;
        }
        let base = folder.path().join("base");
        let mut server = MainServer::new_down();
        let mut agent = Agent::by_shell(script, &base)
            .health_url(&server.url())
            .spawn();
        agent.wait_socket();
        if what == "a pipe without a reader" {
            // The shell opened it while there was one.
            pipe = tempfile::tempfile().expect("a file in its place");
        }
        agent.send("1");
        server.up();
        server.wait_delivered(1, DEADLINE);
        let logged = support::agent::session_file(&base, "agent.log").expect("a log");
        assert!(logged.contains("agent_started"), "{what}");
        leave(&mut agent, Signal::TERM);
        let logged = support::agent::session_file(&base, "agent.log").expect("a log");
        assert!(logged.contains("agent_stopped"), "{what}");
        fs::remove_dir_all(&base).expect("remove the folder");
    }
    drop(pipe);
}

/// The agent behind `unshare` and a shell script that ends in `exec "$0" "$@"`.
fn unshared(flags: &[&str], script: &str, folder: &Path, url: &str) -> Agent {
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", script]);
    command.arg(Agent::executable());
    Agent::from_command(command, folder).health_url(url).spawn()
}

#[test]
#[ignore = "needs root: a PID namespace"]
fn it_works_as_process_one() {
    let flags = ["--pid", "--fork"];
    let folder = temp_folder();
    let server = MainServer::new_down();
    let mut agent = unshared(&flags, "exec \"$0\" \"$@\"", folder.path(), &server.url());
    agent.wait_socket();
    let started = agent.wait_event("agent_started", DEADLINE);
    assert_eq!(started["pid"], 1);
    agent.send("1");
    let children = format!("/proc/{0}/task/{0}/children", agent.pid());
    let child = fs::read_to_string(children).expect("its child");
    let child = child.trim().parse().ok().and_then(Pid::from_raw);
    let at = Instant::now();
    kill_process(child.expect("a process id"), Signal::TERM).expect("signal");
    agent.expect_exit(0, DEADLINE);
    assert!(at.elapsed() < GONE);
    assert_eq!(stopped(&agent)["reason"], "SIGTERM");
    assert_eq!(store::records(folder.path()).len(), 1);
}

/// getaddrinfo(3) cannot be interrupted; a name server that does not answer
/// keeps it for many seconds.
#[test]
#[ignore = "needs root: port 53, and it mounts"]
fn a_name_that_is_being_resolved_holds_no_agent() {
    let flags = ["--mount"];
    let name_server = std::net::UdpSocket::bind("127.0.0.77:53").expect("port 53");
    name_server.set_nonblocking(true).expect("non-blocking");
    let folder = temp_folder();
    let conf = folder.path().join("resolv.conf");
    fs::write(
        &conf,
        "nameserver 127.0.0.77\noptions timeout:20 attempts:3\n",
    )
    .expect("write");
    let base = folder.path().join("base");
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"",
        conf.display()
    );
    let mut agent = unshared(&flags, &script, &base, "http://slow.example.com:5000");
    agent.wait_socket();
    wait::until(DEADLINE, "a question", || {
        name_server.recv(&mut [0; 512]).is_ok()
    });
    leave(&mut agent, Signal::TERM);
}

/// As a thread does that starts the agent and has blocked them for itself.
#[test]
fn signals_that_were_blocked_before_the_start_are_heard() {
    let server = MainServer::new_down();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let folder = temp_folder();
        let block = "pthread_sigmask(SIG_BLOCK, {SIGTERM, SIGINT, SIGHUP})";
        let mut agent = Agent::prepared(block, folder.path())
            .health_url(&server.url())
            .spawn();
        agent.wait_answering();
        agent.send("1");
        leave(&mut agent, signal);
    }
}

/// As `nohup` starts it, and a shell a job in the background. SIGTERM is heard even
/// where that was ignored.
#[test]
fn signals_that_were_ignored_before_the_start_stay_ignored() {
    let server = MainServer::new_down();
    for (ignored, one_heard) in [
        ("SIGHUP", Some(Signal::INT)),
        ("SIGINT", Some(Signal::HUP)),
        ("SIGHUP, SIGINT, SIGTERM", None),
    ] {
        let folder = temp_folder();
        let ignore = format!("for one in {{{ignored}}}: signal(one, SIG_IGN)");
        let mut agent = Agent::prepared(&ignore, folder.path())
            .health_url(&server.url())
            .spawn();
        agent.wait_answering();
        let names = ignored.split(", ").filter(|name| *name != "SIGTERM");
        for name in names {
            agent.signal(match name {
                "SIGHUP" => Signal::HUP,
                _ => Signal::INT,
            });
            agent.send("1");
        }
        wait::within(Duration::from_millis(300), || !agent.is_running());
        assert!(agent.is_running(), "{ignored}");
        agent.send("2");
        assert!(agent.events_named("grpc_server_stopping").is_empty());
        leave(&mut agent, one_heard.unwrap_or(Signal::TERM));
    }
}
