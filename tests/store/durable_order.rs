//! Everything acknowledged arrives, in order, over kills at any moment and a
//! server that comes and goes (spec 4 and 6).

use crate::support;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::fixture;
use support::agent::names_in;
use support::rng::{Rng, rounds};
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(300);
/// What a kill may send twice: a group of deletes and the one in flight (spec 6).
const TWICE_PER_KILL: usize = 64 + 1;

/// A client that sends its records one after the other, each until it is
/// acknowledged, and no more of them than it is allowed to.
struct Client {
    thread: JoinHandle<()>,
    acks: Arc<AtomicUsize>,
    allowed: Arc<AtomicUsize>,
}

impl Client {
    fn start(socket: &Path, client: usize, count: usize) -> Client {
        let acks = Arc::new(AtomicUsize::new(0));
        let allowed = Arc::new(AtomicUsize::new(0));
        let (socket, acked, limit) = (socket.to_owned(), Arc::clone(&acks), Arc::clone(&allowed));
        let thread = std::thread::spawn(move || {
            block_on(async {
                let sender = Sender::keeping(&socket);
                for number in 0..count {
                    while number >= limit.load(Relaxed) {
                        tokio::time::sleep(wait::POLL).await;
                    }
                    let json = format!("{{\"client\":{client},\"number\":{number}}}");
                    while sender.send(&json, &[], "").await.is_err() {
                        tokio::time::sleep(wait::POLL).await;
                    }
                    acked.fetch_add(1, Relaxed);
                }
            });
        });
        Client {
            thread,
            acks,
            allowed,
        }
    }
}

#[test]
fn everything_acknowledged_arrives_in_order_over_kills_and_a_flapping_server() {
    const PER_ROUND: usize = 150;
    let mut rng = Rng::seeded();
    let rounds = rounds(8);
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let start = |server: &MainServer| fixture::start(folder.path(), server);
    let mut agent = start(&server);
    let clients: Vec<Client> = (0..2)
        .map(|client| Client::start(&agent.socket(), client, rounds * PER_ROUND))
        .collect();
    let acks = || -> usize { clients.iter().map(|client| client.acks.load(Relaxed)).sum() };
    // For each life of the agent, how many deliveries there were at its end, and
    // how often the server went away in it.
    let mut lives = vec![];
    let (mut kills_in_replay, mut downs) = (0, 0);
    for round in 1..=rounds {
        server.down();
        downs += 1;
        if !agent.is_running() {
            // Everything was delivered, and no client called for a while.
            agent = start(&server);
        }
        for client in &clients {
            client.allowed.store(round * PER_ROUND, Relaxed);
        }
        let missing = 2 * round * PER_ROUND - acks();
        let target = acks() + 1 + rng.index(missing);
        wait::until(DEADLINE, "acks", || {
            if !agent.is_running() {
                // It was about to leave when the server went down.
                agent = start(&server);
            }
            acks() >= target
        });
        std::thread::sleep(Duration::from_micros(rng.below(3000)));
        if !rng.chance(1, 4) {
            agent.sigkill();
            lives.push((server.delivered().len(), std::mem::take(&mut downs)));
            agent = start(&server);
        }

        // One may have arrived whose client has not counted the ack yet.
        let backlog = acks().saturating_sub(arrived(&server)).max(1);
        let target = server.delivered().len() + 1 + rng.index(backlog);
        server.up();
        wait::until(DEADLINE, "deliveries", || {
            server.delivered().len() >= target
        });
        std::thread::sleep(Duration::from_micros(rng.below(3000)));
        if !rng.chance(1, 4) {
            agent.sigkill();
            lives.push((server.delivered().len(), std::mem::take(&mut downs)));
            kills_in_replay += 1;
            agent = start(&server);
        }
    }
    for client in &clients {
        client.allowed.store(usize::MAX, Relaxed);
    }
    server.up();
    wait::until(DEADLINE, "every ack", || {
        if !agent.is_running() {
            // It found nothing to do between two calls; the next call finds no
            // agent, as the SDK does, which then starts one.
            agent = start(&server);
        }
        acks() == 2 * rounds * PER_ROUND
    });
    agent.expect_exit(0, DEADLINE);
    for client in clients {
        client.thread.join().expect("a client");
    }
    let kills = lives.len();
    lives.push((server.delivered().len(), downs));
    let duplicates = check_deliveries(&server, rounds * PER_ROUND, &lives);
    println!("{kills} kills ({kills_in_replay} in replay), duplicates {duplicates:?}");
    let mut left = names_in(folder.path());
    left.dedup();
    assert_eq!(left, ["session"]);
}

/// Different records that have arrived.
fn arrived(server: &MainServer) -> usize {
    let records: HashSet<Vec<u8>> = server.delivered_json().into_iter().collect();
    records.len()
}

/// Each client's records arrived, first deliveries in order, and no life sent
/// more of what had arrived before than the end of the life before it explains;
/// returns how many in each life.
fn check_deliveries(server: &MainServer, count: usize, lives: &[(usize, usize)]) -> Vec<usize> {
    let mut expected: HashMap<u64, u64> = HashMap::new();
    let mut keys = HashSet::new();
    let mut duplicates = vec![0; lives.len()];
    for (at, request) in server.delivered().iter().enumerate() {
        let json: serde_json::Value = serde_json::from_slice(request.log_data()).expect("JSON");
        let client = json["client"].as_u64().expect("a client");
        let number = json["number"].as_u64().expect("a number");
        let key = request.header("idempotency-key").expect("a key");
        if !keys.insert(key.to_owned()) {
            let life = lives.partition_point(|(end, _)| *end <= at);
            duplicates[life] += 1;
        }
        let next = expected.entry(client).or_default();
        assert!(
            number <= *next,
            "client {client}: {number} before {next} had come"
        );
        *next = (*next).max(number + 1);
    }
    let count = count as u64;
    assert_eq!(expected, HashMap::from([(0, count), (1, count)]));
    for (duplicates, (_, downs)) in duplicates.iter().zip(lives) {
        // The answer that a server's end cut off comes on top.
        assert!(*duplicates <= TWICE_PER_KILL + downs, "{duplicates}");
    }
    duplicates
}
