//! Stdout (spec 8): lines that never wait for a reader, whatever stdout is, and
//! that leave it in the mode in which others share it.
//!
//! `O_NONBLOCK` belongs to the open description, which a shell and its other
//! commands share. So a terminal, a pipe and a FIFO are opened once more, and
//! `send(2)` takes a flag. A file is not: opened anew it would be written from its
//! start, and it keeps no writer waiting for a reader.

use std::io::IsTerminal;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, Result, write};
use rustix::net::{SendFlags, send};
use rustix::stdio::stdout;

/// Lines go out whole: while the rest of one waits, no other is begun.
pub struct Stdout {
    way: Way,
    /// Of a line of which only a part was taken.
    rest: Vec<u8>,
}

enum Way {
    /// An open description of the agent's own, which does not wait.
    Own(OwnedFd),
    Socket,
    /// A pipe or FIFO that could not be opened once more: it is another user's, or
    /// has no reader yet.
    Pipe,
    /// Takes so many bytes without waiting once it polls writable.
    Polled(usize),
}

impl Stdout {
    /// Finds out what stdout is. This comes before any change of user: another one
    /// may not open the terminal.
    #[must_use]
    pub fn open() -> Stdout {
        ignore_terminal_stop();
        let kind = fstat(stdout()).map(|found| FileType::from_raw_mode(found.st_mode));
        let way = match kind {
            Ok(FileType::Socket) => Way::Socket,
            Ok(FileType::Fifo) => own_description().map_or(Way::Pipe, Way::Own),
            // It polls writable while it has room for one byte.
            Ok(FileType::CharacterDevice) if stdout().is_terminal() => {
                own_description().map_or(Way::Polled(1), Way::Own)
            }
            _ => Way::Polled(usize::MAX),
        };
        Stdout {
            way,
            rest: Vec::new(),
        }
    }

    /// Writes a line, its end included, or drops it where nothing of it is taken at
    /// once. The rest of a line that was taken in part goes first the next time.
    pub fn write_line(&mut self, line: &[u8]) {
        let rest = std::mem::take(&mut self.rest);
        let left = self.write_at_once(&rest);
        if !left.is_empty() {
            self.rest = left.to_vec();
            return;
        }
        let left = self.write_at_once(line);
        if left.len() < line.len() {
            self.rest = left.to_vec();
        }
    }

    /// What is not taken at once of `bytes`.
    fn write_at_once<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(taken @ 1..) => bytes = bytes.get(taken..).unwrap_or_default(),
                Ok(0) | Err(_) => break,
            }
        }
        bytes
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if let Way::Pipe = self.way
            && let Ok(own) = own_description()
        {
            self.way = Way::Own(own);
        }
        match &self.way {
            Way::Own(own) => write(own, bytes),
            Way::Socket => send(stdout(), bytes, SendFlags::DONTWAIT),
            Way::Pipe => match write_without_waiting(stdout(), bytes) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_polled(bytes, libc::PIPE_BUF),
                written => written,
            },
            Way::Polled(most) => write_polled(bytes, *most),
        }
    }
}

fn write_polled(bytes: &[u8], most: usize) -> Result<usize> {
    let stdout = stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec::default()))?;
    let [fd] = fds;
    if !fd.revents().contains(PollFlags::OUT) {
        return Err(Errno::AGAIN);
    }
    write(stdout, bytes.get(..most).unwrap_or(bytes))
}

/// Opens what stdout is once more, for writing without waiting.
#[cfg(target_os = "linux")]
fn own_description() -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};

    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open("/proc/self/fd/1", flags, Mode::empty())
}

/// `/dev/fd/1` is the same description.
#[cfg(not(target_os = "linux"))]
fn own_description() -> Result<OwnedFd> {
    Err(Errno::OPNOTSUPP)
}

#[cfg(target_os = "linux")]
fn write_without_waiting(fd: BorrowedFd, bytes: &[u8]) -> Result<usize> {
    use rustix::io::{ReadWriteFlags, pwritev2};

    /// A pipe has no offset (pwritev2(2): -1).
    const NO_OFFSET: u64 = u64::MAX;
    let parts = [std::io::IoSlice::new(bytes)];
    pwritev2(fd, &parts, NO_OFFSET, ReadWriteFlags::NOWAIT)
}

#[cfg(not(target_os = "linux"))]
fn write_without_waiting(_: BorrowedFd, _: &[u8]) -> Result<usize> {
    Err(Errno::OPNOTSUPP)
}

/// A terminal with `tostop` set stops a background process that writes to it.
fn ignore_terminal_stop() {
    // SAFETY: no handler is installed that could run.
    unsafe {
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
    }
}
