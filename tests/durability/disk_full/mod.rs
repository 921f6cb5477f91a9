//! Full disks (spec 4): small file systems, really filled.
#![cfg(target_os = "linux")]

use crate::small;
use crate::support;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use small::{Kind, SmallDisk};
use support::agent::{Agent, session_file};
use support::fixture::side_by_side;
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{pages, store, temp_folder, wait};
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(60);
const KINDS: [Kind; 2] = [Kind::Tmpfs, Kind::Ext4];
const MIB: u64 = 1 << 20;

/// An agent on a small disk, whose main server is down.
fn start(kind: Kind) -> (SmallDisk, MainServer, Agent) {
    let disk = SmallDisk::new(kind);
    let server = MainServer::new_down();
    let mut agent = disk.agent(&server).spawn();
    agent.wait_answering();
    (disk, server, agent)
}

fn send(agent: &Agent, number: usize, bytes: usize) -> Result<(), Status> {
    let json = format!("[{number},\"{}\"]", "x".repeat(bytes));
    block_on(Sender::keeping(&agent.socket()).send(&json, &[], "")).map(drop)
}

/// Sends records until one is refused; returns the next number.
fn send_until_full(agent: &Agent, first: usize, bytes: usize) -> usize {
    for number in first.. {
        if let Err(status) = send(agent, number, bytes) {
            expect_full(&status);
            return number;
        }
    }
    unreachable!("a disk without end")
}

#[track_caller]
fn expect_full(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("disk full"), "{status:?}");
}

/// The numbers that were delivered, without repetitions.
fn delivered(server: &MainServer) -> Vec<usize> {
    let number = |json: &Vec<u8>| {
        let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        usize::try_from(json[0].as_u64().expect("a number")).expect("small")
    };
    let mut known = HashSet::new();
    let numbers = server.delivered_json();
    let numbers = numbers.iter().map(number);
    numbers.filter(|number| known.insert(*number)).collect()
}

fn expect_drained(agent: &mut Agent, server: &MainServer, count: usize, what: &str) {
    agent.expect_exit(0, DEADLINE);
    assert!(delivered(server).into_iter().eq(0..count), "{what}");
    // A damaged store's file stays.
    let left = std::fs::read_dir(agent.folder().join("lmdb"));
    for name in left
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
    {
        let name = name.to_string_lossy();
        assert!(name.starts_with("data.mdb.damaged-"), "{what}: {name}");
    }
}

#[test]
#[ignore = "needs root: it mounts"]
fn ingest_ends_at_the_reserve_and_comes_back_with_the_space() {
    side_by_side(KINDS, |kind| {
        let (disk, mut server, mut agent) = start(kind);
        disk.fill_bytes(6 * MIB as usize);
        let stat = rustix::fs::statvfs(disk.folder()).expect("statvfs");
        let total = stat.f_blocks * stat.f_frsize;
        let reserve = (total / 4).min(4 * MIB);
        let count = send_until_full(&agent, 0, 60_000);
        // What the events take comes on top.
        let left = disk.available() + 64 * 1024;
        assert!(left >= reserve, "{kind:?}: {left} left of {reserve}");
        assert!(left < reserve + 2 * MIB, "{kind:?}: full with {left} left");
        assert!(count > 20, "{kind:?}: only {count} records");
        disk.empty();
        wait::until(DEADLINE, "an ack", || send(&agent, count, 60_000).is_ok());
        let count = send_until_full(&agent, count + 1, 60_000);
        let left = disk.available() + 64 * 1024;
        assert!(left >= reserve, "{kind:?}: {left} left of {reserve}");
        server.up();
        expect_drained(&mut agent, &server, count, &format!("{kind:?}"));
    });
}

