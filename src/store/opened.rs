//! An open store and what its writer knows of it.

use crate::error::{Error, Result};
use crate::store::carry::Carry;
use crate::store::delivered::DeliveredFile;
use crate::store::lmdb::Lmdb;
use crate::store::open::Damage;
use crate::store::record::StoreName;
use crate::store::{Delivered, Details, Record, record, trust};

pub(super) struct OpenStore {
    pub(super) lmdb: Lmdb,
    pub(super) name: StoreName,
    delivered: DeliveredFile,
    /// What is under way where a store was damaged.
    pub(super) carry: Option<Carry>,
    is_trusted: bool,
}

impl OpenStore {
    /// Takes a store over, and tells what of it is delivered but not deleted.
    ///
    /// # Errors
    /// [`Error::DiskFailed`], [`Error::Damaged`].
    pub(super) fn new(lmdb: Lmdb, damage: Option<Damage>) -> Result<(OpenStore, Delivered)> {
        let (mut file, through) = DeliveredFile::open(lmdb.folder(), lmdb.id());
        let carry = Carry::begin(&lmdb, damage, through.is_none())?;
        if through.is_none() && carry.is_none() {
            // What has its place on the disk can be written over when the disk is full.
            let _ = file.write(0);
        }
        let through = through.unwrap_or(0);
        let count = lmdb.count_through(through)?;
        let store = OpenStore {
            name: StoreName::new(&lmdb.id()),
            lmdb,
            delivered: file,
            carry,
            is_trusted: false,
        };
        Ok((store, Delivered { through, count }))
    }

    /// True while a damaged store is scanned: nothing of it may be read or deleted yet.
    pub(super) fn is_scanning(&self) -> bool {
        self.carry.as_ref().is_some_and(Carry::is_scanning)
    }

    /// When the damaged store was written last, in unix nanoseconds; 0 where there is none.
    pub(super) fn written_at(&self) -> u64 {
        self.carry.as_ref().map_or(0, Carry::written_at)
    }

    /// Makes sure that the data file has a name yet. Of one that was removed, what it
    /// holds is sent while the agent lives; but what is written to it is gone with the
    /// agent.
    ///
    /// # Errors
    /// [`Error::DiskFailed`].
    pub(super) fn check_not_removed(&self) -> Result<()> {
        if !self.lmdb.is_removed() {
            return Ok(());
        }
        Err(Error::DiskFailed(format!(
            "the store {} was removed under the agent, which takes no more records until \
             it has sent what was left",
            self.lmdb.folder().display()
        )))
    }

    /// Opens the store anew: no other process had it meanwhile.
    ///
    /// # Errors
    /// Those of [`Lmdb::open`].
    pub(super) fn reopen(self) -> Result<OpenStore> {
        let OpenStore { lmdb, carry, .. } = self;
        let (folder, id) = (lmdb.folder().to_owned(), lmdb.id());
        // One process cannot have it open twice.
        let data = lmdb.close();
        let lmdb = Lmdb::open(&folder, Some(data), Some(id))?;
        let (mut store, _) = OpenStore::new(lmdb, None)?;
        store.carry = carry;
        Ok(store)
    }

    /// After a commit, from which on the store is trusted while the process lives.
    pub(super) fn is_committed(&mut self) {
        if !self.is_trusted {
            trust::trust_while_alive(self.lmdb.folder());
            self.is_trusted = true;
        }
    }

    /// Keeps for a successor that all up to `key` is delivered; false where that fails.
    pub(super) fn save_delivered(&mut self, key: u64) -> bool {
        self.delivered.write(key).is_ok()
    }

    /// Reads a batch of what comes after `after`.
    ///
    /// # Errors
    /// Those of [`Lmdb::read_after`].
    pub(super) fn read(&self, after: u64) -> Result<Vec<Record>> {
        let batch = self.lmdb.read_after(after)?;
        self.lmdb.return_pages();
        let records = batch.into_iter().map(|(key, value)| {
            let content = record::decode(key, value.clone()).ok_or(value);
            Record {
                key,
                idempotency_key: self.name.idempotency_key(key, content.as_ref().ok()),
                content,
            }
        });
        Ok(records.collect())
    }

    /// Sizes and ages.
    ///
    /// # Errors
    /// [`Error::DiskFailed`], [`Error::Damaged`].
    pub(super) fn details(&self) -> Result<Details> {
        Ok(Details {
            bytes: self.lmdb.bytes()?,
            oldest: self.lmdb.key_bounds()?.map(|(first, _)| first),
        })
    }
}
