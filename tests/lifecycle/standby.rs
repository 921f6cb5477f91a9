//! `-standby` (spec 5.8).

use crate::support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use support::agent::{Agent, names_in};
use support::fixture::side_by_side;
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{temp_folder, wait};
use tokio::task::JoinSet;

const DEADLINE: Duration = Duration::from_secs(20);

/// Stores these at once, over one connection.
fn send(socket: &Path, records: &[String]) {
    let sender = std::sync::Arc::new(Sender::keeping(socket));
    block_on(async {
        let mut calls = JoinSet::new();
        for json in records {
            let (sender, json) = (sender.clone(), json.clone());
            calls.spawn(async move { sender.send(&json, &["p"], "k").await });
        }
        while let Some(answer) = calls.join_next().await {
            assert!(answer.expect("no panic").expect("an answer").success);
        }
    });
}

/// How often the process has gone to sleep so far; 0 where it is not counted.
fn naps(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.map_or(0, |count| count.trim().parse().expect("a number"))
}

/// From sleep to sleep, over two outages.
#[test]
fn in_standby_it_sleeps_without_a_store_and_wakes_with_a_record() {
    let folder = temp_folder();
    let mut server = MainServer::new_up();
    fs::write(folder.path().join("agent-status.lock"), "").expect("a crash's flag");
    let mut agent = Agent::builder(folder.path())
        .health_url(&server.url())
        .arg("-standby")
        .spawn();
    agent.wait_socket();
    agent.wait_event("standby", DEADLINE);
    let asleep = ["data-nadhi-agent.sock", "session"];
    assert_eq!(names_in(folder.path()), asleep);
    let socket = fs::symlink_metadata(agent.socket()).expect("the socket");
    let before = naps(agent.pid());
    // Longer than it takes an agent without -standby to probe and to leave.
    wait::within(Duration::from_millis(3500), || !agent.is_running());
    assert_eq!(server.gets().len(), 0, "it probes in its sleep");
    let naps = naps(agent.pid()) - before;
    println!("woken {naps} times in 3.5 s of standby");
    assert!(naps <= 4 * 7 / 2, "woken {naps} times (spec 5.7)");
    let mut store_ids = Vec::new();
    for outage in 0..2 {
        server.down();
        send(&agent.socket(), &[outage.to_string()]);
        assert!(folder.path().join("lmdb").is_dir());
        let unhealthy = || agent.events_named("main_unhealthy_accepting_logs").len();
        wait::until(DEADLINE, "buffering", || unhealthy() == outage + 1);
        assert!(folder.path().join("agent-status.lock").exists());
        server.up();
        server.wait_delivered(outage + 1, DEADLINE);
        let slept = || agent.events_named("standby").len();
        wait::until(DEADLINE, "sleep", || slept() == outage + 2);
        assert_eq!(names_in(folder.path()), asleep);
        let posts = server.posts();
        let key = posts[outage].header("idempotency-key").expect("a key");
        let id = key
            .trim_matches('"')
            .rsplit_once('-')
            .expect("a store id")
            .0;
        store_ids.push(id.to_owned());
        let probes = server.gets().len();
        wait::within(Duration::from_millis(700), || !agent.is_running());
        assert_eq!(server.gets().len(), probes, "it probes in its sleep");
    }
    assert_ne!(store_ids[0], store_ids[1]);
    assert_eq!(server.delivered_json(), [b"0", b"1"]);
    use std::os::unix::fs::MetadataExt;
    let now = fs::symlink_metadata(agent.socket()).expect("the socket");
    assert_eq!(now.ino(), socket.ino(), "the socket is kept");
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    assert_eq!(names_in(folder.path()), ["session"]);
    let last = agent.events().pop().expect("an event");
    assert_eq!(last["reason"], "SIGTERM");
    assert_eq!(last["delivered"], 2);
    assert_eq!(last["left"], 0);
}

/// Records of an earlier life are no reason to sleep.
#[test]
fn in_standby_it_first_sends_what_was_left() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let builder = || Agent::builder(folder.path()).health_url(&server.url());
    let mut before = builder().spawn();
    before.wait_socket();
    send(&before.socket(), &["1".to_owned()]);
    before.signal(Signal::TERM);
    before.expect_exit(0, DEADLINE);
    let agent = builder().arg("-standby").spawn();
    server.up();
    server.wait_delivered(1, DEADLINE);
    agent.wait_event("standby", DEADLINE);
    wait::until(DEADLINE, "no store", || {
        !folder.path().join("lmdb").exists()
    });
    assert!(agent.socket().exists());
}

/// What an outage has needed is given back; also where malloc was tuned already.
/// The size report holds the agent as it is shipped to the budget of spec 9; with
/// malloc's cache of the thread this one keeps 260 KiB, and 120 without.
#[cfg(target_os = "linux")]
#[test]
fn in_standby_an_outage_leaves_little_memory_behind() {
    let records: Vec<_> = (0..3_000).map(|n| format!("\"{n:0300}\"")).collect();
    side_by_side(["", "glibc.malloc.top_pad=65536"], |tunables| {
        let folder = temp_folder();
        let mut server = MainServer::new_down();
        let mut agent = Agent::builder(folder.path())
            .health_url(&server.url())
            .env("GLIBC_TUNABLES", tunables)
            .arg("-standby")
            .spawn();
        agent.wait_socket();
        agent.wait_event("standby", DEADLINE);
        let before = agent.anonymous_kib().expect("/proc");
        send(&agent.socket(), &records);
        server.up();
        server.wait_delivered(records.len(), DEADLINE);
        // A second after it has fallen asleep.
        let taken = || agent.anonymous_kib().expect("/proc").saturating_sub(before);
        let given_back = wait::within(DEADLINE, || {
            !folder.path().join("lmdb").exists() && taken() <= 190
        });
        assert!(given_back, "{} KiB more than before, {tunables:?}", taken());
    });
}

/// It turns off a cache of malloc's (size-report/README.md) by a variable that may
/// hold another's settings.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[ignore = "needs root: it looks into a process that dumps no core"]
fn what_malloc_was_told_before_stays_told() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let own = "glibc.malloc.tcache_count=0";
    for (before, after) in [
        ("", own),
        (
            "glibc.malloc.check=0",
            "glibc.malloc.tcache_count=0:glibc.malloc.check=0",
        ),
        (own, own),
    ] {
        let mut agent = Agent::builder(folder.path())
            .health_url(&server.url())
            .env("GLIBC_TUNABLES", before)
            .arg("-standby")
            .spawn();
        agent.wait_event("agent_started", DEADLINE);
        let variables = fs::read(format!("/proc/{}/environ", agent.pid()));
        let mut variables = variables.expect("its variables");
        // glibc may have put an end behind each setting.
        variables
            .iter_mut()
            .filter(|byte| **byte == 0)
            .for_each(|byte| *byte = b':');
        let variables = String::from_utf8_lossy(&variables);
        let expected = format!("GLIBC_TUNABLES={after}:");
        assert!(
            variables.contains(&expected),
            "no {expected} in {variables}"
        );
        agent.signal(Signal::TERM);
        agent.expect_exit(0, DEADLINE);
    }
}
