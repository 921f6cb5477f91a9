//! The store itself: LMDB through heed (spec 4), in its durable mode. Every
//! call begins and ends its own transaction.

mod read;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use heed::byteorder::BE;
use heed::types::{Bytes as RawBytes, Str, U64};
use heed::{CommitOrAbort, Database, Env, MdbError, PutFlags, RwTxn, WithoutTls};

use crate::error::{Error, Result};
use crate::folder::sync_folder;
use crate::limits::{
    ADDRESS_SPACE_LEFT, COMMIT_OVERHEAD, DELETE_ROOM, MAP_MIN, MAP_RESERVE, MAP_START,
    MAPPED_RECORDS_MAX, STORE_FORMAT,
};
use crate::proto::store::StoredRecord;
use crate::store::check::{FORMAT_KEY, META_DB, RECORDS_DB, STORE_ID_KEY};
use crate::store::failure::{Failure, failed};
use crate::store::growth::Growth;
use crate::store::space::Space;
use crate::store::{env, pages, record, space};

/// LMDB's data file in the store's folder.
pub(super) const DATA_FILE: &str = "data.mdb";

/// A random name for one store's life: the first half of an Idempotency-Key.
pub type StoreId = [u8; 16];

/// An open store.
pub struct Lmdb {
    env: Env<WithoutTls>,
    records: Database<'static, U64<BE>, RawBytes>,
    meta: Database<'static, Str, RawBytes>,
    folder: PathBuf,
    growth: Option<Growth>,
    /// Bytes.
    page_size: u64,
    map_size: usize,
    /// An id that is not stored yet: it goes along with the first record.
    new_id: Option<StoreId>,
    stuck: bool,
}

