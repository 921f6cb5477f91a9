//! Disks that fail, fill up or take their time (spec 4 and exit code 74), played
//! by a library between the agent and the C library.
#![cfg(target_os = "linux")]

mod clock;
mod disk;
use crate::small;
use crate::support;

use std::path::Path;
use std::time::Duration;

use disk::Disk;
use rustix::process::Signal;
use small::{Kind, SmallDisk};
use support::agent::Agent;
use support::fixture::side_by_side;
use support::sender::{Sender, block_on};
use support::server::{Answer, MainServer};
use support::{store, temp_folder, wait};
use tokio::task::JoinSet;
use tonic::{Code, Status};

const DEADLINE: Duration = Duration::from_secs(30);
/// A moment in which an ack would come, were it not held up.
const MOMENT: Duration = Duration::from_millis(300);
const DATA: &str = "lmdb/data.mdb";

const EIO: &str = "5";
const EFBIG: &str = "27";
const ENOSPC: &str = "28";
const EROFS: &str = "30";
const EDQUOT: &str = "122";

fn start(folder: &Path, server: &MainServer, disk: &Disk) -> Agent {
    let agent = Agent::builder(folder).health_url(&server.url());
    let mut agent = disk.under(agent).spawn();
    agent.wait_answering();
    agent
}

/// Sends numbers at the same time.
fn send(agent: &Agent, numbers: std::ops::Range<u32>) -> Vec<Result<(), Status>> {
    let sender = std::sync::Arc::new(Sender::keeping(&agent.socket()));
    block_on(async {
        let mut calls = JoinSet::new();
        for number in numbers {
            let sender = sender.clone();
            calls.spawn(async move { sender.send(&number.to_string(), &[], "").await.map(drop) });
        }
        calls.join_all().await
    })
}

fn expect_acks(agent: &Agent, numbers: std::ops::Range<u32>) {
    for answer in send(agent, numbers) {
        answer.expect("an ack");
    }
}

/// Calls that a disk which fails cannot store; those that came when the agent had
/// ended already find their connection closed.
fn expect_no_acks(agent: &Agent, numbers: std::ops::Range<u32>) {
    let codes: Vec<_> = send(agent, numbers)
        .into_iter()
        .map(|answer| answer.expect_err("an ack from a disk that fails").code())
        .collect();
    let closed = [Code::Unavailable, Code::Unknown, Code::Cancelled];
    assert!(codes.contains(&Code::Unavailable), "{codes:?}");
    assert!(codes.iter().all(|code| closed.contains(code)), "{codes:?}");
}

