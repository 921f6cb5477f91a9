//! Becoming the one agent of a folder (spec 5.1).

use std::thread::sleep;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::ingest::socket;
use crate::limits::{LOCK_POLL, LOCK_WAIT};

/// Takes the instance lock, waiting for an agent that is just leaving. False:
/// another agent serves this folder.
///
/// # Errors
/// [`Error::CannotCreate`] when the folder stays locked and nobody answers.
pub fn take_lock(folder: &Folder) -> Result<bool> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        if folder.try_lock()? {
            return Ok(true);
        }
        if socket::answers(folder.path()) {
            return Ok(false);
        }
        if Instant::now() >= deadline {
            return Err(Error::CannotCreate(format!(
                "folder {} is locked by another process, but no agent answers at its socket",
                folder.path().display()
            )));
        }
        sleep(LOCK_POLL);
    }
}
