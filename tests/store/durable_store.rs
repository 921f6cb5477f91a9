//! Keys, commits and the map of the store (spec 4).
#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports))] // a test that needs /proc

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::fixture::{self, Fixture, side_by_side};
use echopost::proto::store::StoredRecord;
use echopost::store::lmdb::Lmdb;
use echopost::store::record;
use rustix::process::Signal;
use support::agent::Agent;
use support::pages::Pages;
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{store, temp_folder, wait};
use tokio::task::JoinSet;
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(60);

/// 2096: a clock that will have been set back when the agent starts.
const AHEAD: u64 = 3_976_214_400_000_000_000;

/// A record as it is stored, for [`store::put_raw`].
fn stored(key: u64, json: &str) -> (u64, Vec<u8>) {
    let record = StoredRecord {
        json_data: json.as_bytes().to_vec().into(),
        received_at: key,
        ..StoredRecord::default()
    };
    (key, record::encoded(key, &record))
}

#[test]
fn records_of_a_clock_that_was_ahead_keep_their_place() {
    let ahead = AHEAD;
    let folder = temp_folder();
    store::put_raw(folder.path(), &[stored(ahead - 9, "1"), stored(ahead, "2")]);
    let mut server = MainServer::new_down();
    let mut agent = fixture::start(folder.path(), &server);
    agent.send("3");
    agent.send("4");
    agent.sigkill();
    let keys: Vec<u64> = store::records(folder.path()).iter().map(|r| r.0).collect();
    assert_eq!(keys, [ahead - 9, ahead, ahead + 1, ahead + 2]);

    let mut agent = fixture::start(folder.path(), &server);
    agent.send("5");
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered_json(), [b"1", b"2", b"3", b"4", b"5"]);
    let keys: Vec<String> = server
        .delivered()
        .iter()
        .map(|request| request.header("idempotency-key").expect("a key").to_owned())
        .collect();
    // The id that was in the store, then each key.
    let id = "07".repeat(16);
    let expected = [ahead - 9, ahead, ahead + 1, ahead + 2, ahead + 3];
    assert_eq!(keys, expected.map(|key| format!("\"{id}-{key}\"")));
}

/// A disk that lies about its flushes sets the store back in a power cut, and may
/// keep a mark that was written later.
#[test]
fn a_mark_that_is_newer_than_its_store_takes_no_record_along() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let life = |server: &MainServer| fixture::start(folder.path(), server);
    let keys = || -> Vec<u64> { store::records(folder.path()).iter().map(|r| r.0).collect() };
    store::put_raw(folder.path(), &[stored(1, "1"), stored(2, "2")]);
    let mut mark = [7; 16].to_vec();
    mark.extend(AHEAD.to_be_bytes());
    mark.extend(crc32fast::hash(&mark).to_be_bytes());
    fs::write(folder.path().join("lmdb/delivered"), mark).expect("write the mark");
    let mut agent = life(&server);
    agent.send("3");
    agent.sigkill();
    assert_eq!(keys(), [AHEAD + 1]);
    let mut agent = life(&server);
    agent.send("4");
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered_json(), [b"3", b"4"]);
}

/// What an agent in standby has sent is no measure for a store that is put
/// into its folder.
#[test]
fn a_store_that_is_put_back_while_the_agent_sleeps_is_sent_whole() {
    let (folder, server, agent) = Fixture::standby(MainServer::new_up()).parts();
    agent.send("1");
    let asleep = || agent.events_named("standby").len() == 2;
    wait::until(DEADLINE, "standby", asleep);
    store::put_raw(folder.path(), &[stored(1, "2"), stored(2, "3")]);
    agent.send("4");
    wait::until(DEADLINE, "everything", || {
        server.delivered_json() == [b"1", b"2", b"3", b"4"]
    });
}

