//! Removing an empty store: the agent's own files, by their names, and nothing else.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, fstat, open, statat, unlinkat};
use rustix::io::Errno;

use crate::store::files::DATA_FILE;
use crate::store::{delivered, trust};

/// What LMDB's own tools leave beside a data file.
const LOCK_FILE: &str = "lock.mdb";

/// Removes the store in `folder` that was closed, and the folder. Another data file in
/// the place of `data`, its own, is another store and stays. A folder that is a mount
/// point or holds what is not the agent's, or a damaged store's file, stays, too: the next
/// agent finds an empty store.
///
/// # Errors
/// Those of the file system, where the data file stays.
pub(super) fn remove(folder: &Path, data: &File) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match open(folder, flags, Mode::empty()) {
        Ok(opened) => opened,
        // It was removed before, or is no folder any more.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let found = match statat(&opened, DATA_FILE, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Some((found.st_dev, found.st_ino)),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(error.into()),
    };
    if found.is_some() {
        let own = fstat(data)?;
        if found != Some((own.st_dev, own.st_ino)) {
            return Ok(());
        }
        unlinkat(&opened, DATA_FILE, AtFlags::empty())?;
    }
    for name in [delivered::NAME, trust::TRUSTED, trust::VERIFIED, LOCK_FILE] {
        // Without a data file they say nothing.
        let _ = unlinkat(&opened, name, AtFlags::empty());
    }
    let _ = fs::remove_dir(folder);
    Ok(())
}
