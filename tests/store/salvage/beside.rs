//! No room for a copy beside the damaged file.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use crate::salvage::made::filled;
use crate::salvage::room::{deliver, leave, length, put_damaged, reserve};
use crate::salvage::{Arrived, DAMAGED, DEADLINE, SALVAGE, has_file, send, try_send};
use crate::small::{Kind, SmallDisk};
use crate::support::fixture::side_by_side;
use crate::support::server::MainServer;
use crate::support::{memory_folder, wait};

/// Records that are one number each.
const SMALL: u64 = 24_000;

#[test]
#[ignore = "needs root: it mounts"]
fn what_was_scanned_is_given_back() {
    scan_beside(60, false, 0..SMALL, |base| filled(base, 0..SMALL, 0));
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_record_that_comes_meanwhile_comes_last() {
    scan_beside(60, true, 0..SMALL, |base| filled(base, 0..SMALL, 0));
}

#[test]
#[ignore = "needs root: it mounts"]
fn room_for_a_fraction_of_a_copy_is_enough() {
    scan_beside(25, true, 0..SMALL, |base| filled(base, 0..SMALL, 0));
}

#[test]
#[ignore = "needs root: it mounts"]
fn records_of_which_a_page_has_two_take_no_more_room_than_they_did() {
    scan_beside(60, true, 0..3000, |base| filled(base, 0..3000, 1900));
}

#[test]
#[ignore = "needs root: it mounts"]
fn the_pages_of_large_records_are_given_back() {
    scan_beside(60, true, 0..600, |base| filled(base, 0..600, 20_000));
}

#[test]
#[ignore = "needs root: it mounts"]
fn newer_records_may_lie_before_older_ones() {
    scan_beside(60, true, SMALL / 2..SMALL * 3 / 2, |base| {
        filled(base, 0..SMALL, 0);
        deliver(base, SMALL / 2);
        // They take the places that have become free.
        filled(base, SMALL..SMALL * 3 / 2, 0);
    });
}

/// The store with these records that `make` makes, on a disk with room for so many percent
/// of its file beside it.
fn scan_beside(percent: u64, meanwhile: bool, records: Range<u64>, make: impl Fn(&Path)) {
    let (place, new) = (memory_folder(), records.end);
    make(place.path());
    side_by_side(
        [(Kind::Tmpfs, 28), (Kind::Ext4, 32)],
        |(kind, mebibytes)| {
            let disk = SmallDisk::with_mebibytes(kind, mebibytes);
            put_damaged(place.path(), &disk);
            let (reserve, length) = (reserve(&disk), length(&disk));
            leave(&disk, reserve + length * percent / 100);
            let mut server = MainServer::new_down();
            let arrived = Arrived::at(&server);
            let mut agent = disk.agent(&server).spawn();
            let least = AtomicU64::new(u64::MAX);
            thread::scope(|scope| {
                scope.spawn(|| {
                    wait::until(DEADLINE, "the end of the scan", || {
                        least.fetch_min(disk.available(), Relaxed);
                        has_file(disk.folder(), DAMAGED)
                    });
                });
                if meanwhile {
                    agent.wait_answering();
                    wait::until(DEADLINE, "room for it", || {
                        try_send(&agent.socket(), new).is_ok()
                    });
                    let scanning = has_file(disk.folder(), SALVAGE);
                    println!("stored while it was scanned: {scanning}");
                }
            });
            let copy = crate::salvage::room::length(&disk);
            let least = least.into_inner();
            println!("{kind:?}: of {length} bytes a copy of {copy}, {least} available at least");
            if !meanwhile {
                send(&agent, new);
            }
            server.up();
            agent.expect_exit(0, DEADLINE);
            let numbers = arrived.numbers();
            assert_eq!(numbers.len() as u64, records.end - records.start + 1);
            assert!(numbers.into_iter().eq(records.start..=new), "{kind:?}");
            let corrupt = &agent.events_named("store_corrupt")[0];
            assert_eq!(corrupt["whole"], false, "{kind:?}: {corrupt}");
            // What the events take comes on top.
            assert!(
                least + 64 * 1024 >= reserve,
                "{kind:?}: {least} < {reserve}"
            );
        },
    );
}
