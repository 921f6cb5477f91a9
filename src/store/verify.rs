//! Reads a store that is not trusted through LMDB in a child process, before the agent's
//! own LMDB is given it (spec 4): what kills LMDB kills the child.

mod child;
mod free_list;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// What the child says of a store that is sound.
const SOUND: &[u8] = b"sound";
/// What it says first where no tree counts its records.
const UNKNOWN: u64 = u64::MAX;
/// Bytes of its answer that are read: the records that the tree counts, and why.
const ANSWER_MAX: u64 = 1024;

/// What the child has found.
pub(super) enum CheckResult {
    Sound,
    Unsound {
        reason: String,
        /// Records that the damaged tree says it has, where it says so.
        expected: Option<u64>,
    },
}

/// A child at work.
pub(super) struct Verification {
    child: Pid,
    answer: OwnedFd,
}

impl Verification {
    /// Forks a child that reads the store in `folder`, whose file has `length` bytes. The
    /// process must have no other thread.
    ///
    /// # Errors
    /// Those of pipe(2) and fork(2).
    pub(super) fn begin(folder: &Path, length: u64) -> io::Result<Verification> {
        let (answer, says) = io::pipe()?;
        let (answer, says) = (OwnedFd::from(answer), OwnedFd::from(says));
        let parent = rustix::process::getpid();
        // SAFETY: there is one thread, so that no lock is held by another; the child
        // never returns from its branch.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => child::run(folder, length, &says, parent),
            pid => {
                let child = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
                Ok(Verification { child, answer })
            }
        }
    }

    /// Waits for the child's end.
    ///
    /// # Errors
    /// Those of the pipe.
    pub(super) async fn result(self) -> io::Result<CheckResult> {
        let mut answer = Vec::new();
        let says = Receiver::from_owned_fd(self.answer)?;
        says.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        // It has closed its end, or is gone. Where the parent has SIGCHLD ignored, there is
        // no status.
        let status = waitpid(Some(self.child), WaitOptions::empty())
            .ok()
            .flatten();
        let status = status.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
        let (expected, said) = match answer.split_first_chunk::<8>() {
            Some((expected, said)) => (Some(u64::from_be_bytes(*expected)), said),
            None => (None, &[][..]),
        };
        let expected = expected.filter(|expected| *expected != UNKNOWN);
        // Its last word.
        if said == SOUND {
            return Ok(CheckResult::Sound);
        }
        let reason = match (said, status) {
            (b"", Some(status)) => format!("LMDB ended with {status}"),
            (b"", None) => "LMDB did not read it".to_owned(),
            (why, _) => String::from_utf8_lossy(why).into_owned(),
        };
        Ok(CheckResult::Unsound { reason, expected })
    }
}
