//! The store itself: LMDB through heed (spec 4), in its durable mode. Every
//! call begins and ends its own transaction.

mod map;
mod read;
mod trees;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use heed::types::{Bytes as RawBytes, Str};
use heed::{CommitOrAbort, Database, Env, MdbError, RoTxn, RwTxn, WithoutTls};

use crate::error::{Error, Result};
use crate::folder::sync_folder;
use crate::limits::{DELETE_ROOM, MAP_START, STORE_FORMAT};
use crate::random;
use crate::store::failure::{Failure, failed};
pub(super) use crate::store::files::DATA_FILE;
use crate::store::record::{ARRIVALS, FORMAT_KEY, META, RECORDS, STORE_ID_KEY, StoreId};
use crate::store::{files, space};
use trees::Records;
pub use trees::Trees;

/// An open store.
pub struct Lmdb {
    env: Env<WithoutTls>,
    /// `None` until the first record's transaction has made them.
    trees: Option<Trees<'static>>,
    folder: PathBuf,
    /// The data file, for its lock, its length and its own flushes.
    data: File,
    /// Bytes.
    page_size: usize,
    map_size: usize,
    /// Where the map began when last it was looked at; 0 before.
    map_base: AtomicUsize,
    id: StoreId,
    /// Otherwise it goes along with the first record.
    id_is_stored: bool,
    stuck: bool,
}

impl Lmdb {
    /// Opens the store in `folder`, creating both when missing, with its `data` file where
    /// that is locked already. A store that is empty gets a new id, so that no
    /// Idempotency-Key is ever used twice; or that of the damaged store whose records it is
    /// to take, `keeps`. Opening a store that exists writes nothing: the disk may be full.
    ///
    /// # Errors
    /// [`Error::Damaged`]; [`Error::CannotCreate`], or [`Error::Full`] where a new store
    /// finds no room.
    pub fn open(folder: &Path, data: Option<File>, keeps: Option<StoreId>) -> Result<Lmdb> {
        files::create_folder(folder)?;
        let length = fs::metadata(folder.join(DATA_FILE)).map_or(0, |file| file.len());
        let map_size = usize::try_from(length.saturating_mul(2)).unwrap_or(usize::MAX);
        let (env, map_size) = map::open(folder, map_size.max(MAP_START))?;
        let data = match data {
            Some(data) => data,
            None => files::open_data(folder)
                .ok()
                .filter(files::try_lock)
                .ok_or_else(|| locked_elsewhere(folder))?,
        };
        let page_size = env.unnamed_database_stat().page_size as usize;
        let mut store = Lmdb {
            trees: open_trees(&env)?,
            env,
            folder: folder.to_owned(),
            data,
            page_size,
            map_size,
            map_base: AtomicUsize::new(0),
            id: StoreId::default(),
            id_is_stored: false,
            stuck: false,
        };
        store.identify(keeps)?;
        store.sync_names()?;
        Ok(store)
    }

    /// LMDB flushes its file, but not the names that lead to it. Also for a store
    /// that was there already: the agent that made it may have been killed before this.
    fn sync_names(&self) -> Result<()> {
        let base = self.folder.join("..");
        // The base folder's own name, where it may be ours. It is not ours where
        // this is forbidden.
        let _ = sync_folder(&base.join(".."));
        sync_folder(&self.folder)
            .and_then(|()| sync_folder(&base))
            .map_err(|error| Error::DiskFailed(format!("store folder: {error}")))
    }

    fn identify(&mut self, keeps: Option<StoreId>) -> Result<()> {
        let empty = self.count()? == 0;
        let txn = self.env.read_txn().map_err(failed)?;
        let stored = match &self.trees {
            Some(trees) => Some(identity(trees, &txn)?),
            None => None,
        };
        drop(txn);
        match stored {
            Some(id) if !empty => {
                self.id = id;
                self.id_is_stored = true;
            }
            _ => match keeps {
                Some(id) => self.id = id,
                None => self.id = random::id(),
            },
        }
        Ok(())
    }

