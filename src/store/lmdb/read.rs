//! What is read of an open store, each time in a transaction of its own. What an earlier
//! agent left may have been garbled at rest: what LMDB says of it is looked at.

use std::ops::Bound;

use bytes::Bytes;
use heed::DatabaseStat;
use heed::types::Bytes as RawBytes;

use super::{Lmdb, Records};
use crate::error::{Error, Result};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, FREE_LIST_PAGES_MIN, FREE_LIST_SHARE, GROUP_RECORDS_MAX,
    MAPPED_RECORDS_MAX, STORED_VALUE_MAX,
};
use crate::store::failure::failed;
use crate::store::pages::{self, Place};
use crate::store::record::FORMAT_KEY;

impl Lmdb {
    /// Copies out the records after `key`, in order: a batch, at least one if
    /// there is one.
    ///
    /// It goes from record to record, as [`Trees::delete_through`](super::Trees) does, and
    /// never by what a branch page says of a key that is not there: a wrong branch page
    /// could lead past records, which would then be deleted unread.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn read_after(&self, key: u64) -> Result<Vec<(u64, Bytes)>> {
        let Some(trees) = &self.trees else {
            return Ok(Vec::new());
        };
        let txn = self.env.read_txn().map_err(failed)?;
        // What was deleted was so from the first record on.
        let is_there = trees.records.get(&txn, &key).map_err(failed)?.is_some();
        drop(txn);
        let from = if is_there { Some(key) } else { None };
        let mut batch = Vec::new();
        let mut bytes = 0;
        self.walk(
            trees.records,
            from,
            MAPPED_RECORDS_MAX,
            |found, value, _| {
                if found <= key {
                    return true;
                }
                bytes += value.len();
                let is_full = batch.len() == BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX;
                // The first one behind the batch was looked at, too: it is larger.
                if is_full && !batch.is_empty() {
                    return false;
                }
                batch.push((found, Bytes::copy_from_slice(value)));
                true
            },
        )?;
        Ok(batch)
    }

    /// What has arrived while a damaged store's records were carried over: the first
    /// records, of about so many bytes, as many as a commit takes.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn read_arrivals(&self, limit: usize) -> Result<Vec<(u64, Bytes)>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        if let Some(arrivals) = self.trees.and_then(|trees| trees.arrivals) {
            self.walk(arrivals, None, MAPPED_RECORDS_MAX, |key, value, _| {
                bytes += value.len();
                batch.push((key, Bytes::copy_from_slice(value)));
                batch.len() < GROUP_RECORDS_MAX && bytes < limit
            })?;
        }
        Ok(batch)
    }

    /// Whether a record is in the store under its key, or under one of those that follow it
    /// where they are taken one after the other (see
    /// [`Trees::put_carried`](super::Trees::put_carried)), as `is_it` tells.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn has(&self, key: u64, is_it: impl Fn(u64, &[u8]) -> bool) -> Result<bool> {
        let Some(trees) = &self.trees else {
            return Ok(false);
        };
        let txn = self.env.read_txn().map_err(failed)?;
        for key in key.. {
            match trees.records.get(&txn, &key).map_err(failed)? {
                None => return Ok(false),
                Some(there) if is_it(key, there) => return Ok(true),
                Some(_) => {}
            }
        }
        Ok(false)
    }

    /// Visits the records behind `after` one by one until `visit` is false, with the pages of
    /// so many mapped at a time.
    fn walk(
        &self,
        records: Records<'_>,
        after: Option<u64>,
        mapped: usize,
        mut visit: impl FnMut(u64, &[u8], Place) -> bool,
    ) -> Result<()> {
        let txn = self.env.read_txn().map_err(failed)?;
        let after = after.map(u64::to_be_bytes);
        let start = match &after {
            Some(key) => Bound::Excluded(&key[..]),
            None => Bound::Unbounded,
        };
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (start, Bound::Unbounded);
        let records = records.remap_key_type::<RawBytes>();
        let meta = self.trees.map(|trees| trees.meta.get(&txn, FORMAT_KEY));
        let meta = meta.transpose().map_err(failed)?.flatten();
        // SAFETY: the value was read in this transaction, which only reads.
        let map = meta.and_then(|value| unsafe { pages::base_of(value, self.page_size) });
        let mut last = None;
        for (number, item) in (1..).zip(records.range(&txn, &range).map_err(failed)?) {
            let (name, value) = item.map_err(failed)?;
            let key = <[u8; 8]>::try_from(name).map(u64::from_be_bytes).ok();
            // SAFETY: both were read in this transaction, which only reads.
            let place = unsafe { pages::place_of(name, value, self.page_size) };
            let place = place.filter(|place| {
                let rises = key.is_some_and(|key| last.is_none_or(|last| key > last));
                rises && value.len() <= STORED_VALUE_MAX && map == Some(place.base)
            });
            let Some((key, place)) = key.zip(place) else {
                let why = format!("a page of the records is not what it was, behind {last:?}");
                return Err(Error::Damaged(why));
            };
            if !visit(key, value, place) {
                break;
            }
            last = Some(key);
            // The kernel maps many around each.
            if number % mapped == 0 {
                self.return_pages();
            }
        }
        Ok(())
    }

    /// Reads every key: as many as the trees say, on pages that are `in_use`. Returns how
    /// many pages the trees have.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn check(&self, in_use: impl Fn(usize) -> bool) -> Result<usize> {
        let mut pages = tree_pages(&self.env.unnamed_database_stat());
        let Some(trees) = self.trees else {
            return Ok(pages);
        };
        let txn = self.env.read_txn().map_err(failed)?;
        pages += tree_pages(&trees.meta.stat(&txn).map_err(failed)?);
        for records in [Some(trees.records), trees.arrivals].into_iter().flatten() {
            let stat = records.stat(&txn).map_err(failed)?;
            let (mut count, mut all_in_use) = (0, true);
            let visit = |_, _: &[u8], place: Place| {
                let Place {
                    leaf, mut value, ..
                } = place;
                count += 1;
                all_in_use = in_use(leaf) && value.all(&in_use);
                all_in_use
            };
            // Of the child no memory is counted, and its pages come back one by one.
            self.walk(records, None, usize::MAX, visit)?;
            if !all_in_use || count != stat.entries {
                let why = format!("{count} records on pages of their own, of {}", stat.entries);
                return Err(Error::Damaged(why));
            }
            pages += tree_pages(&stat);
        }
        Ok(pages)
    }

    /// Records up to and with `key`.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn count_through(&self, key: u64) -> Result<u64> {
        let mut count = 0;
        if let Some(trees) = &self.trees {
            // Many, where a disk had no room for deletes.
            self.walk(trees.records, None, MAPPED_RECORDS_MAX, |found, _, _| {
                count += u64::from(found <= key);
                found < key
            })?;
        }
        Ok(count)
    }

    /// The key of record number `count`, from 1 on, or `key` where that comes first.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn key_of_first(&self, count: usize, key: u64) -> Result<u64> {
        let (mut number, mut last) = (0, key);
        if let Some(trees) = &self.trees {
            self.walk(trees.records, None, MAPPED_RECORDS_MAX, |found, _, _| {
                number += 1;
                last = found.min(key);
                number < count && found < key
            })?;
        }
        Ok(last)
    }

    /// Records in the store, those that wait behind a damaged one's among them.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn count(&self) -> Result<u64> {
        self.sum(|records, txn| records.len(txn))
    }

    /// Records that wait behind a damaged store's.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn count_arrivals(&self) -> Result<u64> {
        let Some(arrivals) = self.trees.and_then(|trees| trees.arrivals) else {
            return Ok(0);
        };
        let txn = self.env.read_txn().map_err(failed)?;
        arrivals.len(&txn).map_err(failed)
    }

    /// Whether a record that has arrived has a key below one that was carried over: until it
    /// is moved, how far the records are delivered says nothing of it.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn has_late_arrivals(&self) -> Result<bool> {
        let Some((records, arrivals)) = self
            .trees
            .and_then(|trees| Some((trees.records, trees.arrivals?)))
        else {
            return Ok(false);
        };
        let txn = self.env.read_txn().map_err(failed)?;
        let first = arrivals.first(&txn).map_err(failed)?;
        let last = records.last(&txn).map_err(failed)?;
        Ok(first
            .zip(last)
            .is_some_and(|((first, _), (last, _))| first <= last))
    }

    /// Bytes of the pages that hold records.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.pages()? * self.page_size as u64)
    }

    /// Bytes of the file's pages that are free for records, rather too few than
    /// too many: what LMDB's list of them takes is not told, but allowed for.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn free_bytes(&self) -> Result<u64> {
        let free = (self.env.info().last_page_number as u64).saturating_sub(self.pages()?);
        let list = FREE_LIST_PAGES_MIN + free / FREE_LIST_SHARE;
        Ok(free.saturating_sub(list) * self.page_size as u64)
    }

    /// Pages that hold records.
    fn pages(&self) -> Result<u64> {
        self.sum(|records, txn| Ok(tree_pages(&records.stat(txn)?) as u64))
    }

    fn sum(
        &self,
        figure: impl Fn(&Records<'_>, &heed::RoTxn<'_>) -> heed::Result<u64>,
    ) -> Result<u64> {
        let Some(trees) = &self.trees else {
            return Ok(0);
        };
        let txn = self.env.read_txn().map_err(failed)?;
        let mut sum = figure(&trees.records, &txn).map_err(failed)?;
        if let Some(arrivals) = &trees.arrivals {
            sum += figure(arrivals, &txn).map_err(failed)?;
        }
        Ok(sum)
    }

    /// The first and the last key, `None` for an empty store.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::DiskFailed`].
    pub fn key_bounds(&self) -> Result<Option<(u64, u64)>> {
        let Some(trees) = &self.trees else {
            return Ok(None);
        };
        let txn = self.env.read_txn().map_err(failed)?;
        let mut bounds: Option<(u64, u64)> = None;
        for records in [Some(trees.records), trees.arrivals].into_iter().flatten() {
            let first = records.first(&txn).map_err(failed)?;
            let last = records.last(&txn).map_err(failed)?;
            if let Some(((first, _), (last, _))) = first.zip(last) {
                let before = bounds.unwrap_or((first, last));
                bounds = Some((before.0.min(first), before.1.max(last)));
            }
        }
        Ok(bounds)
    }
}

fn tree_pages(stat: &DatabaseStat) -> usize {
    stat.branch_pages + stat.leaf_pages + stat.overflow_pages
}
