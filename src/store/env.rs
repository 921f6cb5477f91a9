//! LMDB's environment: its folder, its flags, its map.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use heed::{Env, EnvFlags, EnvOpenOptions, WithoutTls};

use crate::error::{Error, Result};
use crate::limits::{ADDRESS_SPACE_LEFT, MAP_MIN};
use crate::store::{pages, space};

/// Creates the store's folder, 0700, unless it is there and the agent's own.
///
/// # Errors
/// [`Error::CannotCreate`], or [`Error::Full`] where there is no room for it.
pub(super) fn create_folder(folder: &Path) -> Result<()> {
    let describe = |error: &dyn std::fmt::Display| {
        Error::CannotCreate(format!("store {}: {error}", folder.display()))
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if space::is_full(&error) => {
            return Err(Error::Full(format!("disk full: {error}")));
        }
        Err(error) => return Err(describe(&error)),
    }
    check_own(folder)
}

/// Makes sure that nothing another user has placed is taken for a store
/// (spec 7); that there is none is fine.
///
/// # Errors
/// [`Error::CannotCreate`] for a link, and for what belongs to somebody else.
pub(super) fn check_own(folder: &Path) -> Result<()> {
    let why = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => error.to_string(),
        Ok(found) if found.file_type().is_symlink() => "is a link, which is not followed".into(),
        Ok(found) if !is_trusted(folder, found.uid()) => {
            let (owner, own) = (found.uid(), rustix::process::geteuid().as_raw());
            format!("belongs to another user ({owner}, not {own}): run the agent as its owner")
        }
        Ok(_) => return Ok(()),
    };
    let folder = folder.display();
    Err(Error::CannotCreate(format!("store {folder}: {why}")))
}

/// Whether a store may be this user's: the agent's own, or the base folder's owner,
/// who may put anything in it (spec 4).
fn is_trusted(folder: &Path, user: u32) -> bool {
    let base = folder.parent().and_then(|base| fs::metadata(base).ok());
    user == rustix::process::geteuid().as_raw() || base.is_some_and(|base| base.uid() == user)
}

/// Opens the environment with the largest map up to `size` that the address
/// space allows, and tells how large that is, in bytes.
///
/// # Errors
/// [`Error::CannotCreate`], or [`Error::Full`] where there is no room for it.
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
        // SAFETY: nobody else truncates or writes the file: the folder is 0700
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
            Err(heed::Error::Io(error)) if space::is_full(&error) => {
                return Err(Error::Full(format!("disk full: {error}")));
            }
            Err(error) => {
                let folder = folder.display();
                return Err(Error::CannotCreate(format!("store {folder}: {error}")));
            }
        }
    }
}