    /// Runs `change`, which adds so many `bytes` of records, in one durable
    /// transaction; once this returns, it is on disk. Grows the map as far as
    /// needed, so `change` may run several times.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was changed. [`Error::Damaged`], [`Error::DiskFailed`]:
    /// the store must not be used any more.
    pub fn write(
        &mut self,
        bytes: u64,
        change: &mut dyn FnMut(&Lmdb, &Trees<'_>, &mut RwTxn<'_>) -> heed::Result<()>,
    ) -> Result<()> {
        loop {
            let error = match self.try_write(change) {
                Ok(created) => {
                    self.trees = self.trees.or(created);
                    self.id_is_stored = true;
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

    /// The disk's failure, or a short write of a full one? The data file's own flush
    /// tells of the first. Else it is full where a commit that adds so many bytes of
    /// records might not have had room.
    fn judge(&self, error: &io::Error, bytes: u64) -> Error {
        if let Err(error) = self.data.sync_data()
            && !space::is_full(&error)
        {
            return Error::DiskFailed(format!("store: {error}"));
        }
        let length = self.data.metadata().map_or(0, |data| data.len());
        let room = bytes.saturating_mul(2).saturating_add(DELETE_ROOM);
        match space::try_room(&self.folder, length, room) {
            Err(full) if space::is_full(&full) => Error::Full(format!("disk full: {full}")),
            _ => Error::DiskFailed(format!("store: {error}")),
        }
    }

    /// The databases, where this has made them.
    fn try_write(
        &self,
        change: &mut dyn FnMut(&Lmdb, &Trees<'_>, &mut RwTxn<'_>) -> heed::Result<()>,
    ) -> std::result::Result<Option<Trees<'static>>, Failure> {
        let mut txn = self.env.write_txn()?;
        let created = if let Some(trees) = &self.trees {
            if !self.id_is_stored {
                trees.put_identity(&mut txn, &self.id)?;
            }
            change(self, trees, &mut txn)?;
            txn.commit()?;
            None
        } else {
            let created = self
                .env
                .create_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
                    let trees = Trees::create(opener, txn)?;
                    trees.put_identity(txn, &self.id)?;
                    change(self, &trees, txn)?;
                    let Trees {
                        records,
                        arrivals,
                        meta,
                    } = trees;
                    Ok(CommitOrAbort::<_, ()>::Commit((records, arrivals, meta)))
                })?
                .commit();
            created.map(|(records, arrivals, meta)| Trees {
                records,
                arrivals,
                meta,
            })
        };
        #[cfg(target_vendor = "apple")]
        // The meta page is written with O_DSYNC, which there ends in the drive's
        // cache; forcing a sync is F_FULLFSYNC.
        self.env.force_sync()?;
        Ok(created)
    }

    /// True after a meta page found no room: LMDB then takes no transaction any
    /// more. What was committed before is there once the store is opened anew.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Closes the environment, and leaves the data file, whole as far as its pages are in
    /// use: LMDB does not write one that a transaction both took and freed.
    #[must_use]
    pub fn close(self) -> File {
        if self
            .data
            .metadata()
            .is_ok_and(|data| data.len() < self.used())
        {
            let _ = self.data.set_len(self.used());
        }
        drop(self.env);
        self.data
    }

    /// The store's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// The store's name.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.id
    }
}

/// The databases of a store that has a record, or had one.
fn open_trees(env: &Env<WithoutTls>) -> Result<Option<Trees<'static>>> {
    let txn = env.read_txn().map_err(failed)?;
    let opened = env
        .open_databases_and_commit(txn, |opener, txn| -> heed::Result<_> {
            let records: Option<Records<'_>> = opener.open_database(txn, Some(RECORDS))?;
            let arrivals: Option<Records<'_>> = opener.open_database(txn, Some(ARRIVALS))?;
            let meta: Option<Database<'_, Str, RawBytes>> =
                opener.open_database(txn, Some(META))?;
            Ok(CommitOrAbort::<_, ()>::Commit((records, arrivals, meta)))
        })
        .map_err(failed)?
        .commit();
    match opened {
        Some((Some(records), arrivals, Some(meta))) => Ok(Some(Trees {
            records,
            arrivals,
            meta,
        })),
        Some((None, None, None)) if env.unnamed_database_stat().entries == 0 => Ok(None),
        _ => Err(Error::Damaged("the databases are not there".into())),
    }
}

/// The id of a store of this format.
fn identity(trees: &Trees<'_>, txn: &RoTxn<'_, WithoutTls>) -> Result<StoreId> {
    let format = trees.meta.get(txn, FORMAT_KEY).map_err(failed)?;
    if format != Some(&STORE_FORMAT.to_le_bytes()) {
        return Err(Error::Damaged(format!(
            "the format is {format:?}, not {STORE_FORMAT}"
        )));
    }
    let id = trees.meta.get(txn, STORE_ID_KEY).map_err(failed)?;
    id.and_then(|id| StoreId::try_from(id).ok())
        .ok_or_else(|| Error::Damaged("the store's id is not there".into()))
}

/// Another host's agent, on a shared file system.
pub(super) fn locked_elsewhere(folder: &Path) -> Error {
    Error::CannotCreate(format!(
        "store {}: another process, on another host perhaps, has the data file open",
        folder.display()
    ))
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
