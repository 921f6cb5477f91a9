//! Power cuts (spec 4): whatever the disk has made of what was not flushed, no
//! acknowledged record is lost.
//!
//! An agent's writes and flushes are recorded, the disks that a cut at each
//! moment may leave are built, and an agent is started on them.
#![cfg(all(target_os = "linux", target_env = "gnu"))] // LD_PRELOAD

mod after;
mod disk;
mod history;
mod recording;
use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use after::{damaged_files, held_by, numbers, open_store, required, set_aside};
use disk::{Disk, Luck};
use history::{Fate, History, LANES};
use recording::{Mark, Op, Recorder};
use rustix::process::Signal;
use support::agent::{Agent, names_in};
use support::memory_folder;
use support::pages::Pages;
use support::rng::{Rng, rounds};
use support::server::MainServer;
use support::wait;

/// For anything that an agent does on these slow machines.
const DEADLINE: Duration = Duration::from_secs(60);
/// Moments of a cut that are tried, of all that were recorded.
const CUTS: usize = 90;
/// Agents at once.
const PARALLELISM: usize = 12;
const DATA: [&str; 3] = ["base", "lmdb", "data.mdb"];

/// The disk that was recorded: the folder it began as, and what became of it.
struct Played {
    place: tempfile::TempDir,
    start: Disk,
    ops: Vec<(Mark, Op)>,
    history: History,
}

impl Played {
    fn base(&self) -> PathBuf {
        self.place.path().join("root/base")
    }

    /// Goes to some of the moments; `look` gets each disk and its mark.
    fn cuts(&mut self, rng: &mut Rng, mut look: impl FnMut(&Disk, Mark, &mut Rng)) {
        let count = self.ops.len();
        for (index, (mark, op)) in self.ops.iter().enumerate() {
            self.start.apply(op);
            let chosen = rng.index(count) < rounds(CUTS);
            if chosen || index + 1 == count {
                look(&self.start, *mark, rng);
            }
        }
    }
}

fn lucks(rng: &mut Rng) -> [Luck; 4] {
    let some = [1, 5, 9][rng.index(3)];
    [Luck::None, Luck::All, Luck::Some(5), Luck::Some(some)]
}

/// Two outages with a stop and a kill between, a drained end, and a new outage.
fn play(rng: &mut Rng) -> Played {
    let place = memory_folder();
    let root = place.path().join("root");
    fs::create_dir(&root).unwrap();
    let (start, base) = (Disk::flushed(&root), root.join("base"));
    let recorder = Recorder::new(place.path());
    let history = History::default();
    let mut server = MainServer::new_down();
    history.deliver(&server, 90, &recorder);
    let life = |server: &MainServer| {
        let mut agent = recorder.agent(&base).health_url(&server.url()).spawn();
        agent.wait_socket();
        agent
    };
    let delivered = |count: usize| {
        let what = format!("{count} deliveries");
        wait::until(DEADLINE, &what, || history.delivered() >= count);
    };

    let mut agent = life(&server);
    history.send(&agent.socket(), 80, &recorder, rng);
    server.up();
    history.send(&agent.socket(), 60, &recorder, rng);
    delivered(90);
    history.send(&agent.socket(), 20, &recorder, rng);
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);

    history.deliver(&server, 30, &recorder);
    agent = life(&server);
    history.send(&agent.socket(), 40, &recorder, rng);
    delivered(120);
    agent.sigkill();

    history.deliver(&server, usize::MAX / 2, &recorder);
    agent = life(&server);
    agent.expect_exit(0, DEADLINE);
    assert!(!base.join("lmdb").exists());

    server.down();
    agent = life(&server);
    history.send(&agent.socket(), 20, &recorder, rng);
    agent.sigkill();
    Played {
        ops: recorder.ops(),
        place,
        start,
        history,
    }
}

/// Starts an agent on each of the disks: it delivers what it must and leaves.
fn serve(disks: &[(PathBuf, BTreeSet<u64>)], fates: &BTreeMap<u64, Fate>) {
    let server = MainServer::new_up();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..PARALLELISM.min(disks.len()) {
            scope.spawn(|| {
                while let Some((base, required)) = disks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let path = base.to_string_lossy();
                    let url = format!("{}{path}", server.url());
                    let mut agent = Agent::builder(base).health_url(&url).spawn();
                    agent.expect_exit(0, DEADLINE);
                    let posted = server.delivered();
                    let mine = format!("{path}/log");
                    let mine = posted.iter().filter(|request| request.path == mine);
                    let held = numbers(fates, mine.map(|request| request.log_data()));
                    let kept = &held | &set_aside(base, fates);
                    assert!(required.is_subset(&kept), "{path}: {required:?} {kept:?}");
                    let left = names_in(base);
                    let damaged = damaged_files(base).len();
                    let kept = left.iter().any(|name| name == "lmdb");
                    assert_eq!(kept, damaged > 0, "{path}");
                }
            });
        }
    });
}

