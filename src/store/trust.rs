//! Whether LMDB may be given a store as it is (spec 4): a small file beside it says so.
//! After the death of the process alone the page cache has every write in order; after
//! another boot, an LMDB that crashed or a copy file by file it may not.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::folder::sync_folder;
use crate::store::delivered::options;
use crate::store::lmdb::DATA_FILE;

/// Holds the boot's id while an agent lives, `clean` after a clean end, and of which
/// data file it speaks: a copy is not trusted.
pub(super) const TRUSTED: &str = "trusted";
/// Says of a store that was verified what the other file says. Where such a store is no
/// longer trusted, LMDB died of it: it is not given that store again.
pub(super) const VERIFIED: &str = "verified";
/// Bytes of the file that are read: more than it ever has.
const STATE_MAX: u64 = 256;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is known of a store before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is opened as it is.
    Trusted,
    /// It is verified first.
    Unknown,
    /// It was found sound, and LMDB died of it all the same.
    Deadly,
}

/// Tells whether the store in `folder`, whose data file this is, is trusted.
pub(super) fn judge(folder: &Path, data: &Metadata) -> Trust {
    let (trusted, verified) = (read(&path(folder)), read(&folder.join(VERIFIED)));
    let alive = alive(data);
    match trusted {
        Some(_) if trusted == alive || trusted == Some(clean(data)) => Trust::Trusted,
        None if verified.is_some() && verified == alive => Trust::Deadly,
        _ => Trust::Unknown,
    }
}

/// Trusts no store in `folder` until one of the next two says so again. Durable with the
/// folder's next flush.
pub(super) fn revoke(folder: &Path) {
    let _ = fs::remove_file(path(folder));
}

/// Trusts the open store in `folder` for the rest of this boot.
pub(super) fn trust_while_alive(folder: &Path) {
    // Where the boot has no name, or the file no room, the next start verifies.
    if let Ok(data) = fs::metadata(folder.join(DATA_FILE))
        && let Some(state) = alive(&data)
    {
        let _ = write(&path(folder), &state);
    }
}

/// Trusts the closed store in `folder`.
pub(super) fn trust_as_clean(folder: &Path) {
    if let Ok(data) = fs::metadata(folder.join(DATA_FILE)) {
        // Without it the next start verifies.
        let written = write(&path(folder), &clean(&data)).and_then(|file| file.sync_all());
        let _ = written.and_then(|()| sync_folder(folder));
    }
}

/// Remembers that the store was found sound.
pub(super) fn set_verified(folder: &Path) {
    if let Ok(data) = fs::metadata(folder.join(DATA_FILE))
        && let Some(state) = alive(&data)
    {
        let _ = write(&folder.join(VERIFIED), &state);
    }
}

/// Forgets that it was: the store is trusted for other reasons, or there is none.
pub(super) fn forget_verified(folder: &Path) {
    let _ = fs::remove_file(folder.join(VERIFIED));
}

/// The file's path.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(TRUSTED)
}

fn alive(data: &Metadata) -> Option<String> {
    let boot = fs::read_to_string(BOOT_ID).ok()?;
    let boot = boot.trim();
    (!boot.is_empty()).then(|| format!("{boot} {}:{}\n", data.dev(), data.ino()))
}

/// With the time of the last write: nothing may have written since.
fn clean(data: &Metadata) -> String {
    let (device, inode, length) = (data.dev(), data.ino(), data.len());
    let (seconds, nanos) = (data.mtime(), data.mtime_nsec());
    format!("clean {device}:{inode} {length} {seconds}.{nanos:09}\n")
}

fn read(path: &Path) -> Option<String> {
    let mut state = String::new();
    let file = options().read(true).open(path).ok()?;
    file.take(STATE_MAX).read_to_string(&mut state).ok()?;
    Some(state)
}

fn write(path: &Path, state: &str) -> io::Result<File> {
    let mut file = options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(state.as_bytes()).map(|()| file)
}
