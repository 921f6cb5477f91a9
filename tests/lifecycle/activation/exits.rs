//! Clients that come while an agent leaves: no call fails, no record is lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::activation::unit::{DEADLINE, Unit, call, call_timed, sleep_micros};
use crate::support::agent::names_in;
use crate::support::rng::Rng;
use crate::support::server::MainServer;
use crate::support::temp_folder;

/// Applications at a time, each with a unit of its own.
const LANES: u64 = 8;
/// Calls of each.
const ROUNDS: u64 = 5;

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
    let mut rng = Rng(lane);
    for round in 0..ROUNDS {
        if round > 0 {
            wait_for_the_exit(&unit.folder, &mut rng);
        }
        let number = lane * ROUNDS + round;
        let answer = call(unit.connect(), &number.to_string());
        answer.unwrap_or_else(|status| panic!("record {number}: {status}"));
    }
}

/// Sleeps so that the next call falls near the agent's leaving.
fn wait_for_the_exit(folder: &Path, rng: &mut Rng) {
    match rng.below(3) {
        // By the clock: 2 s of quiet, a probe, and all that may happen.
        0 => sleep_micros(1_950_000 + rng.below(400_000)),
        // While the store is closed and the process ends.
        kind => {
            let end = Instant::now() + DEADLINE;
            let store = folder.join("lmdb");
            while store.exists() {
                assert!(Instant::now() < end, "the agent does not leave");
                sleep_micros(100);
            }
            sleep_micros(rng.below(if kind == 1 { 2_000 } else { 40_000 }));
        }
    }
}

/// Clients that call without a pause while one agent after the other is stopped.
#[test]
fn a_stopped_agent_leaves_waiting_clients_to_the_next() {
    const CLIENTS: u64 = 4;
    const STOPS: u64 = 12;
    /// Less than what an agent grants a client that has connected and says nothing yet.
    const SILENT: Duration = Duration::from_millis(200);
    /// Less than what it grants those it serves.
    const HELD_UP: Duration = Duration::from_secs(1);
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
                        let before = Instant::now();
                        let (answer, out) = call_timed(unit.connect(), &number.to_string());
                        match answer {
                            Ok(()) => drop(acknowledged.lock().expect("a lock").insert(number)),
                            // Held up, itself or the disk, for longer than an agent
                            // that is stopped may wait.
                            Err(_) if out - before > SILENT || before.elapsed() > HELD_UP => {}
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
            let rng = Mutex::new(Rng(1));
            unit.supervise(&over, |agent| {
                if stops.load(Relaxed) < STOPS {
                    agent.wait_event("agent_started", DEADLINE);
                    sleep_micros(rng.lock().expect("a lock").below(150_000));
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
