//! The disk's reserve (spec 4): ingest stops before the disk is full, so that
//! the host and the drain keep room.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::limits::{RESERVE_MAX, RESERVE_MIN, RESERVE_SHARE, RESERVE_SHARE_MAX, ROOM_STEP};

/// A file that is gone again at once, in the store's folder.
const TRIAL_NAME: &str = "room";

/// Sizes of a file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What an unprivileged process may still take.
    pub available: u64,
}

impl Space {
    /// The space of the file system that holds `folder`; `None` where it cannot
    /// be told.
    #[must_use]
    pub fn of(folder: &File) -> Option<Space> {
        let stat = rustix::fs::fstatvfs(folder).ok()?;
        Some(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    /// What stays free: 1 % of the file system, within its bounds.
    #[must_use]
    pub fn reserve(self) -> u64 {
        (self.total / RESERVE_SHARE)
            .clamp(RESERVE_MIN, RESERVE_MAX)
            .min(self.total / RESERVE_SHARE_MAX)
    }

    /// Whether a group of so many bytes may be stored; LMDB may need twice that
    /// until the old pages are free again. `free_bytes` are free in the store's
    /// file, which never shrinks: what fits there takes nothing from the disk. But
    /// a large record needs pages in a row, so half of the reserve stays.
    ///
    /// # Errors
    /// [`Error::Full`] with the figures.
    pub fn admit(self, group_bytes: u64, free_bytes: u64) -> Result<()> {
        let needed = group_bytes.saturating_mul(2);
        let left = self.available.saturating_sub(needed);
        let fits_in_file = free_bytes >= needed && self.available >= self.reserve() / 2;
        if left >= self.reserve() || fits_in_file {
            return Ok(());
        }
        Err(Error::Full(format!(
            "disk full: {} bytes available, {} kept in reserve",
            self.available,
            self.reserve()
        )))
    }
}

/// True for the errors that say that there is no room.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Finds out whether a file of `length` bytes in `folder` could grow by `room`
/// bytes: no figure of the system tells of every quota and limit.
///
/// # Errors
/// Those of the file system, [`is_full`] among them.
pub fn try_room(folder: &Path, length: u64, room: u64) -> io::Result<()> {
    let path = folder.join(TRIAL_NAME);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    let block = [0; ROOM_STEP];
    (0..room)
        .step_by(ROOM_STEP)
        .try_for_each(|at| file.write_all_at(&block, length + at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_reserve_is_one_percent_within_its_bounds() {
        for (total, reserve) in [
            (0, 0),
            (8 * MIB, 2 * MIB),
            (16 * MIB, 4 * MIB),
            (64 * MIB, 4 * MIB),
            (1000 * MIB, 10 * MIB),
            (25_600 * MIB, 256 * MIB),
            (1 << 50, 256 * MIB),
        ] {
            let space = Space {
                total,
                available: 0,
            };
            assert_eq!(space.reserve(), reserve, "{total}");
        }
    }

    #[test]
    fn a_group_is_admitted_while_twice_its_bytes_leave_the_reserve() {
        let space = Space {
            total: 64 * MIB,
            available: 6 * MIB,
        };
        assert!(space.admit(0, 0).is_ok());
        assert!(space.admit(MIB, 0).is_ok());
        assert!(matches!(space.admit(MIB + 1, 0), Err(Error::Full(_))));
        assert!(space.admit(u64::MAX, 0).is_err());
    }

    #[test]
    fn a_group_is_admitted_below_the_reserve_where_the_file_has_room_for_twice_its_bytes() {
        for (available, free, admitted) in [
            (4 * MIB - 1, 2 * MIB, true),
            (4 * MIB - 1, 2 * MIB - 1, false),
            (2 * MIB, 2 * MIB, true),
            (2 * MIB - 1, 100 * MIB, false),
        ] {
            let space = Space {
                total: 64 * MIB,
                available,
            };
            let found = space.admit(MIB, free).is_ok();
            assert_eq!(found, admitted, "{available} {free}");
        }
    }
}