#[test]
fn calls_that_arrive_together_share_a_commit() {
    const IN_FLIGHT: usize = 64;
    const ROUNDS: usize = 20;
    let (folder, _server, mut agent) = Fixture::down().parts();
    block_on(async {
        let senders: Vec<_> = (0..4)
            .map(|_| Arc::new(Sender::keeping(&agent.socket())))
            .collect();
        for sender in &senders {
            sender.send("{}", &[], "").await.expect("an ack");
        }
        for _ in 0..ROUNDS {
            // They wait at the agent when it goes on, however slow this client is.
            agent.stop();
            let mut calls = JoinSet::new();
            for lane in 0..IN_FLIGHT {
                let sender = Arc::clone(&senders[lane % 4]);
                calls.spawn(async move { sender.send("{}", &[], "").await.expect("an ack") });
            }
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            agent.signal(Signal::CONT);
            calls.join_all().await;
        }
    });
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    let records = store::records(folder.path()).len();
    assert_eq!(records, 4 + ROUNDS * IN_FLIGHT);
    let commits = store::commits(folder.path());
    println!("{records} calls, {commits} commits");
    assert!(
        commits <= records / 8,
        "{commits} commits for {records} calls"
    );
    assert!(commits > ROUNDS, "an ack before a commit?");
}

/// The agent where a process may have so many KiB of address space.
fn start_within(kib: u64, folder: &std::path::Path, server: &MainServer) -> Agent {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v \"$0\" && exec \"$@\""])
        .arg(kib.to_string())
        .arg(Agent::executable());
    let mut agent = Agent::from_command(command, folder)
        .health_url(&server.url())
        .spawn();
    agent.wait_answering();
    agent
}

/// Address space of an agent, in KiB, that has 256 MiB of it for its map.
fn usual_address_space(server: &MainServer) -> u64 {
    let folder = temp_folder();
    let agent = fixture::start(folder.path(), server);
    block_on(Sender::keeping(&agent.socket()).send("1", &[], "")).expect("an ack");
    agent.status_kib("VmPeak:").expect("/proc")
}

/// Valid JSON of so many bytes that starts with a number.
fn large(number: usize, bytes: usize) -> String {
    format!("[{number},\"{}\"]", "x".repeat(bytes))
}

