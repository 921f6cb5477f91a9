//! The data file's own lock.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::salvage::{DEADLINE, made, send, start};
use crate::support::agent::names_in;
use crate::support::server::MainServer;
use crate::support::{pages, temp_folder};

#[test]
fn a_store_that_another_process_has_open_is_left_untouched() {
    for damaged in [false, true] {
        let base = temp_folder();
        made::filled(base.path(), 0..1000, 100);
        if damaged {
            pages::zero_root(base.path());
        }
        fs::write(base.path().join("lmdb/verified"), "").unwrap();
        let held = open(base.path());
        assert!(try_lock(&held));
        let before = content(base.path());
        let server = MainServer::new_up();
        let mut agent = start(base.path(), &server);
        agent.expect_exit(73, DEADLINE);
        let said = agent.stderr();
        assert!(said.contains("another process"), "{said}");
        assert!(said.contains("data file"), "{said}");
        assert!(content(base.path()) == before, "damaged: {damaged}");
        assert!(server.posts().is_empty());
    }
}

#[test]
fn the_agent_holds_the_lock_for_as_long_as_it_lives() {
    let base = temp_folder();
    let server = MainServer::new_down();
    // A store that it makes, one that it finds, and one that it finds damaged.
    for found in ["none", "sound", "damaged"] {
        if found == "damaged" {
            pages::zero_root(base.path());
        }
        let mut agent = start(base.path(), &server);
        agent.wait_answering();
        send(&agent, 1);
        assert!(!try_lock(&open(base.path())), "{found}");
        agent.sigkill();
        assert!(try_lock(&open(base.path())), "{found}");
        if found == "damaged" {
            assert_eq!(agent.events_named("store_damaged").len(), 1);
        }
        // Not by the boot's id: it is to be read by a child, too.
        fs::remove_file(base.path().join("lmdb/trusted")).unwrap();
    }
}

fn open(base: &Path) -> File {
    let mut options = OpenOptions::new();
    let data = options.read(true).write(true);
    data.open(base.join("lmdb/data.mdb")).unwrap()
}

/// Names and contents of the store's files.
fn content(base: &Path) -> Vec<(String, Vec<u8>)> {
    let folder = base.join("lmdb");
    let names = names_in(&folder).into_iter();
    names
        .map(|name| (name.clone(), fs::read(folder.join(name)).unwrap()))
        .collect()
}

/// False with EAGAIN, where another descriptor has it.
fn try_lock(file: &File) -> bool {
    // SAFETY: all zeroes is a lock from the file's start to its end, and the descriptor
    // is open.
    let result = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock)
    };
    let error = std::io::Error::last_os_error().raw_os_error();
    assert!(result == 0 || error == Some(libc::EAGAIN), "{error:?}");
    result == 0
}
