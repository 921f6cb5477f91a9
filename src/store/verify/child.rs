//! The child's side: it keeps nothing of the agent's, writes nothing, and ends with its
//! parent.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, setrlimit};

use super::free_list::FreeList;
use super::{SOUND, UNKNOWN};
use crate::error::{Error, Result};
use crate::limits::VERIFY_CPU_SECONDS;
use crate::store::files;
use crate::store::lmdb::Lmdb;

/// A record of a usual length.
const TRIAL: [u8; 300] = [0; 300];
/// Records that are deleted for a trial.
const TRIAL_DELETES: usize = 64;
/// The first descriptor behind the standard ones.
const ANSWER: i32 = 3;
/// More than the descriptors of an agent that has just started.
const DESCRIPTORS_AT_START: i32 = 1024;

/// Reads the store and says what it is like; never returns.
///
/// Not inlined: its frame would be a part of the agent's as long as that lives.
#[inline(never)]
pub(super) fn run(folder: &Path, length: u64, says: &OwnedFd, parent: Pid) -> ! {
    isolate(says, parent);
    // SAFETY: the descriptor is open, and only this owns it.
    let mut says = unsafe { File::from_raw_fd(ANSWER) };
    let mut answer = |text: &[u8]| {
        // Its parent takes silence for an unsound store.
        let _ = says.write_all(text);
    };
    let store = files::open_data(folder)
        .map_err(|error| files::failed(folder, &error))
        .and_then(|data| Lmdb::open(folder, Some(data), None));
    let expected = store.as_ref().ok().and_then(|store| store.count().ok());
    answer(&expected.unwrap_or(UNKNOWN).to_be_bytes());
    match store.and_then(|store| check(folder, store, length)) {
        Err(Error::Damaged(why)) => answer(why.as_bytes()),
        // What else is wrong, the agent will meet.
        _ => answer(SOUND),
    }
    exit()
}

/// Reads all of the store but its values, and does what the agent does first: without
/// effect, as no write is allowed.
fn check(folder: &Path, mut store: Lmdb, length: u64) -> Result<()> {
    let free = FreeList::read(folder).map_err(Error::Damaged)?;
    let written = (length / store.page_size() as u64) as usize;
    let trees = store.check(|page| page < written && !free.has(page))?;
    free.check_others(trees).map_err(Error::Damaged)?;
    let deleted = store.key_of_first(TRIAL_DELETES, u64::MAX - 1)?;
    store.write(0, &mut |store, trees, txn| {
        trees.append(txn, false, u64::MAX, &TRIAL)?;
        trees.delete_through(store, txn, deleted)
    })
}

/// Closes all but the way to answer, the instance lock among it, and makes sure that no
/// write can reach the disk.
fn isolate(says: &OwnedFd, parent: Pid) {
    // SAFETY: the child has one thread, and uses none of what is closed.
    unsafe {
        libc::dup2(says.as_raw_fd(), ANSWER);
        close_from(ANSWER + 1);
        for signal in [libc::SIGBUS, libc::SIGSEGV, libc::SIGABRT] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
    let at_most = |limit: u64| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    let _ = setrlimit(Resource::Cpu, at_most(VERIFY_CPU_SECONDS));
    let is_limited = setrlimit(Resource::Fsize, at_most(0)).is_ok();
    if !is_limited || rustix::process::getppid() != Some(parent) {
        exit();
    }
}

/// # Safety
/// Nothing uses these descriptors any more.
unsafe fn close_from(first: i32) {
    #[cfg(target_os = "linux")]
    // SAFETY: as promised by the caller.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return;
    }
    // Before Linux 5.9, and elsewhere: an agent has no more at its start.
    for descriptor in first..DESCRIPTORS_AT_START {
        // SAFETY: as promised by the caller.
        unsafe { libc::close(descriptor) };
    }
}

fn exit() -> ! {
    // SAFETY: it ends the process, without what its parent has registered for that.
    unsafe { libc::_exit(0) }
}
