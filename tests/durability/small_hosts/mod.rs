//! Small hosts: whole outages where memory, address space, descriptors or disk
//! are scarce (spec 2, 4 and 9).
//!
//! `ECHOPOST_RECORDS` says how many records, of about 300 bytes each:
//!
//! ```sh
//! ECHOPOST_RECORDS=1000000 cargo test --release --test durability small_hosts:: -- --include-ignored --nocapture
//! ```
//!
//! The cgroup takes root and a memory controller in /sys/fs/cgroup that may be written
//! to (in a container: `--privileged`), the disk root and a loop device.
#![cfg(target_os = "linux")]

mod client;
use crate::group;
use crate::small as disk;
mod outage;
use crate::support;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use client::Channels;
use disk::{Kind, SmallDisk};
use group::Group;
use outage::{Figures, Outage};
use support::agent::{Agent, Builder};
use support::{release, temp_folder};

const RECORDS: &str = "ECHOPOST_RECORDS";
const USUAL_RECORDS: usize = 30_000;
/// A channel for each takes its time.
const USUAL_CHANNELS: usize = 5_000;

const MIB: u64 = 1 << 20;
/// Bytes of memory, page cache included.
const MEMORY: u64 = 8 * MIB;
/// KiB of address space, as `ulimit -v` takes them …
const ADDRESS_SPACE_KIB: u64 = 256 * 1024;
/// … and where few records are to fill what they leave for the store.
const LESS_ADDRESS_SPACE_KIB: u64 = 44 * 1024;
const DESCRIPTORS: usize = 32;
const DISK_MIB: u32 = 64;
/// What others have on the disk, where few records are to fill it.
const DISK_TAKEN: usize = 44 << 20;
/// Records from which on the store outgrows the disk and the address space.
const MANY: usize = 800_000;

fn records(usual: usize) -> usize {
    std::env::var(RECORDS).map_or(usual, |text| text.parse().expect(RECORDS))
}

fn report(limit: &str, figures: &Figures) {
    let _ = writeln!(std::io::stderr(), "{limit}: {figures}");
}

/// A copy of the agent that is not in memory yet, so that its pages count
/// for the group that runs it.
fn own_executable(folder: &Path) -> PathBuf {
    let path = folder.join("echopost");
    support::copy_executable(release::executable(), &path);
    let file = File::open(&path).expect("open the copy");
    file.sync_all().expect("flush the copy");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("drop the copy");
    path
}

/// The agent after the shell commands that limit it.
fn limited(limits: &str, exe: &Path, folder: &Path) -> Builder {
    let mut shell = Command::new("sh");
    let script = format!("{limits} && exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(exe);
    Agent::from_command(shell, folder)
}

#[test]
#[ignore = "needs root: a memory cgroup"]
fn eight_mebibytes_of_memory_page_cache_included() {
    let group = Group::new(MEMORY).expect("a memory cgroup");
    let (place, folder) = (temp_folder(), temp_folder());
    let exe = own_executable(place.path());
    let mut outage = Outage::new(records(USUAL_RECORDS));
    let mut agent = limited(&group.join(), &exe, folder.path())
        .health_url(&outage.server.url())
        .spawn();
    let figures = outage.play(&mut agent, Channels::Kept, None);
    report(&format!("8 MiB of memory, {:?}", group.usage()), &figures);
    expect_limited(&group, MEMORY * 15 / 16);
}

/// The agent was in the group, where it and its store took so many bytes at some
/// moment, and that was enough.
fn expect_limited(group: &Group, least: u64) {
    let usage = group.usage();
    // Of the two, a kernel may tell only one.
    let met = usage.at_limit.is_some_and(|times| times > 0)
        || usage.peak.is_some_and(|peak| peak >= least);
    assert!(met, "{usage:?}");
    assert!(usage.peak.is_none_or(|peak| peak <= MEMORY), "{usage:?}");
    assert_eq!(usage.oom_kills.unwrap_or(0), 0, "{usage:?}");
}

#[test]
fn a_quarter_of_a_gibibyte_of_address_space() {
    let folder = temp_folder();
    let mut outage = Outage::new(records(USUAL_RECORDS));
    let kib = match records(USUAL_RECORDS) {
        MANY.. => ADDRESS_SPACE_KIB,
        _ => LESS_ADDRESS_SPACE_KIB,
    };
    let exe = release::executable();
    let mut agent = limited(&format!("ulimit -v {kib}"), exe, folder.path())
        .health_url(&outage.server.url())
        .spawn();
    let figures = outage.play(&mut agent, Channels::Kept, Some("store full"));
    report(&format!("{kib} KiB of address space"), &figures);
    assert!(figures.refusals > 0, "the store was never full");
}

#[test]
fn thirty_two_descriptors_and_a_channel_for_each_record() {
    let folder = temp_folder();
    let mut outage = Outage::new(records(USUAL_CHANNELS));
    let exe = release::executable();
    let mut agent = limited(&format!("ulimit -n {DESCRIPTORS}"), exe, folder.path())
        .health_url(&outage.server.url())
        .spawn();
    let figures = outage.play(&mut agent, Channels::EachRecord, None);
    report("32 descriptors", &figures);
    assert_eq!(agent.events_named("accept_failed").len(), 0);
}

#[test]
#[ignore = "needs root: it mounts"]
fn a_disk_of_64_mebibytes() {
    let disk = SmallDisk::with_mebibytes(Kind::Ext4, DISK_MIB);
    if records(USUAL_RECORDS) < MANY {
        disk.fill_bytes(DISK_TAKEN);
    }
    let mut outage = Outage::new(records(USUAL_RECORDS));
    let script = "exec \"$0\" \"$@\"";
    let mut agent = disk
        .agent_by_shell(script, release::executable(), &outage.server)
        .spawn();
    let figures = outage.play(&mut agent, Channels::Kept, Some("disk full"));
    let left = disk.available() / 1024;
    report(
        &format!("64 MiB of disk, {left} KiB left at the end"),
        &figures,
    );
    assert!(figures.refusals > 0, "the disk was never full");
}

#[test]
#[ignore = "needs root: a memory cgroup, and it mounts"]
fn all_of_it_at_once() {
    let group = Group::new(MEMORY).expect("a memory cgroup");
    let disk = SmallDisk::with_mebibytes(Kind::Ext4, DISK_MIB);
    let place = temp_folder();
    let exe = own_executable(place.path());
    let mut outage = Outage::new(records(USUAL_CHANNELS));
    let script = format!(
        "ulimit -v {ADDRESS_SPACE_KIB} && ulimit -n {DESCRIPTORS} && {} && exec \"$0\" \"$@\"",
        group.join()
    );
    let mut agent = disk.agent_by_shell(&script, &exe, &outage.server).spawn();
    let figures = outage.play(&mut agent, Channels::EachRecord, Some("disk full"));
    report(&format!("all at once, {:?}", group.usage()), &figures);
    expect_limited(&group, MEMORY / 4);
}