#[test]
#[ignore = "needs root: it mounts"]
fn replay_delete_and_exit_work_with_hardly_a_free_block() {
    let mut cases = vec![];
    for kind in KINDS {
        cases.extend([0, 1, 2, 3, 5, 9].map(|blocks| (kind, blocks)));
    }
    side_by_side(cases, |(kind, blocks)| {
        let (disk, mut server, mut agent) = start(kind);
        for number in 0..300 {
            send(&agent, number, 700).expect("an ack");
        }
        disk.fill(blocks);
        expect_full(&send(&agent, 300, 700).expect_err("an ack without a free block"));
        server.up();
        expect_drained(
            &mut agent,
            &server,
            300,
            &format!("{kind:?}, {blocks} left"),
        );
    });
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_killed_agents_store_is_drained_by_one_that_starts_on_a_full_disk() {
    let mut cases = vec![];
    for kind in KINDS {
        cases.extend([0, 2].map(|blocks| (kind, blocks)));
    }
    side_by_side(cases, |(kind, blocks)| {
        let (disk, mut server, mut agent) = start(kind);
        let count = send_until_full(&agent, 0, 50_000);
        agent.sigkill();
        disk.fill(blocks);
        let mut agent = disk.agent(&server).spawn();
        agent.wait_answering();
        expect_full(&send(&agent, count, 10).expect_err("an ack on a full disk"));
        // An orderly end on a full disk, too.
        agent.signal(Signal::TERM);
        agent.expect_exit(0, DEADLINE);
        let mut agent = disk.agent(&server).spawn();
        agent.wait_answering();
        server.up();
        expect_drained(
            &mut agent,
            &server,
            count,
            &format!("{kind:?}, {blocks} left"),
        );
    });
}

/// The mark of what is delivered has its place from the start.
#[test]
#[ignore = "needs root: it mounts"]
fn a_kill_on_a_full_disk_repeats_no_more_than_elsewhere() {
    side_by_side(KINDS, |kind| {
        let (disk, mut server, mut agent) = start(kind);
        let count = 600;
        for number in 0..count {
            send(&agent, number, 700).expect("an ack");
        }
        agent.sigkill();
        disk.fill(0);
        server.up();
        for kills in 1..=3 {
            let mut agent = disk.agent(&server).spawn();
            server.wait_delivered(150 * kills, DEADLINE);
            agent.sigkill();
        }
        let mut agent = disk.agent(&server).spawn();
        expect_drained(&mut agent, &server, count, &format!("{kind:?}"));
        let repeated = server.delivered().len() - count;
        assert!(repeated <= 3 * 64, "{kind:?}: {repeated} repeated");
    });
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_new_store_that_finds_no_room_refuses_until_it_does() {
    let mut cases = vec![];
    for kind in KINDS {
        cases.extend([0, 1, 2, 3, 4, 6].map(|blocks| (kind, blocks)));
    }
    side_by_side(cases, |(kind, blocks)| {
        let disk = SmallDisk::new(kind);
        disk.fill(blocks);
        let mut server = MainServer::new_down();
        let mut agent = disk.agent(&server).spawn();
        // A folder that cannot take the name of a socket is exit 73.
        let ended = wait::some(DEADLINE, || match agent.is_running() {
            true => std::os::unix::net::UnixStream::connect(agent.socket())
                .is_ok()
                .then_some(false),
            false => Some(true),
        });
        assert_eq!(ended, Some(false), "{kind:?} {}", agent.stderr());
        let refusal = send(&agent, 0, 10).expect_err("an ack on a full disk");
        assert!(agent.is_running(), "{kind:?} {blocks}: {}", agent.stderr());
        expect_full(&refusal);
        disk.empty();
        wait::until(DEADLINE, "an ack", || send(&agent, 0, 10).is_ok());
        send(&agent, 1, 100_000).expect("an ack");
        server.up();
        expect_drained(&mut agent, &server, 2, &format!("{kind:?}, {blocks} left"));
        // The logs, too, go on where there is room again, and with whole lines.
        let lines = |name| {
            let log = session_file(agent.folder(), name).expect(name);
            log.lines()
                .map(|line| serde_json::from_str(line).expect("a JSON line"))
                .collect::<Vec<serde_json::Value>>()
        };
        let last = lines("agent.log").pop().expect("events");
        assert_eq!(last["event"], "agent_stopped", "{kind:?}, {blocks} left");
        let counts = lines("agent-success.log").into_iter();
        let count: Option<u64> = counts.map(|line| line["count"].as_u64()).sum();
        assert_eq!(count, Some(2), "{kind:?}, {blocks} left");
    });
}

#[test]
#[ignore = "needs root: it mounts"]
fn an_agent_without_a_record_leaves_a_full_disk() {
    let disk = SmallDisk::new(Kind::Tmpfs);
    disk.fill(0);
    let server = MainServer::new_up();
    let mut agent = disk.agent(&server).spawn();
    expect_drained(&mut agent, &server, 0, "nothing to do");
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_damaged_store_waits_for_the_room_to_be_carried_over() {
    let (disk, mut server, mut agent) = start(Kind::Tmpfs);
    for number in 0..20 {
        send(&agent, number, 60_000).expect("an ack");
    }
    agent.sigkill();
    pages::zero(disk.folder(), &[0, 1]);
    disk.fill(1);
    server.up();
    let mut agent = disk.agent(&server).spawn();
    agent.wait_event("store_full", DEADLINE);
    expect_full(&send(&agent, 99, 10).expect_err("an ack without a store"));
    // Time enough to leave, were there nothing to deliver: 3 s of age, 2 s of
    // quiet. It neither leaves nor asks the server all the time.
    let probed = wait::within(Duration::from_secs(6), || server.gets().len() > 20);
    assert!(!probed, "{} probes", server.gets().len());
    assert!(agent.is_running());
    disk.empty();
    expect_drained(&mut agent, &server, 20, "carried over");
}

/// The agent where no file may have more than so many bytes.
fn start_with_file_size(bytes: u64, folder: &Path, server: &MainServer) -> Agent {
    let mut command = Command::new("sh");
    command
        // Blocks of 512 bytes (POSIX ulimit -f).
        .args(["-c", "ulimit -f \"$0\" && exec \"$@\""])
        .arg((bytes / 512).to_string())
        .arg(Agent::executable());
    let mut agent = Agent::from_command(command, folder)
        .health_url(&server.url())
        .spawn();
    agent.wait_answering();
    agent
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk() {
    // A limit within a page, too: the last write comes out short.
    side_by_side([0, 512, 2048, 3 * 4096 + 1024], |beyond| {
        let folder = temp_folder();
        let mut server = MainServer::new_down();
        let mut agent = start_with_file_size(2 * MIB + beyond, folder.path(), &server);
        let count = send_until_full(&agent, 0, 9_000);
        assert!(count > 50, "only {count} records");
        for _ in 0..3 {
            expect_full(&send(&agent, count, 9_000).expect_err("an ack beyond the limit"));
        }
        agent.sigkill();
        assert_eq!(store::records(folder.path()).len(), count);
        let mut agent = start_with_file_size(2 * MIB + beyond, folder.path(), &server);
        expect_full(&send(&agent, count, 9_000).expect_err("an ack beyond the limit"));
        server.up();
        expect_drained(&mut agent, &server, count, &format!("{beyond}"));
    });
}
