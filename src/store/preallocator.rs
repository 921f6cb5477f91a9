//! Lengthens LMDB's file ahead of it. A flush of blocks that were written before
//! leaves the file system's journal alone, and takes half to three quarters of
//! the time of one that lengthens the file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::limits::{PREALLOCATED_MAX, PREALLOCATED_MIN};
use crate::store::space::Space;

/// One page, so that the zeros take no memory.
static ZEROS: [u8; 4096] = [0; 4096];

/// Appends zeros to the `data` file where less than `wanted` bytes are left behind the
/// `used` ones: as many as are used, within [`PREALLOCATED_MIN`] and
/// [`PREALLOCATED_MAX`], and none where the disk has not room for them or more is
/// wanted than that. They are flushed along with the next commit.
///
/// # Errors
/// Those of the file system. They cost nothing but time: LMDB lengthens the file itself.
pub(super) fn keep_ahead(data: &File, used: u64, wanted: u64, space: Space) -> io::Result<()> {
    let length = data.metadata()?.len();
    let more = used.clamp(PREALLOCATED_MIN, PREALLOCATED_MAX).max(wanted);
    if more > PREALLOCATED_MAX
        || length >= used.saturating_add(wanted)
        || space.admit(more, 0).is_err()
    {
        return Ok(());
    }
    (length..length.max(used) + more)
        .step_by(ZEROS.len())
        .try_for_each(|at| data.write_all_at(&ZEROS, at))
}