#[test]
#[cfg(target_os = "linux")]
fn the_map_grows_as_far_as_the_address_space_goes() {
    const MIB: usize = 1 << 20;
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    // The map starts with a part of what it has, and has to grow by less than
    // its own size.
    let others = usual_address_space(&server) - 256 * 1024;
    let kib = others + 100 * 1024;
    let mut agent = start_within(kib, folder.path(), &server);
    let mut acknowledged = 0;
    let refusal = loop {
        let size = [MIB, 4 * MIB - 200, 2 * MIB][acknowledged % 3];
        match block_on(Sender::keeping(&agent.socket()).send(&large(acknowledged, size), &[], "")) {
            Ok(_) => acknowledged += 1,
            Err(status) => break status,
        }
    };
    println!("{acknowledged} records");
    assert!(agent.is_running(), "{refusal:?} {}", agent.stderr());
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal:?}");
    assert!(
        refusal.message().contains("store full") && refusal.message().contains("address space"),
        "{refusal:?}"
    );
    assert!(acknowledged >= 12, "only {acknowledged} records fit");

    // What was acknowledged survives, also within the same limits.
    agent.sigkill();
    let mut agent = start_within(kib, folder.path(), &server);
    let first = |json: &[u8]| -> usize {
        let text = String::from_utf8_lossy(&json[1..8.min(json.len())]).into_owned();
        let number = text.split(',').next().expect("a first part");
        number.parse().expect("a number")
    };
    let send = |number| {
        let json = large(number, 4 * MIB - 200);
        block_on(Sender::keeping(&agent.socket()).send(&json, &[], ""))
    };
    let still = loop {
        match send(acknowledged) {
            // A map that is made at once has a little more room than one that grew.
            Ok(_) => acknowledged += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(still.code(), Code::ResourceExhausted, "{still:?}");
    server.up();
    // Deletes make room for further records while the agent goes on.
    wait::until(DEADLINE, "room again", || {
        let json = large(acknowledged, MIB);
        block_on(Sender::keeping(&agent.socket()).send(&json, &[], "")).is_ok()
    });
    agent.expect_exit(0, DEADLINE);
    let mut delivered: Vec<usize> = server.delivered_json().iter().map(|j| first(j)).collect();
    delivered.dedup();
    assert_eq!(delivered, (0..=acknowledged).collect::<Vec<_>>());
}

/// Opens a store of `count` records of 300 bytes, whose keys count from 1, after
/// `damage` was done to its data file.
fn numbered(folder: &Path, count: u64, damage: impl FnOnce(&mut [u8])) -> Lmdb {
    let path = folder.join("lmdb");
    let mut lmdb = Lmdb::open(&path, None, None).expect("a new store");
    lmdb.write(count * 300, &mut |_, trees, txn| {
        let mut keys = 1..=count;
        keys.try_for_each(|key| trees.append(txn, false, key, &[0; 300]))
    })
    .expect("a commit");
    drop(lmdb);
    let data = path.join("data.mdb");
    let mut bytes = fs::read(&data).expect("the data file");
    damage(&mut bytes);
    fs::write(&data, bytes).expect("damage it");
    // What another test is about to start may still hold the file's lock.
    wait::some(DEADLINE, || Lmdb::open(&path, None, None).ok()).expect("the store")
}

/// The keys in the order in which they are read, each batch being deleted before the
/// next or only `late`.
fn read_all(lmdb: &mut Lmdb, late: bool) -> Vec<u64> {
    let mut keys = Vec::new();
    let mut last = 0;
    loop {
        let batch = lmdb.read_after(last).expect("a batch");
        let Some((key, _)) = batch.last() else {
            return keys;
        };
        last = *key;
        keys.extend(batch.iter().map(|(key, _)| key));
        if !late || keys.len() % 512 == 0 {
            lmdb.write(0, &mut |lmdb, trees, txn| {
                trees.delete_through(lmdb, txn, last)
            })
            .expect("a delete");
        }
    }
}

/// A check after a clean end may run out of time, and what it has not read may be
/// wrong: a key in a branch page that sends a search past records must not have them
/// deleted unread.
#[test]
fn a_wrong_branch_page_hides_no_record() {
    for late in [false, true] {
        // Where a batch ends and the next search begins.
        for end in [64, 512, 1024] {
            let folder = temp_folder();
            let mut found = 0;
            let mut lmdb = numbered(folder.path(), 2_000, |bytes| {
                for at in Pages::of(bytes).branch_keys(bytes) {
                    let key: &mut [u8; 8] = (&mut bytes[at..at + 8]).try_into().expect("8");
                    // The records from `end` on seem to be on the next page.
                    if (end + 1..end + 12).contains(&u64::from_be_bytes(*key)) && found == 0 {
                        *key = end.to_be_bytes();
                        found += 1;
                    }
                }
            });
            assert_eq!(found, 1, "keys of a branch page");
            let keys = read_all(&mut lmdb, late);
            assert_eq!(keys, (1..=2_000).collect::<Vec<_>>(), "{late} {end}");
            let left = if late { 2_000 % 512 } else { 0 };
            assert_eq!(lmdb.count().expect("a count"), left);
        }
    }
}

/// Where a mark is newer than its store, what comes before it is done with.
#[test]
fn reading_goes_on_after_a_key_that_is_not_there() {
    let folder = temp_folder();
    let lmdb = numbered(folder.path(), 100, |_| {});
    let first = |after| {
        let batch = lmdb.read_after(after).expect("a batch");
        batch.first().map(|(key, _)| *key)
    };
    assert_eq!(first(0), Some(1));
    assert_eq!(first(7), Some(8));
    assert_eq!(first(100), None);
    assert_eq!(first(1_000), None);
    assert_eq!(lmdb.key_of_first(3, 100).expect("a key"), 3);
    assert_eq!(lmdb.key_of_first(3, 2).expect("a key"), 2);
}

/// What is no store must not keep the agent waiting.
#[test]
fn pipes_in_the_places_of_the_store_are_passed_over() {
    let names = ["trusted", "verified", "data.mdb", "delivered"];
    side_by_side(names, |name| {
        let folder = temp_folder();
        store::put_raw(folder.path(), &[stored(AHEAD, "1")]);
        let place = folder.path().join("lmdb").join(name);
        let had_records = name == "data.mdb";
        if had_records {
            fs::remove_file(&place).expect("remove the data file");
        }
        let made = std::process::Command::new("mkfifo").arg(&place).status();
        assert!(made.expect("mkfifo").success());
        let mut server = MainServer::new_down();
        let mut agent = fixture::start(folder.path(), &server);
        agent.send("2");
        server.up();
        agent.expect_exit(0, DEADLINE);
        let expected: &[&[u8]] = if had_records { &[b"2"] } else { &[b"1", b"2"] };
        assert_eq!(server.delivered_json(), expected, "{name}");
    });
}
