//! What is read of an open store, each time in a transaction of its own.

use std::ops::Bound;

use bytes::Bytes;

use super::Lmdb;
use crate::error::Result;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, FREE_LIST_PAGES_MIN, FREE_LIST_SHARE, MAPPED_RECORDS_MAX,
};
use crate::store::failure::failed;

impl Lmdb {
    /// Copies out the records after `key`, in order: a batch, at least one if
    /// there is one.
    ///
    /// It goes from record to record, as [`Lmdb::delete_through`] does, and never
    /// by what a branch page says of a key that is not there: a wrong branch page
    /// could lead past records, which would then be deleted unread.
    ///
    /// # Errors
    /// [`DiskFailed`](crate::error::Error::DiskFailed).
    pub fn read_after(&self, key: u64) -> Result<Vec<(u64, Bytes)>> {
        let txn = self.env.read_txn().map_err(failed)?;
        // What was deleted was so from the first record on.
        let (start, skipped) = match self.records.get(&txn, &key).map_err(failed)? {
            Some(_) => (Bound::Excluded(key), None),
            None => (Bound::Unbounded, Some(key)),
        };
        let mut batch = Vec::new();
        let mut bytes = 0;
        let range = (start, Bound::Unbounded);
        for item in self.records.range(&txn, &range).map_err(failed)? {
            let (key, value) = item.map_err(failed)?;
            if skipped.is_some_and(|skipped| key <= skipped) {
                continue;
            }
            bytes += value.len();
            if !batch.is_empty() && bytes > BATCH_BYTES_MAX {
                break;
            }
            batch.push((key, Bytes::copy_from_slice(value)));
            if batch.len() == BATCH_RECORDS_MAX {
                break;
            }
            if batch.len().is_multiple_of(MAPPED_RECORDS_MAX) {
                self.return_pages();
            }
        }
        Ok(batch)
    }

    /// Records up to and with `key`.
    ///
    /// # Errors
    /// [`DiskFailed`](crate::error::Error::DiskFailed).
    pub fn count_through(&self, key: u64) -> Result<u64> {
        let txn = self.env.read_txn().map_err(failed)?;
        let range = self.records.range(&txn, &(..=key)).map_err(failed)?;
        let mut count = 0;
        for item in range {
            item.map_err(failed)?;
            count += 1;
            // Many, where a disk had no room for deletes.
            if count % MAPPED_RECORDS_MAX as u64 == 0 {
                self.return_pages();
            }
        }
        Ok(count)
    }

    /// The key of record number `count`, from 1 on, or `key` where that comes first.
    ///
    /// # Errors
    /// [`DiskFailed`](crate::error::Error::DiskFailed).
    pub fn key_of_first(&self, count: usize, key: u64) -> Result<u64> {
        let txn = self.env.read_txn().map_err(failed)?;
        let range = self.records.range(&txn, &(..=key)).map_err(failed)?;
        for (number, item) in (1..).zip(range) {
            let (found, _) = item.map_err(failed)?;
            if number == count {
                return Ok(found);
            }
            if number.is_multiple_of(MAPPED_RECORDS_MAX) {
                self.return_pages();
            }
        }
        Ok(key)
    }

    /// Records in the store.
    ///
    /// # Errors
    /// [`DiskFailed`](crate::error::Error::DiskFailed).
    pub fn count(&self) -> Result<u64> {
        let txn = self.env.read_txn().map_err(failed)?;
        self.records.len(&txn).map_err(failed)
    }

    /// Bytes of the pages that hold records.
    ///
    /// # Errors
    /// [`DiskFailed`](crate::error::Error::DiskFailed).
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.pages()? * self.page_size)
    }

    /// Bytes of the file's pages that are free for records, rather too few than
    /// too many: what LMDB's list of them takes is not told, but allowed for.
    ///
    /// # Errors
    /// [`DiskFailed`](crate::error::Error::DiskFailed).
    pub fn free_bytes(&self) -> Result<u64> {
        let free = (self.env.info().last_page_number as u64).saturating_sub(self.pages()?);
        let list = FREE_LIST_PAGES_MIN + free / FREE_LIST_SHARE;
        Ok(free.saturating_sub(list) * self.page_size)
    }

    /// Pages that hold records.
    fn pages(&self) -> Result<u64> {
        let txn = self.env.read_txn().map_err(failed)?;
        let stat = self.records.stat(&txn).map_err(failed)?;
        let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
        Ok(pages as u64)
    }

    /// The first and the last key, `None` for an empty store.
    ///
    /// # Errors
    /// [`DiskFailed`](crate::error::Error::DiskFailed).
    pub fn key_bounds(&self) -> Result<Option<(u64, u64)>> {
        let txn = self.env.read_txn().map_err(failed)?;
        let first = self.records.first(&txn).map_err(failed)?;
        let last = self.records.last(&txn).map_err(failed)?;
        Ok(first.zip(last).map(|((first, _), (last, _))| (first, last)))
    }
}
