//! Becoming the one agent of a folder (spec 5.1).

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::ingest::agent_folder;
use crate::ingest::listener::ListenSocket;
use crate::ingest::socket::{self, Socket};
use crate::limits::{LIVENESS_RECHECK, LOCK_POLL, LOCK_WAIT};

/// How another agent answers that holds the lock.
#[derive(PartialEq, Eq)]
enum Answering {
    /// By the socket's name.
    ByName,
    /// At this path alone: it is in another PID namespace.
    Hidden(PathBuf),
}

/// Takes the instance lock, waiting for an agent that is just leaving. False:
/// another agent serves this folder. That its socket answers says so, unless that is
/// the one which was `passed`: it answers for any process that serves it. One that was killed, or
/// has been told to stop, answers for a moment yet: it is asked twice. The socket's
/// name is made to lead to one of another PID namespace (spec 5.6).
///
/// # Errors
/// [`Error::CannotCreate`] when the folder stays locked and no agent answers.
pub fn take_lock(folder: &Folder, passed: bool) -> Result<bool> {
    let deadline = Instant::now() + LOCK_WAIT;
    let mut answered: Option<(Answering, Instant)> = None;
    loop {
        if folder.try_lock()? {
            return Ok(true);
        }
        if answered
            .as_ref()
            .is_none_or(|(_, since)| since.elapsed() >= LIVENESS_RECHECK)
        {
            let now = if passed { None } else { answering(folder) };
            answered = match (now, answered) {
                (Some(now), Some((before, _))) if now == before => match now {
                    Answering::ByName => return Ok(false),
                    // Where the name was taken away meanwhile, it is leaving.
                    Answering::Hidden(socket) => {
                        match agent_folder::lead_name_to(folder.path(), &socket) {
                            Ok(()) => return Ok(false),
                            Err(_) => None,
                        }
                    }
                },
                (now, _) => now.map(|now| (now, Instant::now())),
            };
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

fn answering(folder: &Folder) -> Option<Answering> {
    if socket::answers(folder.path()) {
        return Some(Answering::ByName);
    }
    agent_folder::socket_of_another_namespace(folder.path()).map(Answering::Hidden)
}

/// Whether another process listens at the socket of a folder that no agent has locked, as
/// systemd does. To replace that file would leave none behind, and no agent could be
/// started any more. An agent that was killed answers for a moment yet: what
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
/// folder's own, whose name leads through `/proc` where it `may_link` and serves.
/// What an earlier agent's name led to is stale, whatever answers there. Nothing
/// listens while a file or folder of its name is in the way:
/// that is no reason to leave the records in the store alone.
///
/// # Errors
/// [`Error::CannotCreate`] naming the socket.
pub fn open_listen_socket(
    folder: &Folder,
    passed: Option<UnixListener>,
    may_link: bool,
) -> Result<(ListenSocket, Option<UnixListener>)> {
    agent_folder::sweep(folder.path());
    if passed.is_some() {
        return Ok((ListenSocket::Inherited, passed));
    }
    if is_held(folder) {
        return Err(Error::CannotCreate(format!(
            "socket {}: another program listens there, no agent of this folder; where that is \
             systemd, it starts one for whoever connects: start none, or stop its socket unit",
            socket::path_in(folder.path()).display()
        )));
    }
    let own = |socket| ListenSocket::Bound { socket, may_link };
    match Socket::bind(folder.path(), may_link) {
        Ok((socket, listener)) => Ok((own(Some(socket)), Some(listener))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((own(None), None)),
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
