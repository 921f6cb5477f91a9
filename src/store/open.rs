//! Opening the store (spec 4): checked first where that is called for, and
//! replaced by what can still be read where it is damaged.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::task::yield_now;

use crate::error::{Error, Result};
use crate::events::Events;
use crate::folder::{name_with_time, sync_folder};
use crate::limits::{CHECK_CLEAN_MAX, CHECK_PAGES_PER_TURN, GROUP_BYTES_MAX, GROUP_RECORDS_MAX};
use crate::store::check::{Check, Salvage, Step, Verdict};
use crate::store::env;
use crate::store::lmdb::{DATA_FILE, Lmdb, StoreId};
use crate::store::mark::options;
use crate::store::record::{self, StoreName};
use crate::store::space::{self, Space};

/// The store's folder in the base folder.
const STORE_NAME: &str = "lmdb";
/// Where a damaged store's records are carried to, until it takes its place.
const NEW_NAME: &str = "lmdb.new";
/// A damaged store, with the time it was set aside.
const DAMAGED_PREFIX: &str = "lmdb.damaged-";
/// A file in the store's folder that tells a clean end. It holds the length that
/// the data file had then, in decimal.
pub(super) const CLEAN_MARKER: &str = "clean";

/// True where an earlier agent may have left records.
#[must_use]
pub fn has_data(base: &Path) -> bool {
    let data = base.join(STORE_NAME).join(DATA_FILE);
    base.join(NEW_NAME).exists() || fs::metadata(data).is_ok_and(|file| file.len() > 0)
}

/// Opens the store of the base folder. Lets others run while it reads.
///
/// # Errors
/// [`Error::CannotCreate`], [`Error::Full`] or [`Error::DiskFailed`].
pub async fn open(base: &Path, events: &Events) -> Result<(Lmdb, StoreId)> {
    let folder = base.join(STORE_NAME);
    env::check_own(&folder)?;
    env::check_own(&base.join(NEW_NAME))?;
    finish_carrying(base).map_err(|error| failed(base, &error))?;
    let clean = take_marker(&folder);
    let length = fs::metadata(folder.join(DATA_FILE)).map_or(0, |file| file.len());
    if !clean {
        flush(&folder)?;
    }
    let limit = if clean {
        CHECK_CLEAN_MAX
    } else {
        Duration::MAX
    };
    if let Verdict::Damaged(reason) = check(&folder, limit).await? {
        replace(base, &reason, events).await?;
    }
    match Lmdb::open(&folder) {
        Err(error @ Error::CannotCreate(_)) if clean => {
            // The marker promised too much.
            let Verdict::Damaged(reason) = check(&folder, Duration::MAX).await? else {
                return Err(error);
            };
            replace(base, &reason, events).await?;
            Lmdb::open(&folder)
        }
        Err(error) if length == 0 => {
            // A store that found no room to begin with is no damaged store.
            let _ = fs::remove_file(folder.join(DATA_FILE));
            let _ = fs::remove_dir(&folder);
            Err(error)
        }
        opened => opened,
    }
}

/// Marks the closed store in `folder` as whole.
///
/// # Errors
/// Those of the file system; without the marker the next start checks the store.
pub fn mark_clean(folder: &Path) -> io::Result<()> {
    let length = fs::metadata(folder.join(DATA_FILE))?.len();
    let mut marker = fs::File::create(folder.join(CLEAN_MARKER))?;
    marker.write_all(length.to_string().as_bytes())?;
    marker.sync_all()?;
    sync_folder(folder)
}

/// True for a store that was closed in order and whose data file still has its
/// length: LMDB dies of a page beyond the end. The marker is gone before the
/// store is used again.
fn take_marker(folder: &Path) -> bool {
    let marker = folder.join(CLEAN_MARKER);
    let marked = options().read(true).open(&marker).ok();
    let marked = marked.and_then(|file| io::read_to_string(file).ok());
    let marked: Option<u64> = marked.and_then(|text| text.parse().ok());
    let length = fs::metadata(folder.join(DATA_FILE)).map(|file| file.len());
    fs::remove_file(marker).is_ok() && sync_folder(folder).is_ok() && marked == length.ok()
}

/// After a flush that failed, what a read shows is the page cache, not the disk
/// (spec 4). Whoever was killed then left it to the next agent to find out.
fn flush(folder: &Path) -> Result<()> {
    let data = options().read(true).open(folder.join(DATA_FILE));
    match data.and_then(|data| data.sync_data()) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Err(Error::DiskFailed(
            format!("store {}: {error}", folder.display()),
        )),
        // What else it is, the check tells.
        _ => Ok(()),
    }
}

