//! What the handles ask of the writer, and what one commit takes of that.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Result;
use crate::limits::{GROUP_BYTES_MAX, GROUP_RECORDS_MAX};
use crate::proto::store::StoredRecord;
use crate::store::{Close, Details, Record, record};

/// What the writer is asked for.
pub(super) enum Command {
    Insert(Insert),
    /// Reads what is neither delivered nor set aside.
    Read {
        reply: oneshot::Sender<Vec<Record>>,
    },
    /// Keeps for a successor what was delivered.
    SaveDelivered {
        reply: oneshot::Sender<()>,
    },
    /// Deletes what was delivered.
    DeleteDelivered {
        reply: oneshot::Sender<()>,
    },
    Details {
        reply: oneshot::Sender<Details>,
    },
    Close {
        how: Close,
        reply: oneshot::Sender<bool>,
    },
}

/// A record that waits for its commit.
pub(super) struct Insert {
    pub(super) record: StoredRecord,
    /// The record's share of the memory budget, also when its client has gone away
    /// meanwhile.
    pub(super) _reserved: Option<OwnedSemaphorePermit>,
    pub(super) reply: oneshot::Sender<Result<()>>,
}

/// What one commit carries (group commit, spec 4).
#[derive(Default)]
pub(super) struct Group {
    pub(super) inserts: Vec<Insert>,
    pub(super) bytes: usize,
    pub(super) deletes: Vec<oneshot::Sender<()>>,
    /// What ends the gathering: it is answered after the commit.
    pub(super) last: Option<Command>,
    /// The commit was tried, and is not tried again.
    pub(super) is_committed: bool,
}

impl Group {
    /// Takes a command in.
    pub(super) fn add(&mut self, command: Command) {
        match command {
            Command::Insert(insert) => {
                self.bytes += record::encoded_len(&insert.record);
                self.inserts.push(insert);
            }
            Command::DeleteDelivered { reply } => self.deletes.push(reply),
            other => self.last = Some(other),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inserts.is_empty() && self.deletes.is_empty() && self.last.is_none()
    }

    /// False once the group is as large as a commit may be, or at its end.
    pub(super) fn has_room(&self) -> bool {
        self.last.is_none()
            && self.inserts.len() < GROUP_RECORDS_MAX
            && self.bytes < GROUP_BYTES_MAX
    }
}
