//! The store's files: their names, owners and locks (spec 4).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::delivered::options;
use crate::store::space;

/// The store's folder in the base folder.
pub const FOLDER: &str = "lmdb";
/// LMDB's data file in the store's folder.
pub(super) const DATA_FILE: &str = "data.mdb";
/// A damaged store's file whose records are carried over, with the time.
pub(super) const SALVAGE_PREFIX: &str = "data.mdb.salvage-";
/// The same when that is done, for the operator.
pub(super) const DAMAGED_PREFIX: &str = "data.mdb.damaged-";
/// A file that is gone again at once, in the store's folder.
const OWNER_TRIAL: &str = "owner";

/// True where an earlier agent may have left records.
#[must_use]
pub fn has_data(base: &Path) -> bool {
    let folder = base.join(FOLDER);
    fs::metadata(folder.join(DATA_FILE)).is_ok_and(|data| data.len() > 0)
        || !salvage_files(&folder).is_empty()
}

/// The damaged stores' files whose records are still to be carried over, oldest first.
pub(super) fn salvage_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    let is_one = |name: &OsString| name.to_string_lossy().starts_with(SALVAGE_PREFIX);
    let mut files: Vec<_> = names.filter(is_one).map(|name| folder.join(name)).collect();
    files.sort();
    files
}

/// Creates the store's folder, 0700, unless it is there and may be the agent's.
///
/// # Errors
/// [`Error::CannotCreate`], or [`Error::Full`] where there is no room for it.
pub(super) fn create_folder(folder: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_own(folder),
        Err(error) => Err(failed(folder, &error)),
    }
}

/// Makes sure that nothing another user has placed is taken for a store (spec 7); that
/// there is none is fine.
///
/// # Errors
/// [`Error::CannotCreate`] for a linked folder, and for what belongs to another user.
pub(super) fn check_own(folder: &Path) -> Result<()> {
    for path in [folder, &folder.join(DATA_FILE)] {
        let why = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => error.to_string(),
            Ok(found) if found.is_symlink() && path == folder => {
                "is a link, which is not followed".into()
            }
            Ok(found) if !found.is_symlink() && !is_trusted(folder, found.uid()) => {
                let (owner, own) = (found.uid(), rustix::process::geteuid().as_raw());
                format!("belongs to another user ({owner}, not {own}): run the agent as its owner")
            }
            Ok(_) => continue,
        };
        let path = path.display();
        return Err(Error::CannotCreate(format!("store {path}: {why}")));
    }
    Ok(())
}

/// Whether a store may be this user's: the agent's own, the base folder's owner, which may
/// put anything in it, or the one that a mount gives to all that the agent creates.
fn is_trusted(folder: &Path, user: u32) -> bool {
    let base = folder.parent().and_then(|base| fs::metadata(base).ok());
    user == rustix::process::geteuid().as_raw()
        || base.is_some_and(|base| base.uid() == user)
        || owner_of_new_file(folder).is_ok_and(|owner| owner == user)
}

fn owner_of_new_file(folder: &Path) -> io::Result<u32> {
    let path = folder.join(OWNER_TRIAL);
    let made = options().write(true).create_new(true).open(&path);
    let owner = made.and_then(|file| file.metadata());
    let _ = fs::remove_file(&path);
    Ok(owner?.uid())
}

/// Opens the data file.
///
/// # Errors
/// Those of the file system, and `InvalidInput` for what is no file.
pub(super) fn open_data(folder: &Path) -> io::Result<File> {
    let path = folder.join(DATA_FILE);
    let data = options().read(true).write(true).open(path)?;
    match data.metadata()?.is_file() {
        true => Ok(data),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Takes the data file's write lock, which is released with the file: where several hosts
/// share a file system, the instance lock is each host's own. False where another process
/// has it. A file system that knows none has no other host to fear.
#[cfg(target_os = "linux")]
pub(super) fn try_lock(data: &File) -> bool {
    use std::os::fd::AsRawFd;

    use rustix::io::Errno;
    // SAFETY: the lock is zeroed, which is from its start to its end, before its fields
    // are set; the descriptor is open as long as `data` is.
    let result = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        libc::fcntl(data.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock)
    };
    let error = io::Error::last_os_error();
    let held = [Some(Errno::AGAIN), Some(Errno::ACCESS)];
    result == 0 || !held.contains(&Errno::from_io_error(&error))
}

/// Elsewhere no lock belongs to a descriptor.
#[cfg(not(target_os = "linux"))]
pub(super) fn try_lock(_data: &File) -> bool {
    true
}

/// The error of a store that cannot be made or opened.
pub(super) fn failed(folder: &Path, error: &io::Error) -> Error {
    match space::is_full(error) {
        true => Error::Full(format!("disk full: {error}")),
        false => Error::CannotCreate(format!("store {}: {error}", folder.display())),
    }
}
