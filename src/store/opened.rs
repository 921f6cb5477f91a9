//! An open store and what its writer knows of it.

use crate::error::{Error, Result};
use crate::store::lmdb::{Lmdb, StoreId};
use crate::store::mark::MarkFile;
use crate::store::record::StoreName;
use crate::store::{Details, Marks, Record, record};

pub(super) struct OpenStore {
    pub(super) lmdb: Lmdb,
    name: StoreName,
    mark: MarkFile,
}

impl OpenStore {
    /// Takes a store over, and tells what of it is done with but not deleted.
    ///
    /// # Errors
    /// [`Error::DiskFailed`].
    pub(super) fn new((lmdb, id): (Lmdb, StoreId)) -> Result<(OpenStore, Marks)> {
        let (mark, through) = MarkFile::open(lmdb.folder(), id);
        let marks = match through {
            None => Marks::default(),
            Some(through) => Marks {
                through,
                count: lmdb.count_through(through)?,
            },
        };
        let name = StoreName::new(&id);
        Ok((OpenStore { lmdb, name, mark }, marks))
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

    /// Opens the store anew. Nobody else had it meanwhile: it needs no check.
    ///
    /// # Errors
    /// Those of [`Lmdb::open`].
    pub(super) fn reopen(self) -> Result<OpenStore> {
        let folder = self.lmdb.folder().to_owned();
        // One process cannot have it open twice.
        drop(self);
        let (store, _) = OpenStore::new(Lmdb::open(&folder)?)?;
        Ok(store)
    }

    /// Keeps for a successor that all up to `key` is done with; false where that
    /// fails.
    pub(super) fn note(&mut self, key: u64) -> bool {
        self.mark.write(key).is_ok()
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
    /// [`Error::DiskFailed`].
    pub(super) fn details(&self) -> Result<Details> {
        Ok(Details {
            bytes: self.lmdb.bytes()?,
            oldest: self.lmdb.key_bounds()?.map(|(first, _)| first),
        })
    }
}
