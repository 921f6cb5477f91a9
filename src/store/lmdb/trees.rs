//! The store's databases within a write transaction.

use std::borrow::Cow;

use bytes::Bytes;
use heed::byteorder::BE;
use heed::types::{Bytes as RawBytes, Str, U64};
use heed::{Database, DatabaseOpener, MdbError, PutFlags, RwTxn, WithoutTls};

use super::Lmdb;
use crate::limits::{MAPPED_RECORDS_MAX, STORE_FORMAT};
use crate::store::record::{
    self, ARRIVALS, FORMAT_KEY, META, RECORDS, STORE_ID_KEY, StoreId, StoreName,
};

/// Records by key.
pub(super) type Records<'t> = Database<'t, U64<BE>, RawBytes>;

/// The databases.
#[derive(Clone, Copy)]
pub struct Trees<'t> {
    pub(super) records: Records<'t>,
    pub(super) arrivals: Option<Records<'t>>,
    pub(super) meta: Database<'t, Str, RawBytes>,
}

impl<'t> Trees<'t> {
    /// Makes the databases, in the transaction that commits the first record.
    pub(super) fn create(
        opener: &DatabaseOpener<'t, WithoutTls>,
        txn: &mut RwTxn<'t>,
    ) -> heed::Result<Trees<'t>> {
        Ok(Trees {
            records: opener.create_database(txn, Some(RECORDS))?,
            arrivals: Some(opener.create_database(txn, Some(ARRIVALS))?),
            meta: opener.create_database(txn, Some(META))?,
        })
    }

    /// Says what format and whose this store is.
    pub(super) fn put_identity(&self, txn: &mut RwTxn<'_>, id: &StoreId) -> heed::Result<()> {
        self.meta
            .put(txn, FORMAT_KEY, &STORE_FORMAT.to_le_bytes())?;
        self.meta.put(txn, STORE_ID_KEY, id)
    }

    /// Appends a value behind all others; behind those of a damaged store that are still
    /// carried over where the record `waits` for them.
    ///
    /// # Errors
    /// LMDB's: for a key that is not larger than the last, KEYEXIST.
    pub fn append(
        &self,
        txn: &mut RwTxn<'_>,
        waits: bool,
        key: u64,
        value: &[u8],
    ) -> heed::Result<()> {
        let into = self.arrivals.filter(|_| waits).unwrap_or(self.records);
        into.put_with_flags(txn, PutFlags::APPEND, &key, value)
    }

    /// Puts a value of a damaged store in its place. A key that is there with the same
    /// bytes is dropped, one with others gets the next free key.
    ///
    /// # Errors
    /// LMDB's.
    pub fn put_carried(
        &self,
        txn: &mut RwTxn<'_>,
        own: u64,
        value: &[u8],
        name: &StoreName,
    ) -> heed::Result<()> {
        let mut key = own;
        let mut candidate = Cow::Borrowed(value);
        loop {
            if self.records.last(txn)?.is_none_or(|(last, _)| last < key) {
                // Pages are full so, as they were: a copy has no more of them.
                return (self.records).put_with_flags(txn, PutFlags::APPEND, &key, &candidate);
            }
            match self.records.get_or_put(txn, &key, &candidate)? {
                Some(there) if there != &*candidate => {}
                _ => return Ok(()),
            }
            key = key.checked_add(1).ok_or(MdbError::KeyExist)?;
            match record::rekeyed(key, own, value, name) {
                Some(rekeyed) => candidate = rekeyed.into(),
                // It has a right checksum and is no record: the agent never wrote it.
                None => return Ok(()),
            }
        }
    }

    /// Appends a batch of what has arrived to what was carried over, above the key `floor`,
    /// and takes it away there. A key becomes another one where the clock was behind: none
    /// of them was ever sent.
    ///
    /// # Errors
    /// LMDB's.
    pub fn move_arrivals(
        &self,
        txn: &mut RwTxn<'_>,
        batch: &[(u64, Bytes)],
        floor: u64,
    ) -> heed::Result<()> {
        let last = self.records.last(txn)?.map_or(0, |(last, _)| last);
        let mut last = last.max(floor);
        let Some(arrivals) = self.arrivals else {
            return Ok(());
        };
        for (own, value) in batch {
            let key = (*own).max(last.saturating_add(1));
            let moved = (key != *own).then(|| record::decode(*own, value.clone()));
            let moved = moved.flatten().map(|record| record::encoded(key, &record));
            let value = moved.as_deref().unwrap_or(value);
            self.records
                .put_with_flags(txn, PutFlags::APPEND, &key, value)?;
            arrivals.delete(txn, own)?;
            last = key;
        }
        Ok(())
    }

    /// Deletes every record up to and with `key`; in parts, so that few pages are mapped
    /// at a time.
    ///
    /// # Errors
    /// LMDB's.
    pub fn delete_through(&self, lmdb: &Lmdb, txn: &mut RwTxn<'_>, key: u64) -> heed::Result<()> {
        loop {
            lmdb.return_pages();
            let last = self
                .records
                .range(txn, &(..=key))?
                .nth(MAPPED_RECORDS_MAX - 1);
            let part = last.transpose()?.map_or(key, |(part, _)| part);
            let deleted = self.records.delete_range(txn, &(..=part))?;
            // None only where keys are out of order: no part would ever be the last.
            if part == key || deleted == 0 {
                return Ok(());
            }
        }
    }
}
