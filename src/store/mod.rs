//! The records on disk (spec 4). One task, the [`Writer`], owns the store; the rest of the
//! agent holds a [`Handle`] to it.
//!
//! # On disk
//!
//! The folder `lmdb/`, 0700, in the base folder:
//!
//! | name | what |
//! |---|---|
//! | `data.mdb` | LMDB's file. It carries a write lock (fcntl, of its open file) while an agent has it open |
//! | `delivered` | the store's id, a key, and the CRC-32 of both: every record up to that key is delivered or set aside. Not flushed |
//! | `trusted` | LMDB may be given `data.mdb` as it is: this boot's id while an agent lives, `clean` after a clean end, each with the file's device and inode, `clean` with its length and time too |
//! | `verified` | a child could read `data.mdb` before LMDB was given it. Where that is so and `trusted` is gone, LMDB died of it |
//! | `data.mdb.salvage-<time>` | a damaged store's file whose records are carried over |
//! | `data.mdb.damaged-<time>` | the same once that is done, for the operator |
//!
//! The databases in `data.mdb`:
//!
//! | name | key | value |
//! |---|---|---|
//! | `records` | u64, big-endian: max(last key + 1, unix nanoseconds) | a `StoredRecord` of `proto/record.proto`; its last field is the CRC-32 of the key and all before it |
//! | `arrivals` | the same | the same: what came while a damaged store's records were carried over |
//! | `meta` | `format` | u32, little-endian: [`STORE_FORMAT`](crate::limits::STORE_FORMAT) |
//! | | `store_id` | 16 random bytes, of which and of the key each Idempotency-Key is made |
//!
//! # What holds at every moment
//!
//! - A record that was acknowledged is in `records` or `arrivals` of a transaction that was
//!   flushed, or in a `salvage-` file beside it, or its key is no larger than `delivered`
//!   says, or it was deleted in a flushed transaction after it was delivered.
//! - Keys rise in the order of arrival. Those in `arrivals` come after those in `records`,
//!   whatever their numbers: at the end of the scan they are appended there, under larger
//!   keys where need be.
//! - Records are deleted from the first on, and none before it was delivered or set aside.
//! - `trusted` is there only while `data.mdb` is as LMDB has left it: it is removed before
//!   LMDB writes, and made after the first commit or when a child has just read the file.
//!   A crash removes it (`crash.rs`), and so does a flush that failed. Another boot's, or
//!   another file's, says nothing.
//! - LMDB is given no file of an earlier agent's that is neither trusted nor verified.
//! - Of a damaged store nothing is read by LMDB. While it is scanned nothing is replayed
//!   and nothing deleted, so that a kill repeats the scan and skips nothing; a part of its
//!   file is given back only when what it held is committed elsewhere. The fresh store has
//!   its id, so that `delivered` and the Idempotency-Keys stay true.
//!
//! # A store's life
//!
//! [`open::examine`] looks at `trusted` and forks the child (`verify.rs`) before there is a
//! runtime; `open.rs` waits for it, and renames a damaged file. [`lmdb`] is the store
//! itself, [`writer`] commits, `carry.rs` brings over what `salvage.rs` finds, and an empty
//! store is removed when the agent leaves.

mod carry;
mod crash;
mod delivered;
mod failure;
mod files;
pub mod lmdb;
mod messages;
pub mod open;
mod opened;
mod pages;
mod preallocator;
pub mod record;
mod remove;
#[doc(hidden)] // for the fuzzer
pub mod salvage;
pub mod space;
mod trust;
mod verify;
pub mod writer;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::limits::WRITER_QUEUE;
use crate::proto::store::StoredRecord;
pub use files::{FOLDER, has_data};
use messages::{Command, Insert};
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

/// What was delivered or set aside, in order, and is not deleted yet.
#[derive(Debug, Clone, Copy, Default)]
struct Delivered {
    /// The last one's key.
    through: u64,
    count: u64,
}

/// What the handles and the writer share.
struct Shared {
    delivered: Mutex<Delivered>,
    status: watch::Sender<Status>,
    /// The last key of what an earlier agent left.
    earlier_through: OnceLock<u64>,
}

impl Shared {
    fn delivered(&self) -> std::sync::MutexGuard<'_, Delivered> {
        self.delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store, as all but its writer see it.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl Handle {
    fn new() -> (Handle, mpsc::Receiver<Command>) {
        let (commands, mail) = mpsc::channel(WRITER_QUEUE);
        let shared = Arc::new(Shared {
            delivered: Mutex::default(),
            status: watch::Sender::new(Status::default()),
            earlier_through: OnceLock::new(),
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
    pub async fn insert(
        &self,
        record: StoredRecord,
        reserved: Option<OwnedSemaphorePermit>,
    ) -> Result<()> {
        self.ask(|reply| {
            Command::Insert(Insert {
                record,
                _reserved: reserved,
                reply,
            })
        })
        .await?
    }

    /// Reads the records that are neither delivered nor set aside, oldest first: a batch,
    /// empty only when there are none. Waits for a damaged store that is scanned.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn read(&self) -> Result<Vec<Record>> {
        self.ask(|reply| Command::Read { reply }).await
    }

    /// Takes every record up to `key` for delivered or set aside, this being the next in
    /// order. [`Handle::save_delivered`] keeps that for a successor, and the record is
    /// deleted with the next commit, [`Handle::delete_delivered`] at the latest.
    pub fn set_delivered(&self, key: u64) {
        let mut delivered = self.shared.delivered();
        delivered.through = key;
        delivered.count += 1;
        self.shared
            .status
            .send_modify(|status| status.count = status.count.saturating_sub(1));
    }

    /// Makes sure that a successor of this process knows what was delivered, without
    /// a flush.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn save_delivered(&self) -> Result<()> {
        self.ask(|reply| Command::SaveDelivered { reply }).await
    }

    /// Deletes what was delivered. Where the disk is too full even for that, the next
    /// commit tries again.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn delete_delivered(&self) -> Result<()> {
        self.ask(|reply| Command::DeleteDelivered { reply }).await
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

    /// Whether an earlier agent left the record of that key, which was not taken in this
    /// life.
    #[must_use]
    pub fn is_earlier(&self, key: u64) -> bool {
        let through = self.shared.earlier_through.get();
        through.is_some_and(|through| key <= *through)
    }

    /// Waits until the store's status is as wanted.
    pub async fn wait_for(&self, mut wanted: impl FnMut(&Status) -> bool) {
        let mut changes = self.shared.status.subscribe();
        // It fails only when every handle is gone, and this is one.
        let _ = changes.wait_for(|status| wanted(status)).await;
    }
}