impl Lmdb {
    /// Opens the store in `folder`, creating both when missing. A store that is
    /// empty gets a new id, so that no Idempotency-Key is ever used twice. Opening
    /// a store that exists writes nothing: the disk may be full.
    ///
    /// # Errors
    /// [`Error::CannotCreate`], or [`Error::Full`] where a new store finds no
    /// room.
    pub fn open(folder: &Path) -> Result<(Lmdb, StoreId)> {
        env::create_folder(folder)?;
        let length = fs::metadata(folder.join(DATA_FILE)).map_or(0, |file| file.len());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (env, map_size) = env::open(folder, MAP_START.max(length.saturating_mul(2)))?;
        let txn = env.write_txn().map_err(failed)?;
        let (records, meta) = env
            .create_databases_and_commit(txn, |opener, txn| {
                let records = opener.create_database(txn, Some(RECORDS_DB))?;
                let meta = opener.create_database(txn, Some(META_DB))?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((records, meta)))
            })
            .map_err(failed)?
            .commit()
            .ok_or_else(|| Error::DiskFailed("store: databases were not created".into()))?;
        let txn = env.read_txn().map_err(failed)?;
        let page_size = u64::from(records.stat(&txn).map_err(failed)?.page_size);
        drop(txn);
        let mut store = Lmdb {
            env,
            records,
            meta,
            folder: folder.to_owned(),
            growth: Growth::open(&folder.join(DATA_FILE)).ok(),
            page_size,
            map_size,
            new_id: None,
            stuck: false,
        };
        let id = store.identify()?;
        store.sync_names()?;
        Ok((store, id))
    }

    /// LMDB flushes its file, but not the names that lead to it. Also for a store
    /// that was there already: who made it may have been killed before this.
    fn sync_names(&self) -> Result<()> {
        let base = self.folder.join("..");
        // The base folder's own name, where it may be ours. It is not ours where
        // this is forbidden.
        let _ = sync_folder(&base.join(".."));
        sync_folder(&self.folder)
            .and_then(|()| sync_folder(&base))
            .map_err(|error| Error::DiskFailed(format!("store folder: {error}")))
    }

    fn identify(&mut self) -> Result<StoreId> {
        let txn = self.env.read_txn().map_err(failed)?;
        let old = self.meta.get(&txn, STORE_ID_KEY).map_err(failed)?;
        if let Some(old) = old.and_then(|id| StoreId::try_from(id).ok())
            && self.records.len(&txn).map_err(failed)? > 0
        {
            return Ok(old);
        }
        drop(txn);
        let mut id = StoreId::default();
        getrandom::fill(&mut id).map_err(|e| Error::CannotCreate(format!("store id: {e}")))?;
        self.new_id = Some(id);
        Ok(id)
    }

    /// Runs `change`, which adds so many `bytes` of records, in one durable
    /// transaction; once this returns, it is on disk. Grows the map as far as
    /// needed, so `change` may run several times.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was changed. [`Error::DiskFailed`]: the store
    /// must not be used any more.
    pub fn write(
        &mut self,
        bytes: u64,
        mut change: impl FnMut(&Lmdb, &mut RwTxn) -> std::result::Result<(), heed::Error>,
    ) -> Result<()> {
        loop {
            let error = match self.try_write(&mut change) {
                Ok(()) => {
                    self.new_id = None;
                    return Ok(());
                }
                Err(Failure::MapFull) => {
                    self.grow()?;
                    continue;
                }
                Err(Failure::InputOutput(error)) => self.judge(&error, bytes),
                Err(Failure::Error(error)) => error,
            };
            self.stuck = matches!(self.env.read_txn(), Err(heed::Error::Mdb(MdbError::Panic)));
            return Err(error);
        }
    }

    /// A short write of a full disk, or the disk's failure? It is full where a
    /// commit that adds so many bytes of records might not have had room.
    fn judge(&self, error: &io::Error, bytes: u64) -> Error {
        let length = fs::metadata(self.folder.join(DATA_FILE)).map_or(0, |file| file.len());
        let room = bytes.saturating_mul(2).saturating_add(DELETE_ROOM);
        match space::try_room(&self.folder, length, room) {
            Err(full) if space::is_full(&full) => Error::Full(format!("disk full: {full}")),
            _ => Error::DiskFailed(format!("store: {error}")),
        }
    }

    fn try_write(
        &self,
        change: &mut impl FnMut(&Lmdb, &mut RwTxn) -> std::result::Result<(), heed::Error>,
    ) -> std::result::Result<(), Failure> {
        let mut txn = self.env.write_txn()?;
        if let Some(id) = &self.new_id {
            let format = STORE_FORMAT.to_le_bytes();
            self.meta.put(&mut txn, FORMAT_KEY, &format)?;
            self.meta.put(&mut txn, STORE_ID_KEY, id)?;
        }
        change(self, &mut txn)?;
        txn.commit()?;
        #[cfg(target_vendor = "apple")]
        // The meta page is written with O_DSYNC, which there ends in the drive's
        // cache; forcing a sync is F_FULLFSYNC.
        self.env.force_sync()?;
        Ok(())
    }

    /// Appends a record in a transaction of [`Lmdb::write`].
    ///
    /// # Errors
    /// LMDB's.
    pub fn append(
        &self,
        txn: &mut RwTxn,
        key: u64,
        record: &StoredRecord,
    ) -> std::result::Result<(), heed::Error> {
        let length = record::encoded_len(record);
        self.append_with(txn, key, length, |space| record::encode(key, record, space))
    }

    /// Appends a value as it is, in a transaction of [`Lmdb::write`].
    ///
    /// # Errors
    /// LMDB's.
    pub fn append_raw(
        &self,
        txn: &mut RwTxn,
        key: u64,
        value: &[u8],
    ) -> std::result::Result<(), heed::Error> {
        self.append_with(txn, key, value.len(), |space| space.copy_from_slice(value))
    }

    fn append_with(
        &self,
        txn: &mut RwTxn,
        key: u64,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> std::result::Result<(), heed::Error> {
        let append = PutFlags::APPEND;
        self.records
            .get_or_put_reserved_with_flags(txn, append, &key, length, |space| {
                space.fill_zeroes();
                fill(space.written_mut());
                Ok(())
            })
            .map(drop)
    }

    /// Deletes every record up to and with `key`, in a transaction of
    /// [`Lmdb::write`]; in parts, so that few pages are mapped at a time.
    ///
    /// # Errors
    /// LMDB's.
    pub fn delete_through(
        &self,
        txn: &mut RwTxn,
        key: u64,
    ) -> std::result::Result<(), heed::Error> {
        loop {
            self.return_pages();
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

    /// True after a meta page found no room: LMDB then takes no transaction any
    /// more. What was committed before is there once the store is opened anew.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Gives the mapped pages back to the kernel; they come back from the page
    /// cache when they are needed.
    pub fn return_pages(&self) {
        let last_page = self.env.info().last_page_number;
        if let Ok(txn) = self.env.read_txn()
            && let Ok(Some(value)) = self.meta.get(&txn, FORMAT_KEY)
        {
            pages::return_pages(value, last_page, self.page_size as usize);
        }
    }

    /// Closes the environment, and leaves a descriptor of the data file where there is
    /// one beside LMDB's.
    #[must_use]
    pub fn close(self) -> Option<File> {
        drop(self.env);
        self.growth.map(Growth::into_file)
    }

    /// The store's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Grows the map where it has no room for so many bytes of records, of which
    /// LMDB may need twice as many, and for the deletes that make room again.
    ///
    /// # Errors
    /// [`Error::Full`] where the address space has no more.
    pub fn make_room(&mut self, bytes: u64) -> Result<()> {
        let left = (self.map_size as u64).saturating_sub(self.used()) + self.free_bytes()?;
        match left >= bytes.saturating_mul(2).saturating_add(MAP_RESERVE) {
            true => Ok(()),
            false => self.grow(),
        }
    }

    /// Lengthens the file, on a disk with `space`, ahead of a commit of so many
    /// bytes of records.
    pub fn lengthen(&self, bytes: u64, space: Space) {
        let wanted = bytes.saturating_mul(2).saturating_add(COMMIT_OVERHEAD);
        if let Some(growth) = &self.growth {
            // LMDB lengthens the file itself where this fails.
            let _ = growth.keep_ahead(self.used(), wanted, space);
        }
    }

    /// True once the data file has no name any more.
    pub fn is_removed(&self) -> bool {
        self.growth.as_ref().is_some_and(Growth::is_removed)
    }

    /// Bytes of the file up to the end of its last page in use.
    fn used(&self) -> u64 {
        (self.env.info().last_page_number as u64 + 1) * self.page_size
    }

    /// Doubles the map, or takes what the address space still has.
    fn grow(&mut self) -> Result<()> {
        let mut more = self.map_size;
        while !pages::has_address_space(more.saturating_add(ADDRESS_SPACE_LEFT)) {
            if more <= MAP_MIN {
                return Err(Error::Full(format!(
                    "store full: no address space beyond the {} bytes that are mapped",
                    self.map_size
                )));
            }
            more = (more / 2).next_multiple_of(MAP_MIN);
        }
        let size = self.map_size.saturating_add(more);
        // SAFETY: every transaction of this environment begins and ends within
        // one call of this type, and none is open here.
        unsafe { self.env.resize(size) }
            .map_err(|error| Error::DiskFailed(format!("store map: {error}")))?;
        self.map_size = size;
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// KiB of files of that name that this process has mapped in (proc_pid_smaps(5)).
    fn mapped_kib(path: &Path) -> u64 {
        let path = fs::canonicalize(path).unwrap();
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines();
        let mut kib = 0;
        while let Some(line) = lines.next() {
            if line.ends_with(path.to_str().unwrap()) {
                let rss = lines.find_map(|line| line.strip_prefix("Rss:"));
                let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB"));
                kib += rss.unwrap().parse::<u64>().unwrap();
            }
        }
        kib
    }

    #[test]
    fn few_pages_are_mapped_while_many_records_are_deleted_or_counted() {
        const RECORDS: u64 = 5_000;
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = Lmdb::open(&folder.path().join("lmdb")).unwrap();
        let value = [0; 300];
        store
            .write(RECORDS * 300, |store, txn| {
                (1..=RECORDS).try_for_each(|key| store.append_raw(txn, key, &value))
            })
            .unwrap();
        let data = store.folder().join(DATA_FILE);
        let few = |what: &str| {
            let kib = mapped_kib(&data);
            assert!(kib < 512, "{kib} KiB after {what}");
        };
        store.return_pages();
        assert_eq!(store.key_of_first(4_000, RECORDS).unwrap(), 4_000);
        few("key_of_first");
        assert_eq!(store.count_through(4_000).unwrap(), 4_000);
        few("count_through");
        store
            .write(0, |store, txn| {
                store.delete_through(txn, 4_000)?;
                few("delete_through");
                Ok(())
            })
            .unwrap();
        assert_eq!(store.count().unwrap(), RECORDS - 4_000);
        store.read_after(0).unwrap();
        few("read_after");
    }
}
