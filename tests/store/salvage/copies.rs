//! Copies of a live folder, file by file.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::salvage::{DEADLINE, made, start};
use crate::support::agent::names_in;
use crate::support::sender::{Sender, block_on};
use crate::support::server::MainServer;
use crate::support::{temp_folder, wait};

const COPIES: usize = 20;
/// So many of them are made as fast as can be.
const PLAIN: u64 = 8;
const DATA: &str = "data.mdb";
/// Agents at once: most of their time they wait for the moment to leave.
const PARALLELISM: usize = 5;
/// Records between two copies.
const BETWEEN: u64 = 40;
/// A few seconds, on a machine that others use.
const SOON: Duration = Duration::from_secs(10);

/// A record of any size, some on pages of their own.
fn json(number: u64) -> String {
    let text = "x".repeat(usize::try_from(number * 7919 % 3000).unwrap());
    format!("[{number},\"{text}\"]")
}

#[test]
fn a_live_folder_that_was_copied_file_by_file_is_served() {
    let (base, place) = (temp_folder(), temp_folder());
    let away = MainServer::new_down();
    let mut agent = start(base.path(), &away);
    agent.wait_answering();
    let (sent, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let copies: Vec<_> = (0..COPIES)
        .map(|at| place.path().join(at.to_string()))
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let sender = Sender::keeping(&agent.socket());
            block_on(async {
                while !is_over.load(Relaxed) {
                    let json = json(sent.load(Relaxed));
                    sender.send(&json, &[], "").await.expect("a place");
                    sent.fetch_add(1, Relaxed);
                }
            });
        });
        for (copy, at) in copies.iter().zip(1..) {
            wait::until(DEADLINE, "more records", || {
                sent.load(Relaxed) >= at * BETWEEN
            });
            copy_files(&base.path().join("lmdb"), &copy.join("lmdb"));
            if at > PLAIN {
                copy_slowly(&base.path().join("lmdb"), &copy.join("lmdb"), &sent);
            }
        }
        is_over.store(true, Relaxed);
    });
    let sent = sent.into_inner();
    let next = Mutex::new(copies.iter());
    let (delivered, damaged) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..PARALLELISM {
            scope.spawn(|| {
                loop {
                    let Some(copy) = next.lock().unwrap().next() else {
                        return;
                    };
                    let (count, is_damaged) = serve_copy(copy, sent);
                    delivered.fetch_add(count, Relaxed);
                    damaged.fetch_add(u64::from(is_damaged), Relaxed);
                }
            });
        }
    });
    let (delivered, damaged) = (delivered.into_inner(), damaged.into_inner());
    println!("{sent} sent, {delivered} came of {COPIES} copies, {damaged} damaged");
    assert!(delivered > sent);
}

/// Copies each of a folder's files, one after the other.
pub fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names_in(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// Copies the data file once more, with a record between any two parts.
fn copy_slowly(from: &Path, to: &Path, sent: &AtomicU64) {
    let data = File::open(from.join(DATA)).unwrap();
    let copy = File::create(to.join(DATA)).unwrap();
    let mut part = vec![0; 64 << 10];
    for at in (0..).step_by(part.len()) {
        let read = data.read_at(&mut part, at).unwrap();
        if read == 0 {
            return;
        }
        copy.write_all_at(&part[..read], at).unwrap();
        let before = sent.load(Relaxed);
        wait::until(DEADLINE, "a record", || sent.load(Relaxed) > before);
    }
}

/// How many records came of a copy, and whether it was damaged.
fn serve_copy(copy: &Path, sent: u64) -> (u64, bool) {
    let mut server = MainServer::new_down();
    let begin = Instant::now();
    let mut agent = start(copy, &server);
    agent.wait_answering();
    crate::salvage::send(&agent, sent);
    let served = begin.elapsed();
    assert!(served < SOON, "{served:?}\n{}", agent.stdout());
    server.up();
    agent.expect_exit(0, DEADLINE);
    let mut came = server.delivered_json();
    let last = came.pop().expect("a record");
    assert_eq!(last, made::json(sent).as_bytes());
    let numbers: Vec<u64> = came.iter().map(|json| made::number(json)).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    for (number, came) in numbers.iter().zip(&came) {
        assert!(
            *number < sent && json(*number).as_bytes() == came,
            "{number}"
        );
    }
    let is_damaged = !agent.events_named("store_damaged").is_empty();
    (numbers.len() as u64, is_damaged)
}
