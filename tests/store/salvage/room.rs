//! Little room on the disk.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use echopost::store::space::Space;
use rustix::process::Signal;
use tonic::Code;

use crate::salvage::copies::copy_files;
use crate::salvage::{Arrived, DAMAGED, DEADLINE, has_file, made, serve, start, try_send};
use crate::small::{Kind, SmallDisk};
use crate::support::fixture::{self, side_by_side};
use crate::support::server::{Answer, MainServer};
use crate::support::{memory_folder, pages, wait};

const KINDS: [Kind; 2] = [Kind::Tmpfs, Kind::Ext4];
const MIB: u64 = 1 << 20;

pub fn reserve(disk: &SmallDisk) -> u64 {
    let folder = File::open(disk.folder()).unwrap();
    Space::of(&folder).expect("statvfs").reserve()
}

/// Copies the store of that folder to the disk, and damages it.
pub fn put_damaged(from: &Path, disk: &SmallDisk) {
    copy_files(&from.join("lmdb"), &disk.folder().join("lmdb"));
    pages::zero_root(disk.folder());
}

/// Takes all but so many bytes.
pub fn leave(disk: &SmallDisk, bytes: u64) {
    let taken = disk.available().checked_sub(bytes).expect("more room");
    disk.fill_bytes(usize::try_from(taken).unwrap());
}

pub fn length(disk: &SmallDisk) -> u64 {
    let data = disk.folder().join("lmdb/data.mdb");
    data.metadata().expect("a store").len()
}

#[test]
#[ignore = "needs root: it mounts"]
fn what_was_delivered_takes_no_room_and_does_not_come_again() {
    side_by_side(KINDS, |kind| {
        let disk = SmallDisk::with_mebibytes(kind, 48);
        let grown = memory_folder();
        let (count, gone) = (10_000, 9_000);
        made::filled(grown.path(), 0..count, 1900);
        deliver(grown.path(), gone);
        put_damaged(grown.path(), &disk);
        leave(&disk, reserve(&disk) + 3 * MIB);
        assert!(length(&disk) > 2 * disk.available(), "{}", length(&disk));
        let mut server = MainServer::new_down();
        let arrived = Arrived::at(&server);
        let agent = serve(disk.agent(&server).spawn(), &mut server, count);
        assert!(arrived.numbers().into_iter().eq(gone..=count), "{kind:?}");
        let corrupt = &agent.events_named("store_corrupt")[0];
        assert_eq!(corrupt["may_repeat"], false, "{corrupt}");
    });
}

/// Has so many records of the store delivered and deleted.
pub fn deliver(base: &Path, count: u64) {
    let server = MainServer::new_up();
    let mut left = count;
    server.on_post(move |_| match left.checked_sub(1) {
        Some(less) => {
            left = less;
            Answer::ok()
        }
        None => Answer::status(503),
    });
    server.forget_requests();
    let mut agent = start(base, &server);
    wait::until(DEADLINE, "the deletes", || fixture::noted(base) == count);
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
}

#[test]
#[ignore = "needs root: it mounts"]
fn without_any_room_it_waits_at_rest_and_goes_on() {
    // Not even a fresh store finds room, or only its records find none.
    let cases = [
        (Kind::Tmpfs, false),
        (Kind::Tmpfs, true),
        (Kind::Ext4, false),
        (Kind::Ext4, true),
    ];
    side_by_side(cases, |(kind, fresh)| {
        let disk = SmallDisk::with_mebibytes(kind, 24);
        let count = 20_000;
        let place = memory_folder();
        made::filled(place.path(), 0..count, 100);
        put_damaged(place.path(), &disk);
        match fresh {
            true => leave(&disk, reserve(&disk) - MIB),
            false => disk.fill(0),
        }
        let mut server = MainServer::new_down();
        let arrived = Arrived::at(&server);
        let mut agent = disk.agent(&server).spawn();
        agent.wait_answering();
        wait::until(DEADLINE, "a full disk", || {
            !agent.events_named("store_full").is_empty()
        });
        let before = agent.cpu_time().expect("its CPU time");
        let span = Duration::from_secs(4);
        thread::sleep(span);
        let taken = agent.cpu_time().expect("its CPU time") - before;
        println!("{kind:?}: {taken:?} of CPU time in {span:?}");
        assert!(taken < span / 10, "{kind:?}: {taken:?}");
        assert!(!has_file(disk.folder(), DAMAGED));
        let refused = try_send(&agent.socket(), count).expect_err("no room");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        agent.signal(Signal::TERM);
        agent.expect_exit(0, DEADLINE);
        let mut agent = disk.agent(&server).spawn();
        agent.wait_answering();
        disk.empty();
        wait::until(DEADLINE, "the end of the scan", || {
            has_file(disk.folder(), DAMAGED)
        });
        let agent = serve(agent, &mut server, count);
        assert!(arrived.numbers().into_iter().eq(0..=count), "{kind:?}");
        let corrupt = &agent.events_named("store_corrupt")[0];
        println!("{kind:?}: {corrupt}");
    });
}
