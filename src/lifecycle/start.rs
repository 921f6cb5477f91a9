//! Becoming the one agent of a folder (spec 5.1).

use std::io;
use std::os::unix::net::UnixListener;
use std::thread::sleep;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::ingest::socket::{self, Socket};
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

/// Binds the folder's socket. `None` while a file or folder of its name is in
/// the way: that is no reason to leave the records in the store alone.
///
/// # Errors
/// [`Error::CannotCreate`] naming the socket.
pub fn bind(folder: &Folder) -> Result<Option<(Socket, UnixListener)>> {
    match Socket::bind(folder.path()) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => {
            let path = socket::path_in(folder.path());
            Err(Error::CannotCreate(format!(
                "socket {}: {error}",
                path.display()
            )))
        }
    }
}