#[test]
fn a_power_cut_at_any_moment_loses_no_acknowledged_record() {
    let mut rng = Rng::seeded();
    let mut played = play(&mut rng);
    let fates = played.history.fates();
    let made = |(mark, op): &(Mark, Op)| {
        let made = matches!(op, Op::NewFolder { name, .. } if name == "lmdb");
        made.then_some(*mark)
    };
    let made: Vec<Mark> = played.ops.iter().filter_map(made).collect();
    assert_eq!(made.len(), 2, "stores");
    let data = fs::read(played.base().join("lmdb/data.mdb")).unwrap();
    let images = memory_folder();
    let (mut cuts, mut disks, mut chosen) = (0, 0, Vec::new());
    played.cuts(&mut rng, |disk, cut, rng| {
        cuts += 1;
        let required = required(&fates, cut);
        let since = made.iter().rfind(|mark| **mark <= cut);
        let within = |mark: Mark| mark <= cut && since.is_some_and(|since| *since < mark);
        // From the first acknowledgement on, a store is never damaged.
        let settled = (fates.values()).any(|fate| fate.acknowledged.is_some_and(within));
        for luck in lucks(rng) {
            disks += 1;
            if rng.chance(1, 25) {
                let copy = images.path().join(format!("{disks}-kept"));
                disk.image(&copy, luck, &mut rng.clone());
                chosen.push((copy.join("base"), required.clone()));
            }
            let root = images.path().join(disks.to_string());
            disk.image(&root, luck, rng);
            let base = root.join("base");
            fs::create_dir_all(&base).unwrap();
            let what = format!("cut at {cut} with {luck:?}");
            let found = open_store(&base);
            let jsons = found.values().map(|found| &*found.record.json_data);
            let held = numbers(&fates, jsons);
            let kept = &held | &set_aside(&base, &fates);
            let lost: Vec<_> = required.difference(&kept).collect();
            assert!(lost.is_empty(), "{what}: lost {lost:?}");
            // What comes twice are the last deliveries, none of those before.
            let delivered = |number: &u64| fates[number].delivered.filter(|mark| *mark < cut);
            let again = held.iter().filter_map(delivered).min();
            let done = fates.keys().filter(|number| !held.contains(number));
            let done = done.filter_map(delivered).max();
            assert!(
                again.is_none() || done <= again,
                "{what}: {again:?}, {done:?}"
            );
            let damaged = damaged_files(&base);
            assert!(!settled || damaged.is_empty(), "{what}: {damaged:?}");
            fs::remove_dir_all(&root).unwrap();
        }
    });
    // The recording has seen every write.
    let recorded = played.start.now(&DATA);
    assert!(recorded == Some(&*data), "incomplete recording");
    let (calls, agents) = (played.ops.len(), chosen.len());
    println!("{calls} calls, {cuts} cuts, {disks} disks, {agents} agents");
    assert!(cuts > 60 && agents > 5);
    assert!(!set_aside(&played.base(), &fates).is_empty());
    serve(&chosen, &fates);
}

/// The agent that is recorded dies at its every call before the first ack; what
/// the next one acknowledges is safe all the same.
#[test]
fn a_kill_while_the_store_is_made_leaves_nothing_unflushed_to_the_next_agent() {
    let mut rng = Rng::seeded();
    let place = memory_folder();
    let recorder = Recorder::new(place.path());
    let server = MainServer::new_down();
    for calls in 1.. {
        recorder.forget();
        let root = place.path().join(calls.to_string());
        fs::create_dir(&root).unwrap();
        let (mut disk, base) = (Disk::flushed(&root), root.join("base"));
        let history = History::default();
        let agent = || recorder.agent(&base).health_url(&server.url());
        let mut first = agent().env("ECHOPOST_CALLS", &calls.to_string()).spawn();
        let socket = first.socket();
        wait::until(DEADLINE, "a socket or an end", || {
            !first.is_running() || socket.exists()
        });
        history.try_one(&socket, &recorder);
        let survived = history.fates()[&0].acknowledged.is_some();
        drop(first);
        let mut second = agent().spawn();
        // There may be a stale socket.
        second.wait_event("agent_started", DEADLINE);
        history.send(&socket, LANES, &recorder, &mut rng);
        second.sigkill();
        for (_, op) in recorder.ops() {
            disk.apply(&op);
        }
        let image = root.join("image");
        disk.image(&image, Luck::None, &mut rng);
        let fates = history.fates();
        let found = open_store(&image.join("base"));
        let jsons = found.values().map(|found| &*found.record.json_data);
        let held = numbers(&fates, jsons);
        let lost = &required(&fates, Mark::MAX) - &held;
        assert!(lost.is_empty(), "{calls} calls: lost {lost:?}");
        if survived {
            println!("killed at each of {calls} calls");
            assert!(calls > 10);
            break;
        }
    }
}

