//! What was acknowledged is on disk, whenever the agent is killed (spec 4).

use crate::support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::fixture;
use echopost::store::record;
use support::agent::{Agent, names_in};
use support::rng::{Rng, rounds};
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{store, temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(300);

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// In flight when the agent was killed: stored or not.
    Unknown,
}

/// Clients that send one record at a time, each numbering its own, until a call
/// fails.
struct Clients {
    threads: Vec<JoinHandle<()>>,
    acks: Arc<AtomicUsize>,
}

type Fates = Arc<Mutex<HashMap<(usize, usize), Fate>>>;

impl Clients {
    fn start(socket: &Path, next: &[usize], fates: &Fates, seed: u64) -> Clients {
        let acks = Arc::new(AtomicUsize::new(0));
        let threads = next.iter().enumerate().map(|(client, &first)| {
            let (socket, fates, acks) = (socket.to_owned(), Arc::clone(fates), Arc::clone(&acks));
            std::thread::spawn(move || {
                block_on(async {
                    let sender = Sender::keeping(&socket);
                    for number in first.. {
                        let json = payload(client, number, seed);
                        let fate = match sender.send(&json, &["p"], "").await {
                            Ok(_) => Fate::Acknowledged,
                            Err(_) => Fate::Unknown,
                        };
                        fates
                            .lock()
                            .expect("no panic")
                            .insert((client, number), fate);
                        if fate == Fate::Unknown {
                            return;
                        }
                        acks.fetch_add(1, Relaxed);
                    }
                });
            })
        });
        Clients {
            threads: threads.collect(),
            acks,
        }
    }

    fn join(self) {
        for thread in self.threads {
            thread.join().expect("a client");
        }
    }
}

/// A record of this client and number: mostly small, now and then one that takes
/// pages of its own.
fn payload(client: usize, number: usize, seed: u64) -> String {
    let pad = match (seed as usize + client * 31 + number * 17) % 40 {
        0 => 300_000,
        1..4 => 6_000,
        other => other * 20,
    };
    format!(
        "{{\"client\":{client},\"number\":{number},\"pad\":\"{}\"}}",
        "x".repeat(pad)
    )
}

fn identity(json: &[u8]) -> (usize, usize) {
    let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    let number = |name: &str| usize::try_from(json[name].as_u64().expect("a number")).expect("64");
    (number("client"), number("number"))
}

#[test]
fn what_was_acknowledged_is_stored_whenever_the_agent_is_killed() {
    const CLIENTS: usize = 5;
    let mut rng = Rng::seeded();
    let folder = temp_folder();
    let server = MainServer::new_down();
    let fates = Fates::default();
    let mut next = vec![0; CLIENTS];
    for round in 0..rounds(20) {
        let seed = rng.below(1000);
        let mut agent = fixture::start(folder.path(), &server);
        let clients = Clients::start(&agent.socket(), &next, &fates, seed);
        let acks = 1 + rng.index(120);
        wait::until(DEADLINE, "the acks", || clients.acks.load(Relaxed) >= acks);
        // Not at an ack, but anywhere between two.
        std::thread::sleep(Duration::from_micros(rng.below(4000)));
        agent.sigkill();
        clients.join();
        let what = check_store(folder.path(), &fates.lock().expect("no panic"), round);
        println!("round {round}: killed after {acks} acks; {what}");
        for (client, next) in next.iter_mut().enumerate() {
            let fates = fates.lock().expect("no panic");
            while fates.contains_key(&(client, *next)) {
                *next += 1;
            }
        }
    }
}

/// Everything acknowledged is there, nothing that was not sent, each record
/// intact and in its client's order.
fn check_store(folder: &Path, fates: &HashMap<(usize, usize), Fate>, round: usize) -> String {
    let mut last_key = 0;
    let mut last = HashMap::new();
    let mut found = 0;
    let mut unknown_found = 0;
    for (key, value) in store::raw_records(folder) {
        assert!(key > last_key, "round {round}: key {key} after {last_key}");
        last_key = key;
        let stored = record::decode(key, value.into());
        let stored = stored.unwrap_or_else(|| panic!("round {round}: record {key} is damaged"));
        let (client, number) = identity(&stored.json_data);
        let fate = fates.get(&(client, number));
        let fate = fate.unwrap_or_else(|| panic!("round {round}: {client}/{number} was not sent"));
        unknown_found += usize::from(*fate == Fate::Unknown);
        let before = last.insert(client, number);
        assert!(
            before < Some(number),
            "round {round}: client {client} sent {number} after {before:?}"
        );
        found += usize::from(*fate == Fate::Acknowledged);
    }
    let acknowledged = fates
        .values()
        .filter(|fate| **fate == Fate::Acknowledged)
        .count();
    // Ascending numbers per client are different records.
    assert_eq!(found, acknowledged, "round {round}: acknowledged and lost");
    format!("{found} acknowledged, {unknown_found} stored without an answer")
}

#[test]
fn a_store_is_trusted_as_clean_after_a_signal_and_for_this_boot_after_a_kill() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let start = || {
        let mut agent = Agent::hearing(folder.path())
            .health_url(&server.url())
            .spawn();
        agent.wait_answering();
        block_on(Sender::keeping(&agent.socket()).send("1", &[], "")).expect("an ack");
        agent
    };
    let names = || names_in(&folder.path().join("lmdb"));
    let trusted = || fs::read_to_string(folder.path().join("lmdb/trusted"));
    let trusted = || trusted().expect("what says that the store is trusted");

    let mut agent = start();
    let boot = trusted();
    assert!(!boot.starts_with("clean "), "{boot}");
    agent.signal(rustix::process::Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    assert_eq!(names(), ["data.mdb", "delivered", "trusted"]);
    assert!(trusted().starts_with("clean "), "{}", trusted());

    let mut agent = start();
    assert_eq!(trusted(), boot, "after the first commit");
    agent.sigkill();
    assert_eq!(trusted(), boot, "after SIGKILL");

    let mut agent = start();
    agent.signal(rustix::process::Signal::HUP);
    agent.expect_exit(0, DEADLINE);
    assert!(trusted().starts_with("clean "), "{}", trusted());
    assert_eq!(store::records(folder.path()).len(), 3);
}