/// Checks the store for so long; what has not been read by then counts as sound.
async fn check(folder: &Path, limit: Duration) -> Result<Verdict> {
    let Some(mut check) = Check::open(folder)? else {
        return Ok(Verdict::Sound);
    };
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(verdict) = check.step(CHECK_PAGES_PER_TURN) {
            return Ok(verdict);
        }
        yield_now().await;
    }
    Ok(Verdict::Sound)
}

/// Completes or undoes what a crash interrupted: the new store is complete as
/// soon as the damaged one has left its place.
fn finish_carrying(base: &Path) -> io::Result<()> {
    let (folder, new) = (base.join(STORE_NAME), base.join(NEW_NAME));
    if !new.exists() {
        return Ok(());
    }
    if !folder.exists() && new.join(CLEAN_MARKER).exists() {
        fs::rename(new, folder)?;
        return sync_folder(base);
    }
    fs::remove_dir_all(&new).or_else(|_| fs::remove_file(&new))
}

/// Sets the damaged store aside whole and puts one in its place that holds what
/// can still be read.
async fn replace(base: &Path, reason: &str, events: &Events) -> Result<()> {
    let (folder, new) = (base.join(STORE_NAME), base.join(NEW_NAME));
    let length = fs::metadata(folder.join(DATA_FILE)).map_or(0, |file| file.len());
    if let Ok(file) = fs::File::open(base)
        && let Some(space) = Space::of(&file)
    {
        // The new store is no larger than the old one.
        space.admit(length / 2, 0).map_err(|error| {
            Error::Full(format!(
                "the store is damaged ({reason}), and there is no room for a copy of its \
                 {length} bytes: {error}"
            ))
        })?;
    }
    let carried = match carry(&folder, &new).await {
        Ok(carried) => carried,
        Err(error) => {
            // It would only hold on to space.
            let _ = fs::remove_dir_all(&new);
            return Err(error);
        }
    };
    let aside = name_with_time(base, DAMAGED_PREFIX, SystemTime::now());
    let moved = mark_clean(&new)
        .and_then(|()| fs::rename(&folder, &aside))
        .and_then(|()| fs::rename(&new, &folder))
        .and_then(|()| sync_folder(base));
    moved.map_err(|error| failed(base, &error))?;
    take_marker(&folder);
    let aside = aside.to_string_lossy();
    let expected = carried.salvage.expected_records();
    events.emit(
        "store_corrupt",
        &[
            ("reason", reason.into()),
            ("saved", carried.records.into()),
            // Where the count cannot be read either, nobody knows.
            ("expected_known", expected.is_some().into()),
            ("expected", expected.unwrap_or(0).into()),
            (
                "unreadable_pages",
                carried.salvage.unreadable_pages().into(),
            ),
            (
                "unreadable_records",
                carried.salvage.unreadable_records().into(),
            ),
            ("may_repeat", (!carried.salvage.is_exact()).into()),
            ("set_aside", (&*aside).into()),
        ],
    );
    Ok(())
}

/// What was carried over.
struct Carried {
    salvage: Salvage,
    records: u64,
}

/// Copies what can be read of the store in `from` to a new one in `to`. Each
/// record keeps its place and the key the main server knows it by.
async fn carry(from: &Path, to: &Path) -> Result<Carried> {
    let mut salvage = Salvage::open(from)?;
    let (mut lmdb, _) = Lmdb::open(to)?;
    let mut records = 0;
    let mut done = false;
    while !done {
        let mut group = Vec::new();
        let mut bytes = 0;
        while group.len() < GROUP_RECORDS_MAX && bytes < GROUP_BYTES_MAX {
            match salvage.step() {
                Step::Record { key, value } => {
                    bytes += value.len();
                    group.push((key, Bytes::from(value)));
                }
                Step::Working => yield_now().await,
                Step::Done => {
                    done = true;
                    break;
                }
            }
        }
        let old_name = salvage.store_id().map(|id| StoreName::new(&id));
        lmdb.write(bytes as u64, |lmdb, txn| {
            group.iter().try_for_each(|(key, value)| {
                match (record::decode(*key, value.clone()), &old_name) {
                    (Some(mut record), Some(name)) => {
                        record.idempotency_key = name.idempotency_key(*key, Some(&record));
                        lmdb.append(txn, *key, &record)
                    }
                    // Replay sets aside what does not fit its checksum.
                    _ => lmdb.append_raw(txn, *key, value),
                }
            })
        })?;
        records += group.len() as u64;
        lmdb.return_pages();
        yield_now().await;
    }
    Ok(Carried { salvage, records })
}

fn failed(base: &Path, error: &io::Error) -> Error {
    let why = format!("store in {}: {error}", base.display());
    match space::is_full(error) {
        true => Error::Full(why),
        false => Error::CannotCreate(why),
    }
}
