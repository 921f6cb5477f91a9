//! What LMDB's errors mean for the agent.

use std::io;

use heed::MdbError;
use rustix::io::Errno;

use crate::error::Error;
use crate::store::space;

/// What became of a write transaction.
pub(super) enum Failure {
    /// The map is full: grow it and try again.
    MapFull,
    /// EIO: the disk failed, or LMDB calls a short write so (mdb_page_flush in
    /// its mdb.c), which is how a disk fills up.
    InputOutput(io::Error),
    /// To be told to the clients that wait.
    Error(Error),
}

impl From<heed::Error> for Failure {
    fn from(error: heed::Error) -> Self {
        Failure::Error(match error {
            heed::Error::Mdb(MdbError::MapFull) => return Failure::MapFull,
            heed::Error::Io(error) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                return Failure::InputOutput(error);
            }
            heed::Error::Io(error) if space::is_full(&error) => {
                Error::Full(format!("disk full: {error}"))
            }
            heed::Error::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => {
                Error::Full(format!("store full: {error}"))
            }
            heed::Error::Io(error) => Error::DiskFailed(format!("store: {error}")),
            // What LMDB finds wrong in its file, a key that exists already among it.
            other => Error::Damaged(other.to_string()),
        })
    }
}

/// The error of a call that neither grows the map nor can be repeated.
pub(super) fn failed(error: heed::Error) -> Error {
    match Failure::from(error) {
        Failure::MapFull => Error::Full("store full".into()),
        Failure::InputOutput(error) => Error::DiskFailed(format!("store: {error}")),
        Failure::Error(error) => error,
    }
}
