//! Root in another user's folder becomes that user (spec 1): an agent that an operator
//! starts at night leaves no file and no socket behind that the application cannot
//! use.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, openat};
use rustix::process::{getegid, geteuid, getgid, getgroups};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::ingest::{agent_folder, socket};
use crate::{folder, session, store};

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// The user of a folder.
#[derive(Clone, Copy)]
struct Owner {
    uid: Uid,
    gid: Gid,
}

/// Becomes the owner of the base folder, or the nearest parent of one
/// still to be made, and gives that user what an earlier agent of root's left there.
/// False where the agent stays as it is: it is not root, the folder is root's, the
/// owner cannot reach it by this path, or the change is not permitted.
///
/// Nothing may have been opened before, and no thread been started: each has its
/// user of its own.
pub fn become_owner(base: &Path) -> bool {
    let Some((existing, owner)) = find_owner(base) else {
        return false;
    };
    if !geteuid().is_root() || owner.uid.is_root() || !can_reach(existing, owner) {
        return false;
    }
    if existing == base {
        let _ = give_leftovers(base, owner);
    }
    set_thread_groups(&[owner.gid])
        .and_then(|()| set_thread_res_gid(owner.gid, owner.gid, owner.gid))
        .and_then(|()| set_thread_res_uid(owner.uid, owner.uid, owner.uid))
        .is_ok()
}

/// The folder, or its nearest parent that exists.
fn find_owner(base: &Path) -> Option<(&Path, Owner)> {
    let ancestors = base
        .ancestors()
        .map(|path| match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        });
    let (existing, found) = ancestors
        .filter_map(|path| Some((path, fs::metadata(path).ok()?)))
        .next()?;
    let owner = Owner {
        uid: Uid::from_raw(found.uid()),
        gid: Gid::from_raw(found.gid()),
    };
    found.is_dir().then_some((existing, owner))
}

/// Whether the owner, too, gets there: tried as that user, for a moment.
fn can_reach(existing: &Path, owner: Owner) -> bool {
    let Ok(groups) = getgroups() else {
        return false;
    };
    let (real, effective) = (getgid(), getegid());
    let opened = set_thread_groups(&[owner.gid])
        .and_then(|()| set_thread_res_gid(real, owner.gid, effective))
        .and_then(|()| set_thread_res_uid(Uid::ROOT, owner.uid, Uid::ROOT))
        .and_then(|()| rustix::fs::open(existing, FOLDER, Mode::empty()));
    // What was permitted one way is permitted back.
    let _ = set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT);
    let _ = set_thread_res_gid(real, effective, effective);
    let _ = set_thread_groups(&groups);
    opened.is_ok()
}

/// Gives the owner what the agent's names in the folder stand for, where it is
/// root's.
fn give_leftovers(base: &Path, owner: Owner) -> io::Result<()> {
    let folder = rustix::fs::open(base, FOLDER, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if is_agents(entry.file_name()) {
            let _ = give(&folder, entry.file_name(), owner);
        }
    }
    Ok(())
}

fn is_agents(name: &CStr) -> bool {
    let names = [
        agent_folder::NAME,
        folder::STATUS_FLAG,
        socket::SOCKET_NAME,
        socket::HIDDEN_NAME,
    ];
    name.to_str().is_ok_and(|name| {
        names.contains(&name) || session::is_session(name) || name == store::FOLDER
    })
}

/// Gives one of the names, and for a folder what is directly in it: by descriptor,
/// no link followed (spec 1).
fn give(parent: &OwnedFd, name: &CStr, owner: Owner) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(parent, name, flags, Mode::empty())?;
    change_owner(&found, &fstat(&found)?, owner)?;
    let Ok(folder) = openat(parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) else {
        return Ok(());
    };
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let found = openat(&folder, name, flags, Mode::empty())?;
        change_owner(&found, &fstat(&found)?, owner)?;
    }
    Ok(())
}

/// Only what is root's, and no file that has another name elsewhere: its owner may
/// have linked one of root's here.
fn change_owner(found: &OwnedFd, stat: &Stat, owner: Owner) -> io::Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_alone = kind != FileType::RegularFile || stat.st_nlink == 1;
    if stat.st_uid != 0 || !is_alone {
        return Ok(());
    }
    let (uid, gid) = (Some(owner.uid), Some(owner.gid));
    Ok(chownat(found, c"", uid, gid, AtFlags::EMPTY_PATH)?)
}
