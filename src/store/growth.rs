//! Lengthens LMDB's file ahead of it. A flush of blocks that were written before
//! leaves the file system's journal alone, and takes half to three quarters of
//! the time of one that lengthens the file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::limits::{GROWTH_MAX, GROWTH_MIN};
use crate::store::space::Space;

/// One page, so that the zeros take no memory.
static ZEROS: [u8; 4096] = [0; 4096];

/// The data file's end, which LMDB has not reached yet.
pub(super) struct Growth {
    file: File,
}

impl Growth {
    /// Opens the data file, which exists.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(path: &Path) -> io::Result<Growth> {
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        Ok(Growth { file })
    }

    /// The data file.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// True once the data file has no name any more.
    pub(super) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.nlink() == 0)
    }

    /// Appends zeros where less than `wanted` bytes are left behind the `used`
    /// ones: as many as are used, within [`GROWTH_MIN`] and [`GROWTH_MAX`], and
    /// none where the disk has not room for them. They are flushed along with
    /// the next commit. That it fails costs nothing but time: LMDB lengthens the
    /// file itself.
    pub(super) fn keep_ahead(&self, used: u64, wanted: u64, space: Space) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let more = used.clamp(GROWTH_MIN, GROWTH_MAX);
        if wanted > more || length >= used.saturating_add(wanted) || space.admit(more, 0).is_err() {
            return Ok(());
        }
        (length..length + more)
            .step_by(ZEROS.len())
            .try_for_each(|at| self.file.write_all_at(&ZEROS, at))
    }
}
