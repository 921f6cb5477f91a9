//! Crashes, and what is made of their stores.

use std::fs;
use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::salvage::{Arrived, DAMAGED, DEADLINE, has_file, made, send, serve, start, try_send};
use crate::support::agent::Agent;
use crate::support::fixture::side_by_side;
use crate::support::pages::Layout;
use crate::support::server::MainServer;
use crate::support::temp_folder;

const COUNT: u64 = 60;
const MANY: u64 = 5000;
const SIGNALS: [Signal; 3] = [Signal::SEGV, Signal::BUS, Signal::ABORT];

#[test]
fn the_store_of_an_agent_that_crashed_is_read_before_it_is_opened() {
    side_by_side(SIGNALS, |signal| {
        let base = temp_folder();
        let mut server = MainServer::new_down();
        let arrived = Arrived::at(&server);
        let mut agent = filling(base.path(), &server);
        assert!(has_file(base.path(), "trusted"));
        assert!(!has_file(base.path(), "verified"));
        agent.signal(signal);
        let ended = agent.wait_exit(DEADLINE);
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended}");
        assert!(!has_file(base.path(), "trusted"));
        let agent = start(base.path(), &server);
        expect_verified(agent, base.path(), &mut server);
        assert!(arrived.numbers().into_iter().eq(0..=COUNT));
    });
}

#[test]
fn the_store_of_another_boot_is_read_before_it_is_opened() {
    let base = temp_folder();
    let mut server = MainServer::new_down();
    let arrived = Arrived::at(&server);
    filling(base.path(), &server).sigkill();
    boot_again(base.path());
    let agent = start(base.path(), &server);
    expect_verified(agent, base.path(), &mut server);
    assert!(arrived.numbers().into_iter().eq(0..=COUNT));
}

/// A parent that ignores SIGCHLD leaves that to what it starts, and wait(2) then tells
/// nothing of a child.
#[test]
fn a_parent_that_ignores_its_children_makes_no_store_unsound() {
    let base = temp_folder();
    let mut server = MainServer::new_down();
    filling(base.path(), &server).sigkill();
    boot_again(base.path());
    let mut command = Command::new("env");
    command.args(["--ignore-signal=CHLD", Agent::executable()]);
    let agent = Agent::from_command(command, base.path());
    let mut agent = agent.health_url(&server.url()).spawn();
    agent.wait_answering();
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
    assert_ne!(ignored & 1 << (Signal::CHILD.as_raw() - 1), 0, "{status}");
    expect_verified(agent, base.path(), &mut server);
}

/// An agent with some records.
fn filling(base: &Path, server: &MainServer) -> Agent {
    let mut agent = start(base, server);
    agent.wait_answering();
    (0..COUNT).for_each(|number| send(&agent, number));
    agent
}

/// Makes what says that the store is trusted another boot's.
fn boot_again(base: &Path) {
    let path = base.join("lmdb/trusted");
    let trusted = fs::read_to_string(&path).unwrap();
    let (boot, file) = trusted.split_once(' ').unwrap();
    assert_eq!(boot.len(), 36, "{trusted}");
    let other = "01234567-89ab-cdef-0123-456789abcdef";
    fs::write(&path, format!("{other} {file}")).unwrap();
}

/// A child has read the store, and found it sound: nothing of it is set aside.
fn expect_verified(mut agent: Agent, base: &Path, server: &mut MainServer) {
    agent.wait_answering();
    send(&agent, COUNT);
    assert!(has_file(base, "verified"));
    assert!(has_file(base, "trusted"));
    server.up();
    agent.expect_exit(0, DEADLINE);
    for name in ["store_damaged", "store_corrupt"] {
        let events = agent.events_named(name);
        assert!(events.is_empty(), "{events:?}");
    }
    assert!(!base.join("lmdb").exists());
}

#[test]
fn a_sound_store_that_an_agent_died_of_is_salvaged() {
    let base = temp_folder();
    made::filled(base.path(), 0..COUNT, 100);
    let data = fs::metadata(base.path().join("lmdb/data.mdb")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let verified = format!("{} {}:{}\n", boot.trim(), data.dev(), data.ino());
    fs::write(base.path().join("lmdb/verified"), verified).unwrap();
    let mut server = MainServer::new_down();
    let arrived = Arrived::at(&server);
    let agent = start(base.path(), &server);
    let agent = serve(agent, &mut server, COUNT);
    assert!(arrived.numbers().into_iter().eq(0..=COUNT));
    let damaged = agent.events_named("store_damaged");
    assert_eq!(damaged[0]["reason"], "LMDB died of it");
    assert_eq!(agent.events_named("store_corrupt")[0]["saved"], COUNT);
    assert!(has_file(base.path(), DAMAGED));
    assert!(!has_file(base.path(), "verified"));
}

#[test]
fn a_store_that_is_cut_under_a_live_agent_costs_it_one_life_at_most() {
    // Another record comes in before the server is back, or not.
    for comes in [true, false] {
        let base = temp_folder();
        let mut server = MainServer::new_down();
        let arrived = Arrived::at(&server);
        made::filled(base.path(), 0..MANY, 300);
        let mut agent = start(base.path(), &server);
        agent.wait_answering();
        send(&agent, MANY);
        let data = base.path().join("lmdb/data.mdb");
        let layout = Layout::of(&fs::read(&data).unwrap());
        let half = data.metadata().unwrap().len() / 2;
        let file = OpenOptions::new().write(true).open(&data).unwrap();
        file.set_len(half).unwrap();
        let whole = usize::try_from(half).unwrap() / layout.pages.0;
        if comes {
            println!("{:?}", try_send(&agent.socket(), MANY + 1));
        }
        server.up();
        let ended = agent.wait_exit(DEADLINE);
        println!("comes: {comes}, {ended}");
        if ended.code() != Some(0) {
            let mut next = start(base.path(), &server);
            next.wait_answering();
            send(&next, MANY + 2);
            next.expect_exit(0, DEADLINE);
        }
        let came = arrived.numbers();
        let kept: Vec<u64> = (layout.records.values())
            .filter(|placed| placed.pages.last() < Some(&whole))
            .map(|placed| made::number(&placed.record.json_data))
            .collect();
        println!("{} of {} lie before the cut", kept.len(), MANY + 1);
        let lost: Vec<_> = kept
            .iter()
            .filter(|number| !came.contains(number))
            .collect();
        assert!(
            lost.is_empty(),
            "comes: {comes}, lost {lost:?}\n{}",
            agent.stdout()
        );
    }
}
