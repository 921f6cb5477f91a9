//! The base folder (spec 2): the instance lock and the status flag.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::events::rfc3339;

/// Exists while the main server is down and the agent buffers.
pub const STATUS_FLAG: &str = "agent-status.lock";
/// The Go agent's store: left alone.
const GO_STORE: &str = "pebble";

/// The base folder, open for its lock.
pub struct Folder {
    path: PathBuf,
    /// The flock on the folder itself is the instance lock; it lives as long as
    /// this file and leaves nothing behind.
    lock: File,
}

impl Folder {
    /// Opens the base folder, creating it (0700) and its parents when missing.
    ///
    /// # Errors
    /// [`Error::CannotCreate`] naming the folder.
    pub fn open(path: &Path) -> Result<Folder> {
        let describe = |error: io::Error| {
            Error::CannotCreate(format!(
                "folder {}: {error}; -datanadhi takes a folder that this user may write to or create",
                path.display()
            ))
        };
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(describe)?;
        // Their names must survive a power cut; the store sees to the folder's own.
        for parent in missing.iter().skip(1) {
            let _ = sync_folder(&parent.join(".."));
        }
        let lock = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECTORY.bits() as i32)
            .open(path)
            .map_err(describe)?;
        Ok(Folder {
            path: path.to_owned(),
            lock,
        })
    }

    /// Tries to become the one agent of this folder; false: another one is.
    ///
    /// # Errors
    /// [`Error::CannotCreate`] where the file system knows no flock.
    pub fn try_lock(&self) -> Result<bool> {
        match self.lock.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(Error::CannotCreate(format!(
                "lock on {}: {error}",
                self.path.display()
            ))),
        }
    }

    /// Lets a successor become the agent of this folder.
    pub fn unlock(&self) {
        // Where it fails, the end of the process does it.
        let _ = self.lock.unlock();
    }

    /// True while the folder's path leads to the folder that is locked: one
    /// that was renamed away may have been replaced by another agent's.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        match (fs::metadata(&self.path), self.lock.metadata()) {
            (Ok(found), Ok(locked)) => identity(found) == identity(locked),
            _ => false,
        }
    }

    /// [`Folder::is_in_place`], with the reason.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn check_in_place(&self) -> io::Result<()> {
        if self.is_in_place() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the base folder was moved away",
        ))
    }

    /// The folder's path, as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open folder, for fsync and statvfs.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.lock
    }

    /// Shows that the main server is down and the agent buffers.
    ///
    /// # Errors
    /// Those of the file system, and `NotFound` where another folder has taken
    /// the place of this one; the flag is a hint and no reason to stop.
    pub fn raise_flag(&self) -> io::Result<()> {
        self.check_in_place()?;
        let path = self.path.join(STATUS_FLAG);
        create_private(&path, false).map(drop).map_err(|error| {
            let why = format!("{}: {error}; remove what is there", path.display());
            io::Error::new(error.kind(), why)
        })
    }

    /// Takes the flag down; that it is not there is fine.
    pub fn lower_flag(&self) {
        if self.is_in_place() {
            let _ = fs::remove_file(self.path.join(STATUS_FLAG));
        }
    }

    /// True where the Go agent left its store.
    #[must_use]
    pub fn has_go_store(&self) -> bool {
        self.path.join(GO_STORE).is_dir()
    }
}

/// A name in `folder` that is free: `prefix` and the time in UTC to the second,
/// as `2006-01-02T15-04-05Z`, with a suffix where that exists.
#[must_use]
pub fn name_with_time(folder: &Path, prefix: &str, time: SystemTime) -> PathBuf {
    let seconds: String = rfc3339(time).chars().take(19).collect();
    let name = format!("{prefix}{}Z", seconds.replace(':', "-"));
    let mut path = folder.join(&name);
    let mut suffix = 1;
    while path.symlink_metadata().is_ok() {
        suffix += 1;
        path = folder.join(format!("{name}-{suffix}"));
    }
    path
}

/// Makes the names in a folder survive a power cut.
///
/// # Errors
/// Those of the file system.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Opens a file for writing, 0600, without following a link that another user
/// could have placed (spec 7).
pub(crate) fn create_private(path: &Path, append: bool) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .append(append)
        .create(true)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(path)
}
