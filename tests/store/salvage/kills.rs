//! SIGKILL at any moment of a salvage.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::salvage::room::{leave, length, put_damaged, reserve};
use crate::salvage::{
    Arrived, DAMAGED, DEADLINE, SALVAGE, clock, has_file, made, send, start, try_send,
};
use crate::small::{Kind, SmallDisk};
use crate::support::agent::Agent;
use crate::support::fixture::side_by_side;
use crate::support::rng::{Rng, rounds};
use crate::support::server::MainServer;
use crate::support::{memory_folder, pages, temp_folder, wait};

const LIVES: usize = 12;
/// Milliseconds after which the first life ends at the latest, and by how much each
/// further one may be longer: one of the last may see the end of the scan.
const LONGEST: u64 = 60;
const LONGER: u64 = 10;

/// What was sent in lives that were cut short.
struct Lives {
    rng: Rng,
    /// Records that the damaged store has.
    count: u64,
    sent: u64,
    acknowledged: BTreeSet<u64>,
    /// Ends before the end of the scan.
    early: u64,
}

impl Lives {
    fn of_store_with(count: u64) -> Lives {
        Lives {
            rng: Rng::seeded(),
            count,
            sent: count,
            acknowledged: BTreeSet::new(),
            early: 0,
        }
    }

    /// Has an agent live for a moment, in which one record is sent.
    fn live(&mut self, mut agent: Agent) {
        let (socket, is_dead) = (agent.socket(), AtomicBool::new(false));
        let longest = LONGEST + LONGER * (self.sent - self.count);
        let life = Duration::from_millis(self.rng.below(longest));
        let stops = self.rng.chance(1, 5);
        let stored = thread::scope(|scope| {
            let caller = scope.spawn(|| {
                let mut stored = false;
                wait::until(DEADLINE, "an answer, or its death", || {
                    stored = try_send(&socket, self.sent).is_ok();
                    stored || is_dead.load(Relaxed)
                });
                stored
            });
            thread::sleep(life);
            // In order, or not.
            match stops {
                true => {
                    agent.signal(Signal::TERM);
                    agent.wait_exit(DEADLINE);
                }
                false => agent.sigkill(),
            }
            is_dead.store(true, Relaxed);
            caller.join().unwrap()
        });
        if stored {
            self.acknowledged.insert(self.sent);
        }
        self.sent += 1;
        self.early += u64::from(!has_file(agent.folder(), DAMAGED));
    }

    /// Nothing is lost, nothing came before its elders, and nothing twice.
    fn check(&self, came: &[u64]) {
        let stored = self.acknowledged.len();
        let (early, lives) = (self.early, self.sent - self.count);
        println!("{lives} lives, {early} ended before the scan, {stored} records stored in them");
        assert!(early > 3);
        assert!(came.windows(2).all(|pair| pair[0] < pair[1]), "{came:?}");
        let old = came.iter().take_while(|number| **number < self.count);
        assert_eq!(old.count() as u64, self.count);
        let came: BTreeSet<u64> = came.iter().copied().collect();
        let lost: Vec<_> = self.acknowledged.difference(&came).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

#[test]
fn kills_at_any_moment_lose_nothing_and_turn_nothing_round() {
    side_by_side([made::FIRST_KEY, clock::FAR], |first_key| {
        let base = temp_folder();
        let mut lives = Lives::of_store_with(20_000);
        made::filled_from(base.path(), first_key, 0..lives.count, 300);
        pages::zero_root(base.path());
        let mut server = MainServer::new_down();
        let arrived = Arrived::at(&server);
        for _ in 0..rounds(LIVES) {
            lives.live(start(base.path(), &server));
        }
        server.up();
        start(base.path(), &server).expect_exit(0, DEADLINE);
        lives.check(&arrived.numbers());
    });
}

#[test]
#[ignore = "needs root: it mounts"]
fn kills_while_parts_of_the_file_are_given_back_lose_nothing() {
    side_by_side(
        [(Kind::Tmpfs, 16), (Kind::Ext4, 24)],
        |(kind, mebibytes)| {
            let disk = SmallDisk::with_mebibytes(kind, mebibytes);
            let place = memory_folder();
            let mut lives = Lives::of_store_with(30_000);
            made::filled(place.path(), 0..lives.count, 0);
            put_damaged(place.path(), &disk);
            leave(&disk, reserve(&disk) + length(&disk) / 2);
            let mut server = MainServer::new_down();
            let arrived = Arrived::at(&server);
            for _ in 0..rounds(LIVES) {
                lives.live(disk.agent(&server).spawn());
            }
            server.up();
            disk.agent(&server).spawn().expect_exit(0, DEADLINE);
            lives.check(&arrived.numbers());
        },
    );
}

#[test]
fn a_store_that_is_damaged_again_while_it_is_salvaged_is_salvaged_too() {
    let (base, count) = (temp_folder(), 30_000);
    made::filled(base.path(), 0..count, 100);
    pages::zero_root(base.path());
    let mut server = MainServer::new_down();
    let arrived = Arrived::at(&server);
    let mut new = count;
    for round in 0..3 {
        let mut agent = start(base.path(), &server);
        agent.wait_answering();
        send(&agent, new);
        agent.sigkill();
        new += 1;
        assert!(has_file(base.path(), SALVAGE), "round {round} was too late");
        cut_meta_pages(base.path());
    }
    let mut agent = start(base.path(), &server);
    agent.wait_answering();
    send(&agent, new);
    server.up();
    agent.expect_exit(0, DEADLINE);
    let numbers = arrived.numbers();
    assert_eq!(numbers.len() as u64, new + 1);
    assert!(numbers.into_iter().eq(0..=new));
}

fn cut_meta_pages(base: &Path) {
    pages::zero(base, &[0, 1]);
    // Not what this boot's agent has left.
    let trusted = base.join("lmdb/trusted");
    assert!(File::open(&trusted).is_ok());
    std::fs::remove_file(trusted).unwrap();
}