#[test]
fn a_power_cut_while_a_damaged_store_is_replaced_loses_no_more_of_it() {
    let mut rng = Rng::seeded();
    let place = memory_folder();
    let root = place.path().join("root");
    let base = root.join("base");
    fs::create_dir_all(&base).unwrap();
    let recorder = Recorder::new(place.path());
    let history = History::default();
    let server = MainServer::new_down();
    let life = || {
        let mut agent = recorder.agent(&base).health_url(&server.url()).spawn();
        agent.wait_socket();
        agent
    };
    let mut agent = life();
    history.send(&agent.socket(), 100, &recorder, &mut rng);
    agent.sigkill();
    let damaged = damage_middle(&base.join("lmdb/data.mdb"));
    let saved = held_by(&damaged).expect("whole records");
    assert!((50..100).contains(&saved.len()), "{} saved", saved.len());

    // As after another boot.
    fs::remove_file(base.join("lmdb/trusted")).unwrap();

    recorder.forget();
    let start = Disk::flushed(&root);
    let first_new = history.fates().len() as u64;
    agent = life();
    agent.wait_event("store_corrupt", DEADLINE);
    history.send(&agent.socket(), 12, &recorder, &mut rng);
    agent.sigkill();
    let mut fates = history.fates();
    let mut played = Played {
        ops: recorder.ops(),
        place,
        start,
        history,
    };
    // The acknowledgements of the damaged store are not of this recording.
    let older = fates.range_mut(..first_new);
    older.for_each(|(_, fate)| fate.acknowledged = None);
    let images = memory_folder();
    let mut disks = 0;
    played.cuts(&mut rng, |disk, cut, rng| {
        for luck in lucks(rng) {
            disks += 1;
            let root = images.path().join(disks.to_string());
            disk.image(&root, luck, rng);
            let base = root.join("base");
            let found = open_store(&base);
            let what = format!("cut at {cut} with {luck:?}");
            for (key, saved) in &saved {
                let now = found
                    .get(key)
                    .unwrap_or_else(|| panic!("{what}: {key} is lost"));
                assert_eq!(now.record.json_data, saved.record.json_data, "{what}");
                assert_eq!(now.idempotency_key, saved.idempotency_key, "{what}");
            }
            let jsons = found.values().map(|found| &*found.record.json_data);
            let held = numbers(&fates, jsons);
            let lost = &required(&fates, cut) - &held;
            assert!(lost.is_empty(), "{what}: lost {lost:?}");
            let aside: Vec<_> = (damaged_files(&base).iter())
                .map(|file| fs::read(file).unwrap())
                .collect();
            // The fresh store, too, may have been cut before its first flush.
            assert!(aside.contains(&damaged), "{what}: {}", aside.len());
            fs::remove_dir_all(&root).unwrap();
        }
    });
    println!("{} calls, {disks} disks", played.ops.len());
    assert!(disks > 100);
}

/// Zeroes a page in the middle of the data file; its content then.
fn damage_middle(data: &Path) -> Vec<u8> {
    let healthy = fs::read(data).unwrap();
    let pages = Pages::of(&healthy);
    let count = held_by(&healthy).expect("a sound store").len();
    // One with a few records on it, and not the one with the store's id.
    for page in (2..pages.count(&healthy) / 2).rev() {
        let mut bytes = healthy.clone();
        bytes[pages.range(page)].fill(0);
        if held_by(&bytes).is_some_and(|held| (count / 2..count).contains(&held.len())) {
            fs::write(data, &bytes).unwrap();
            return bytes;
        }
    }
    panic!("no page whose loss is felt");
}