/// The numbers in the store, sorted.
fn stored(folder: &Path) -> Vec<u32> {
    let text = |json: &[u8]| String::from_utf8_lossy(json).parse().expect("a number");
    let records = store::records(folder);
    let mut numbers: Vec<u32> = records.iter().map(|(_, r)| text(&r.json_data)).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn no_ack_comes_before_data_and_meta_page_are_flushed() {
    let (folder, disk) = (temp_folder(), Disk::new());
    let server = MainServer::new_down();
    let mut agent = start(folder.path(), &server, &disk);
    // With a store already: what it waits for is a record's.
    expect_acks(&agent, 0..1);
    for (number, call) in (1..).zip(["flush", "meta", "flush", "meta"]) {
        let waiting = disk.count("waiting", DATA);
        disk.plan(call, DATA, "0");
        std::thread::scope(|scope| {
            let ack = scope.spawn(|| send(&agent, number..number + 1));
            wait::until(DEADLINE, call, || disk.count("waiting", DATA) > waiting);
            let early = wait::within(MOMENT, || ack.is_finished());
            // First, so that a failure here does not wait for the call for ever.
            disk.mend();
            assert!(!early, "an ack although {call} has not returned");
            let answers = ack.join().expect("the call");
            answers.into_iter().for_each(|answer| answer.expect("ack"));
        });
    }
    let base = folder.path().to_str().expect("UTF-8");
    assert!(disk.count("sync_folder", "/lmdb") > 0, "the store's name");
    assert!(
        disk.count("sync_folder", base) > disk.count("sync_folder", "/lmdb"),
        "the name of the store's folder"
    );
    agent.sigkill();
    assert_eq!(stored(folder.path()), [0, 1, 2, 3, 4]);
}

#[test]
fn a_disk_that_fails_ends_the_agent_without_an_ack_or_a_loss() {
    let cases = [
        ("flush", EIO, "Input/output"),
        ("meta", EIO, "Input/output"),
        ("write", EIO, "Input/output"),
        ("write", "short", "Input/output"),
        ("meta", EROFS, "Read-only"),
        ("write", EROFS, "Read-only"),
    ];
    side_by_side(cases, |(call, error, name)| {
        let (folder, disk) = (temp_folder(), Disk::new());
        let mut server = MainServer::new_down();
        let mut agent = start(folder.path(), &server, &disk);
        expect_acks(&agent, 0..20);
        disk.plan(call, DATA, error);
        expect_no_acks(&agent, 100..104);
        agent.expect_exit(74, DEADLINE);
        let last = agent.events().pop().expect("events");
        assert_eq!(last["event"], "agent_stopped", "{call}");
        let reason = last["reason"].as_str().expect("a reason");
        assert!(reason.contains("store") && reason.contains(name), "{last}");
        assert!(agent.stderr().contains(name), "{}", agent.stderr());
        assert!(!agent.socket().exists(), "{call}: the socket stays");
        let mut left = stored(folder.path());
        left.retain(|number| *number < 100);
        assert_eq!(left, (0..20).collect::<Vec<_>>(), "{call}");

        // The next agent has a disk that works.
        disk.mend();
        let mut agent = start(folder.path(), &server, &disk);
        expect_acks(&agent, 20..21);
        server.up();
        agent.expect_exit(0, DEADLINE);
        let mut delivered: Vec<u32> = server
            .delivered_json()
            .iter()
            .map(|json| String::from_utf8_lossy(json).parse().expect("a number"))
            .filter(|number| *number < 100)
            .collect();
        assert_eq!(delivered.pop(), Some(20), "{call}: the newest comes last");
        delivered.sort_unstable();
        assert_eq!(delivered, (0..20).collect::<Vec<_>>(), "{call}");
    });
}

/// A disk with little room is not taken for a full one.
#[test]
#[ignore = "needs root: it mounts"]
fn a_disk_that_fails_with_little_room_is_no_full_one() {
    let small = SmallDisk::with_mebibytes(Kind::Ext4, 64);
    let server = MainServer::new_down();
    let disk = Disk::new();
    let mut agent = disk.under(small.agent(&server)).spawn();
    agent.wait_answering();
    let left = 7 << 20;
    small.fill_bytes(usize::try_from(small.available() - left).expect("small"));
    expect_acks(&agent, 0..20);
    disk.plan("flush", DATA, EIO);
    expect_no_acks(&agent, 100..104);
    agent.expect_exit(74, DEADLINE);
}

#[test]
fn a_full_disk_refuses_records_and_takes_them_again() {
    let cases = [
        ("write", ENOSPC),
        ("flush", ENOSPC),
        ("meta", ENOSPC),
        ("write", EDQUOT),
        ("meta", EDQUOT),
        ("write", EFBIG),
        ("write", "short"),
    ];
    side_by_side(cases, |(call, error)| {
        let (folder, disk) = (temp_folder(), Disk::new());
        let server = MainServer::new_down();
        let mut agent = start(folder.path(), &server, &disk);
        expect_acks(&agent, 0..3);
        match error {
            "short" => disk.fill_up(DATA, "lmdb/room"),
            error => disk.plan(call, DATA, error),
        }
        for _ in 0..3 {
            for answer in send(&agent, 100..104) {
                let status = answer.expect_err("an ack from a full disk");
                assert_eq!(
                    status.code(),
                    Code::ResourceExhausted,
                    "{call} {error}: {status:?}"
                );
                assert!(status.message().contains("disk full"), "{status:?}");
            }
        }
        disk.mend();
        wait::until(DEADLINE, "acks again", || {
            send(&agent, 200..201).iter().all(Result::is_ok)
        });
        expect_acks(&agent, 3..6);
        agent.signal(Signal::TERM);
        agent.expect_exit(0, DEADLINE);
        let mut left = stored(folder.path());
        left.retain(|number| *number < 100);
        assert_eq!(left, [0, 1, 2, 3, 4, 5], "{call} {error}");
    });
}

#[test]
fn a_disk_that_is_full_for_deletes_too_is_drained_and_left() {
    let cases = [
        ("write", ENOSPC),
        ("meta", ENOSPC),
        ("flush", EDQUOT),
        ("write", "short"),
    ];
    side_by_side(cases, |(call, error)| {
        let (folder, disk) = (temp_folder(), Disk::new());
        let mut server = MainServer::new_down();
        let mut agent = start(folder.path(), &server, &disk);
        for number in 0..200 {
            expect_acks(&agent, number..number + 1);
        }
        match error {
            "short" => disk.fill_up(DATA, "lmdb/room"),
            error => disk.plan(call, DATA, error),
        }
        server.up();
        agent.expect_exit(0, DEADLINE);
        let delivered = server.delivered_json();
        let expected: Vec<Vec<u8>> = (0..200).map(|n: u32| n.to_string().into_bytes()).collect();
        assert_eq!(delivered, expected, "{call} {error}");
        assert!(!folder.path().join("lmdb").exists(), "{call} {error}");
    });
}

/// Slow: each delete is tried before so many are delivered as need a note.
#[test]
fn what_could_not_be_deleted_is_not_sent_again_by_a_successor() {
    side_by_side([Signal::KILL, Signal::TERM], |signal| {
        let (folder, disk) = (temp_folder(), Disk::new());
        let mut server = MainServer::new_down();
        let mut agent = start(folder.path(), &server, &disk);
        for number in 0..300 {
            expect_acks(&agent, number..number + 1);
        }
        disk.plan("write", DATA, ENOSPC);
        server.on_post(|_| Answer::ok().after(Duration::from_millis(10)));
        server.up();
        server.wait_delivered(200, DEADLINE);
        agent.signal(signal);
        agent.wait_exit(DEADLINE);
        let mut agent = start(folder.path(), &server, &disk);
        agent.expect_exit(0, DEADLINE);
        let repeated = server.delivered().len() - 300;
        assert!(repeated <= 64, "{signal:?}: {repeated} repeated");
    });
}

#[test]
fn a_disk_that_fails_under_a_delete_ends_the_agent_with_everything_left() {
    let (folder, disk) = (temp_folder(), Disk::new());
    let mut server = MainServer::new_down();
    let mut agent = start(folder.path(), &server, &disk);
    expect_acks(&agent, 0..40);
    disk.plan("flush", DATA, EIO);
    server.up();
    agent.expect_exit(74, DEADLINE);
    // What the page cache shows may not be what the disk has.
    assert!(!folder.path().join("lmdb/trusted").exists());
    assert_eq!(stored(folder.path()), (0..40).collect::<Vec<_>>());
    disk.mend();
    let mut agent = start(folder.path(), &server, &disk);
    agent.expect_exit(0, DEADLINE);
    let mut delivered = server.delivered_json();
    assert!(delivered.len() <= 40 + 40, "{}", delivered.len());
    delivered.sort();
    delivered.dedup();
    assert_eq!(delivered.len(), 40);
}

#[test]
fn a_store_that_cannot_be_opened_is_exit_73_and_one_without_room_waits() {
    let server = MainServer::new_down();
    for (call, path, error, code) in [
        ("open", DATA, EIO, 73),
        ("open", DATA, EROFS, 73),
        ("open", DATA, "13", 73),
        ("write", DATA, EIO, 73),
        ("sync_folder", "/lmdb", EIO, 74),
        ("flush", DATA, EIO, 74),
    ] {
        let (folder, disk) = (temp_folder(), Disk::new());
        disk.plan(call, path, error);
        let agent = Agent::builder(folder.path()).health_url(&server.url());
        let mut agent = disk.under(agent).spawn();
        if call == "flush" {
            // The first one is the first record's.
            agent.wait_answering();
            assert!(send(&agent, 0..1).iter().all(Result::is_err));
        }
        agent.expect_exit(code, DEADLINE);
        let last = agent.events().pop().expect("events");
        assert_eq!(last["event"], "agent_stopped", "{call} {error}");
        assert!(agent.stderr().contains("store"), "{}", agent.stderr());
        assert!(!agent.socket().exists());
    }
    for (call, error) in [("open", ENOSPC), ("write", ENOSPC), ("flush", EDQUOT)] {
        let (folder, disk) = (temp_folder(), Disk::new());
        disk.plan(call, DATA, error);
        let mut agent = start(folder.path(), &server, &disk);
        for answer in send(&agent, 0..2) {
            let status = answer.expect_err("an ack without a store");
            assert_eq!(status.code(), Code::ResourceExhausted, "{call}");
        }
        disk.mend();
        wait::until(DEADLINE, "an ack", || send(&agent, 2..3)[0].is_ok());
        agent.sigkill();
        assert_eq!(stored(folder.path()), [2]);
    }
}
