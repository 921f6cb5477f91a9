//! Carries the records of a damaged store over to a fresh one, which takes records
//! meanwhile (spec 4). What has arrived until then waits in a database of its own and is
//! appended at the end: the order is that of arrival, whatever the clock did.

use std::fs;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::events::Events;
use crate::folder::sync_folder;
use crate::limits::{
    ARRIVALS_MOVED, CARRY_BYTES_MIN, FULL_RETRY, GROUP_BYTES_MAX, GROUP_RECORDS_MAX,
};
use crate::store::files::{self, DAMAGED_PREFIX, SALVAGE_PREFIX};
use crate::store::lmdb::Lmdb;
use crate::store::open::Damage;
use crate::store::record::{self, StoreName};
use crate::store::salvage::{Findings, Scan};

/// What is under way.
pub(super) struct Carry {
    /// The scan of the oldest damaged file; `None` once all are through.
    scan: Option<(PathBuf, Scan)>,
    damage: Option<Damage>,
    /// Nothing is known of what was delivered.
    may_repeat: bool,
    /// Bytes of records in one commit.
    group: usize,
    /// What was scanned is given back: there is no room for a copy beside it.
    gives_back: bool,
    /// Not before: there is no room at all.
    retry_at: Option<Instant>,
}

impl Carry {
    /// What there is to carry over to the store, if anything; it `may_repeat` what was
    /// delivered where that is not known.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn begin(
        lmdb: &Lmdb,
        damage: Option<Damage>,
        may_repeat: bool,
    ) -> Result<Option<Carry>> {
        let scan = open_next(lmdb);
        if scan.is_none() && lmdb.count_arrivals()? == 0 {
            return Ok(None);
        }
        Ok(Some(Carry {
            scan,
            damage,
            may_repeat,
            group: GROUP_BYTES_MAX,
            gives_back: false,
            retry_at: None,
        }))
    }

    /// True until every record of the damaged store has its place.
    pub(super) fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// When the damaged store was written last, in unix nanoseconds.
    pub(super) fn written_at(&self) -> u64 {
        self.scan.as_ref().map_or(0, |(_, scan)| scan.written_at())
    }

    /// When there may be room again; `None` where nothing is waited for.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.retry_at.filter(|at| *at > Instant::now())
    }

    /// Goes one commit on; false once all is done. `last_key` becomes the largest that there
    /// is.
    ///
    /// # Errors
    /// Those of the store but [`Error::Full`], which is waited for.
    pub(super) fn step(
        &mut self,
        lmdb: &mut Lmdb,
        through: u64,
        last_key: &mut u64,
        events: &Events,
    ) -> Result<bool> {
        let stepped = match self.scan.take() {
            Some((path, mut scan)) => {
                let stepped = self.scan_on(&mut scan, lmdb, through);
                match stepped {
                    Ok(false) => {
                        let finished = self.finish(lmdb, &path, &scan, events);
                        self.scan = match &finished {
                            Ok(()) => open_next(lmdb),
                            Err(_) => Some((path, scan)),
                        };
                        finished.map(|()| true)
                    }
                    other => {
                        self.scan = Some((path, scan));
                        other
                    }
                }
            }
            None => self.move_arrivals(lmdb, through),
        };
        if !lmdb.is_stuck() {
            let last = lmdb.key_bounds()?.map_or(0, |(_, last)| last);
            *last_key = last.max(*last_key);
            lmdb.return_pages();
        }
        match stepped {
            Err(full @ Error::Full(_)) => {
                events.emit("store_full", &[("error", (&full.to_string()).into())]);
                self.retry_at = Some(Instant::now() + FULL_RETRY);
                Ok(true)
            }
            stepped => stepped,
        }
    }

    /// Carries a group over; false at the end of the file.
    fn scan_on(&mut self, scan: &mut Scan, lmdb: &mut Lmdb, through: u64) -> Result<bool> {
        let Some(findings) = scan.next(through, self.group, GROUP_RECORDS_MAX) else {
            return Ok(false);
        };
        match put(lmdb, &findings) {
            Ok(()) => {
                if self.gives_back {
                    // Where this cannot be done the disk stays full, and is waited for.
                    let _ = scan.punch(&findings);
                }
                self.group = (self.group * 2).min(GROUP_BYTES_MAX);
            }
            Err(Error::Full(_)) if !self.gives_back => {
                // Once more from the begin: what is there already needs no room.
                self.gives_back = true;
                scan.restart_in_order();
            }
            Err(Error::Full(_)) if self.group > CARRY_BYTES_MIN => {
                self.group /= 2;
                scan.go_back(&findings);
            }
            Err(error) => {
                scan.go_back(&findings);
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Appends what has arrived; false once nothing is left of it. It is acknowledged, so
    /// the disk's reserve is there for it.
    fn move_arrivals(&mut self, lmdb: &mut Lmdb, through: u64) -> Result<bool> {
        for _ in 0..ARRIVALS_MOVED {
            let batch = lmdb.read_arrivals(self.group)?;
            if batch.is_empty() {
                return Ok(false);
            }
            let bytes = batch.iter().map(|(_, value)| value.len() as u64).sum();
            lmdb.make_room(bytes)?;
            let moved = lmdb.write(bytes, &mut |_, trees, txn| {
                trees.move_arrivals(txn, &batch, through)
            });
            if let Err(full @ Error::Full(_)) = moved {
                self.group /= 2;
                if self.group < CARRY_BYTES_MIN {
                    self.group = CARRY_BYTES_MIN;
                    return Err(full);
                }
            } else {
                moved?;
                self.group = (self.group * 2).min(GROUP_BYTES_MAX);
            }
        }
        Ok(true)
    }

    /// Leaves the damaged file to the operator.
    fn finish(&mut self, lmdb: &Lmdb, path: &Path, scan: &Scan, events: &Events) -> Result<()> {
        let failed = |error| files::failed(lmdb.folder(), &error);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut aside = path.with_file_name(name.replace(SALVAGE_PREFIX, DAMAGED_PREFIX));
        while aside.symlink_metadata().is_ok() {
            aside.as_mut_os_string().push("-2");
        }
        let is_whole = scan.is_whole();
        let saved = lmdb.count()? - lmdb.count_arrivals()?;
        fs::rename(path, &aside).map_err(failed)?;
        sync_folder(lmdb.folder()).map_err(failed)?;
        let aside = aside.to_string_lossy();
        let found_before = || Damage::new("found by an earlier agent", None);
        let damage = self.damage.take().unwrap_or_else(found_before);
        events.emit(
            "store_corrupt",
            &[
                ("reason", (&damage.reason).into()),
                ("saved", saved.into()),
                ("expected", damage.expected.into()),
                ("unreadable_pages", scan.unreadable_pages().into()),
                ("may_repeat", self.may_repeat.into()),
                ("whole", is_whole.into()),
                ("set_aside", (&*aside).into()),
            ],
        );
        Ok(())
    }
}

/// The scan of the oldest damaged file, by the order of keys where there may be no room
/// for a copy. One that cannot be opened, a link say, is left to the operator.
fn open_next(lmdb: &Lmdb) -> Option<(PathBuf, Scan)> {
    let files = files::salvage_files(lmdb.folder()).into_iter();
    let open = |path: PathBuf| Some((Scan::open(&path).ok()?, path));
    let (mut scan, path) = files.filter_map(open).next()?;
    if lmdb.room().is_none_or(|room| room < 2 * scan.length()) {
        scan.restart_in_order();
    }
    Some((path, scan))
}

/// Commits what is not there yet.
fn put(lmdb: &mut Lmdb, findings: &Findings) -> Result<()> {
    let name = StoreName::new(&lmdb.id());
    let mut missing = Vec::new();
    for found in &findings.records {
        let is_it = |key: u64, there: &[u8]| match key == found.key {
            true => there == found.value,
            false => record::rekeyed(key, found.key, &found.value, &name)
                .is_none_or(|value| value == there),
        };
        if !lmdb.has(found.key, is_it)? {
            missing.push(found);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let bytes = missing.iter().map(|found| found.value.len() as u64).sum();
    lmdb.admit(bytes)?;
    lmdb.write(bytes, &mut |_, trees, txn| {
        missing
            .iter()
            .try_for_each(|found| trees.put_carried(txn, found.key, &found.value, &name))
    })
}
