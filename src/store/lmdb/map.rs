//! LMDB's environment, and how its map grows (spec 4).

use std::io;
use std::path::Path;

use heed::{Env, EnvFlags, EnvOpenOptions, WithoutTls};

use super::Lmdb;
use crate::error::{Error, Result};
use crate::limits::{ADDRESS_SPACE_LEFT, COMMIT_OVERHEAD, MAP_MIN, MAP_RESERVE};
use crate::store::files;
use crate::store::record::FORMAT_KEY;
use crate::store::space::Space;
use crate::store::{pages, preallocator};

/// Opens the environment with the largest map up to `size` that the address
/// space allows, and tells how large that is, in bytes.
///
/// # Errors
/// [`Error::Damaged`] for a file that is no environment; [`Error::CannotCreate`], or
/// [`Error::Full`] where there is no room for it.
pub(super) fn open(folder: &Path, size: usize) -> Result<(Env<WithoutTls>, usize)> {
    let mut size = size.next_multiple_of(MAP_MIN);
    while size / 2 >= MAP_MIN && !pages::has_address_space(size.saturating_add(ADDRESS_SPACE_LEFT))
    {
        size = (size / 2).next_multiple_of(MAP_MIN);
    }
    loop {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(size).max_dbs(4).max_readers(2);
        // SAFETY: NO_LOCK: the instance lock keeps other agents away, and this
        // type is the only one to write and runs on one thread.
        // NO_READ_AHEAD changes nothing but the page cache.
        unsafe { options.flags(EnvFlags::NO_LOCK | EnvFlags::NO_READ_AHEAD) };
        // SAFETY: no other process truncates or writes the file: the folder is 0700
        // and the instance lock is held.
        match unsafe { options.open(folder) } {
            // It is larger where the store is.
            Ok(env) => {
                let size = env.info().map_size;
                return Ok((env, size));
            }
            Err(heed::Error::Io(error))
                if error.kind() == io::ErrorKind::OutOfMemory && size / 2 >= MAP_MIN =>
            {
                size = (size / 2).next_multiple_of(MAP_MIN);
            }
            Err(heed::Error::Io(error)) => return Err(files::failed(folder, &error)),
            Err(error) => return Err(Error::Damaged(error.to_string())),
        }
    }
}

impl Lmdb {
    /// Gives the mapped pages back to the kernel; they come back from the page
    /// cache when they are needed.
    pub fn return_pages(&self) {
        let last_page = self.env.info().last_page_number;
        if let Some(trees) = &self.trees
            && let Ok(txn) = self.env.read_txn()
            && let Ok(Some(value)) = trees.meta.get(&txn, FORMAT_KEY)
        {
            pages::return_pages(value, last_page, self.page_size, &self.map_base);
        }
    }

    /// Makes sure that disk and map have room for so many bytes of records. The disk is
    /// that of the store, whose folder may be a mount point.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn admit(&mut self, bytes: u64) -> Result<()> {
        if let Some(space) = Space::of(&self.data) {
            let length = self.data.metadata().map_or(0, |data| data.len());
            let ahead = length.saturating_sub(self.used());
            space.admit(bytes, self.free_bytes()? + ahead)?;
            let wanted = bytes.saturating_mul(2).saturating_add(COMMIT_OVERHEAD);
            // LMDB lengthens the file itself where this fails.
            let _ = preallocator::keep_ahead(&self.data, self.used(), wanted, space);
        }
        self.make_room(bytes)
    }

    /// Bytes that the disk has above its reserve; `None` where it does not tell.
    pub fn room(&self) -> Option<u64> {
        let space = Space::of(&self.data)?;
        Some(space.available.saturating_sub(space.reserve()))
    }

    /// Grows the map where it has no room for so many bytes of records, of which
    /// LMDB may need twice as many, and for the deletes that make room again.
    ///
    /// # Errors
    /// [`Error::Full`] where the address space has no more.
    pub fn make_room(&mut self, bytes: u64) -> Result<()> {
        let left = (self.map_size as u64).saturating_sub(self.used()) + self.free_bytes()?;
        match left >= bytes.saturating_mul(2).saturating_add(MAP_RESERVE) {
            true => Ok(()),
            false => self.grow(),
        }
    }

    /// True once the data file has no name any more.
    pub fn is_removed(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.data.metadata().is_ok_and(|data| data.nlink() == 0)
    }

    /// Bytes of the file up to the end of its last page in use.
    pub(super) fn used(&self) -> u64 {
        let pages = (self.env.info().last_page_number as u64).saturating_add(1);
        pages.saturating_mul(self.page_size as u64)
    }

    /// Doubles the map, or takes what the address space still has.
    pub(super) fn grow(&mut self) -> Result<()> {
        let mut more = self.map_size;
        while !pages::has_address_space(more.saturating_add(ADDRESS_SPACE_LEFT)) {
            if more <= MAP_MIN {
                return Err(Error::Full(format!(
                    "store full: no address space beyond the {} bytes that are mapped",
                    self.map_size
                )));
            }
            more = (more / 2).next_multiple_of(MAP_MIN);
        }
        let size = self.map_size.saturating_add(more);
        // SAFETY: every transaction of this environment begins and ends within
        // one call of this type, and none is open here.
        unsafe { self.env.resize(size) }
            .map_err(|error| Error::DiskFailed(format!("store map: {error}")))?;
        self.map_size = size;
        Ok(())
    }
}
