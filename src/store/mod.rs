//! The records on disk (spec 4). One task, the [`Writer`], owns the store;
//! everyone else holds a [`Handle`] to it.

pub mod check;
mod env;
mod failure;
mod group;
mod growth;
pub mod lmdb;
mod mark;
pub mod open;
mod opened;
mod pages;
pub mod record;
mod remove;
pub mod space;
pub mod writer;

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::limits::WRITER_QUEUE;
use crate::proto::store::StoredRecord;

pub use writer::Writer;

/// A record on its way back out.
#[derive(Debug)]
pub struct Record {
    /// Its place in the order.
    pub key: u64,
    /// What the main server knows it by, on every attempt.
    pub idempotency_key: String,
    /// The record, or the stored bytes where they are not what was written.
    pub content: std::result::Result<StoredRecord, Bytes>,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// False until it is known what an earlier agent left.
    pub open: bool,
    /// Records that are neither delivered nor set aside.
    pub count: u64,
}

/// What only an operator wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Details {
    /// Bytes of the pages that hold records.
    pub bytes: u64,
    /// Key of the oldest record, which is about its arrival in unix
    /// nanoseconds; `None` when there is no record.
    pub oldest: Option<u64>,
}

/// What happens to the store's files when it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// The records stay for the next agent.
    Keep,
    /// The store is empty: its folder is removed.
    Remove,
    /// The same, and the first record opens a new one (standby).
    Sleep,
}

/// The writer's mail.
enum Command {
    Insert {
        record: StoredRecord,
        /// The record's share of the memory budget, also when its client has
        /// gone away meanwhile.
        reserved: OwnedSemaphorePermit,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Reads what is not marked as done with.
    Read {
        reply: oneshot::Sender<Vec<Record>>,
    },
    /// Keeps for a successor what was marked as delivered.
    Note {
        reply: oneshot::Sender<()>,
    },
    /// Commits what was marked as delivered.
    Flush {
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

/// What was delivered or set aside, in order, and is not deleted yet.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    through: u64,
    count: u64,
}

/// What the handles and the writer share.
struct Shared {
    marks: Mutex<Marks>,
    status: watch::Sender<Status>,
}

impl Shared {
    fn marks(&self) -> std::sync::MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store, as everyone but its writer sees it.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Handle {
    fn new() -> (Handle, mpsc::Receiver<Command>) {
        let (commands, mail) = mpsc::channel(WRITER_QUEUE);
        let shared = Arc::new(Shared {
            marks: Mutex::default(),
            status: watch::Sender::new(Status::default()),
        });
        (Handle { commands, shared }, mail)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }

    /// Stores a record; returns once it has been flushed to disk. Waits for a
    /// store that is not open yet.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::DiskFailed`], [`Error::Closed`]; the record is
    /// not stored then.
    pub async fn insert(&self, record: StoredRecord, reserved: OwnedSemaphorePermit) -> Result<()> {
        self.ask(|reply| Command::Insert {
            record,
            reserved,
            reply,
        })
        .await?
    }

    /// Reads the records that are not done with, oldest first: a batch, empty only
    /// when there are none.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn read(&self) -> Result<Vec<Record>> {
        self.ask(|reply| Command::Read { reply }).await
    }

    /// Notes that every record up to `key` is done with, this being the next in
    /// order. [`Handle::note`] keeps that for a successor, and the record is
    /// deleted with the next commit, [`Handle::flush`] at the latest.
    pub fn mark_done(&self, key: u64) {
        let mut marks = self.shared.marks();
        marks.through = key;
        marks.count += 1;
        self.shared
            .status
            .send_modify(|status| status.count = status.count.saturating_sub(1));
    }

    /// Makes sure that a successor of this process knows what is marked, without
    /// a flush.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn note(&self) -> Result<()> {
        self.ask(|reply| Command::Note { reply }).await
    }

    /// Deletes what is marked. Where the disk is too full even for that, the
    /// marks stay and the next commit tries again.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn flush(&self) -> Result<()> {
        self.ask(|reply| Command::Flush { reply }).await
    }

    /// Sizes and ages, for the operator.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn details(&self) -> Result<Details> {
        self.ask(|reply| Command::Details { reply }).await
    }

    /// Closes the store after what is queued before. False: a record has come
    /// in, so the store was not removed and goes on.
    ///
    /// # Errors
    /// [`Error::Closed`] where it is closed already.
    pub async fn close(&self, how: Close) -> Result<bool> {
        self.ask(|reply| Command::Close { how, reply }).await
    }

    /// What the store holds right now.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.shared.status.borrow()
    }

    /// Waits until the store's status is as wanted.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&Status) -> bool) {
        let mut changes = self.shared.status.subscribe();
        // It fails only when every handle is gone, and this is one.
        let _ = changes.wait_for(|status| wanted(status)).await;
    }
}
