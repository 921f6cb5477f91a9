//! The agent's one error type and its exit codes.

use std::fmt;

/// Drained, stopped with all data safe, or another agent serves the folder.
pub const EXIT_OK: u8 = 0;
/// EX_USAGE of sysexits.h: the command line is wrong.
pub const EXIT_USAGE: u8 = 64;
/// EX_CANTCREAT of sysexits.h: folder, socket or store cannot be created.
pub const EXIT_CANNOT_CREATE: u8 = 73;
/// EX_IOERR of sysexits.h: the disk failed.
pub const EXIT_DISK_FAILED: u8 = 74;

/// What can go wrong, by what follows from it. Each message names the thing and
/// the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The command line is wrong: nothing was touched, exit 64.
    Usage(String),
    /// Folder, socket or store cannot be created or opened: exit 73.
    CannotCreate(String),
    /// A read or flush of the store failed: no further ack, exit 74.
    DiskFailed(String),
    /// The store's file is not what was written. It never ends the agent: the records
    /// are carried over to a fresh one (spec 4).
    Damaged(String),
    /// No room for a record: the client is told, the agent goes on.
    Full(String),
    /// The store takes no more calls: the agent is on its way out.
    Closed,
}

impl Error {
    /// The exit code where this error ends the process.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => EXIT_USAGE,
            Error::CannotCreate(_) => EXIT_CANNOT_CREATE,
            Error::DiskFailed(_) | Error::Damaged(_) | Error::Full(_) => EXIT_DISK_FAILED,
            Error::Closed => EXIT_OK,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(why)
            | Error::CannotCreate(why)
            | Error::DiskFailed(why)
            | Error::Damaged(why)
            | Error::Full(why) => f.write_str(why),
            Error::Closed => f.write_str("the agent is leaving and takes no more records"),
        }
    }
}

impl std::error::Error for Error {}

/// A result with the agent's error.
pub type Result<T> = std::result::Result<T, Error>;
