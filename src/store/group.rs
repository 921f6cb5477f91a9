//! What is committed together (group commit, spec 4).

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Result;
use crate::limits::{GROUP_BYTES_MAX, GROUP_RECORDS_MAX};
use crate::proto::store::StoredRecord;
use crate::store::{Command, record};

/// A record that waits for its commit.
pub(super) struct Insert {
    pub(super) record: StoredRecord,
    _reserved: OwnedSemaphorePermit,
    pub(super) reply: oneshot::Sender<Result<()>>,
}

/// What one commit carries.
#[derive(Default)]
pub(super) struct Group {
    pub(super) inserts: Vec<Insert>,
    pub(super) bytes: usize,
    pub(super) flushes: Vec<oneshot::Sender<()>>,
    /// What ends the gathering: it is answered after the commit.
    pub(super) last: Option<Command>,
}

impl Group {
    /// Takes a command in.
    pub(super) fn add(&mut self, command: Command) {
        match command {
            Command::Insert {
                record,
                reserved,
                reply,
            } => {
                self.bytes += record::encoded_len(&record);
                self.inserts.push(Insert {
                    record,
                    _reserved: reserved,
                    reply,
                });
            }
            Command::Flush { reply } => self.flushes.push(reply),
            other => self.last = Some(other),
        }
    }

    /// False once the group is as large as a commit may be, or at its end.
    pub(super) fn has_room(&self) -> bool {
        self.last.is_none()
            && self.inserts.len() < GROUP_RECORDS_MAX
            && self.bytes < GROUP_BYTES_MAX
    }
}
