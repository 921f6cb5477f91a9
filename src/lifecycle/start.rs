//! Becoming the one agent of a folder (spec 5.1).

use std::io;
use std::os::unix::net::UnixListener;
use std::thread::sleep;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::ingest::doorway::Entrance;
use crate::ingest::socket::{self, Socket};
use crate::limits::{ANSWER_AGAIN, LOCK_POLL, LOCK_WAIT};

/// Takes the instance lock, waiting for an agent that is just leaving. False:
/// another agent serves this folder. That its socket answers says so, unless that is
/// the one which was `passed`: it answers whoever serves it. One that was killed, or
/// has been told to stop, answers for a moment yet: it is asked twice.
///
/// # Errors
/// [`Error::CannotCreate`] when the folder stays locked and nobody answers.
pub fn take_lock(folder: &Folder, passed: bool) -> Result<bool> {
    let deadline = Instant::now() + LOCK_WAIT;
    let mut answered: Option<Instant> = None;
    loop {
        if folder.try_lock()? {
            return Ok(true);
        }
        match answered {
            Some(first) if first.elapsed() < ANSWER_AGAIN => {}
            _ if passed || !socket::answers(folder.path()) => answered = None,
            Some(_) => return Ok(false),
            None => answered = Some(Instant::now()),
        }
        if Instant::now() >= deadline && answered.is_none() {
            if passed {
                return Ok(false);
            }
            return Err(Error::CannotCreate(format!(
                "folder {0} is locked by another process, but no agent answers at its socket; \
                 \"fuser {0}\" names who has it open",
                folder.path().display()
            )));
        }
        sleep(LOCK_POLL);
    }
}

/// Whether somebody listens at the socket of a folder that no agent has locked, as
/// systemd does. To replace that file would leave none behind, and nobody could
/// start an agent any more. An agent that was killed answers for a moment yet: what
/// it had is closed one after the other, on a throttled host with pauses.
fn is_held(folder: &Folder) -> bool {
    let deadline = Instant::now() + LOCK_WAIT;
    while socket::answers(folder.path()) {
        if Instant::now() >= deadline {
            return true;
        }
        sleep(LOCK_POLL);
    }
    false
}

/// The way in, and what listens there: the socket that was `passed`, else the
/// folder's own. Nothing listens while a file or folder of its name is in the way:
/// that is no reason to leave the records in the store alone.
///
/// # Errors
/// [`Error::CannotCreate`] naming the socket.
pub fn open_entrance(
    folder: &Folder,
    passed: Option<UnixListener>,
) -> Result<(Entrance, Option<UnixListener>)> {
    if passed.is_some() {
        return Ok((Entrance::Passed, passed));
    }
    if is_held(folder) {
        return Err(Error::CannotCreate(format!(
            "socket {}: somebody listens there who is no agent of this folder; where that is \
             systemd, it starts one for whoever connects: start none, or stop its socket unit",
            socket::path_in(folder.path()).display()
        )));
    }
    match Socket::bind(folder.path()) {
        Ok((socket, listener)) => Ok((Entrance::Own(Some(socket)), Some(listener))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((Entrance::Own(None), None))
        }
        Err(error) => {
            let path = socket::path_in(folder.path());
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => format!(
                    "; user {} must be able to write to the folder",
                    rustix::process::geteuid().as_raw()
                ),
                _ => String::new(),
            };
            Err(Error::CannotCreate(format!(
                "socket {}: {error}{remedy}",
                path.display()
            )))
        }
    }
}
