//! Opening the store (spec 4): as it is where it is trusted, after a child has read it
//! where it is not, and beside a fresh one where it is damaged.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Instant, SystemTime};

use rustix::io::Errno;
use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::events::Events;
use crate::folder::{name_with_time, sync_folder};
use crate::limits::{LOCK_POLL, LOCK_WAIT};
use crate::store::files::{self, DAMAGED_PREFIX, DATA_FILE, FOLDER, SALVAGE_PREFIX};
use crate::store::lmdb::{Lmdb, locked_elsewhere};
use crate::store::record::StoreId;
use crate::store::salvage::{self, Scan};
use crate::store::trust::{self, Trust};
use crate::store::verify::{CheckResult, Verification};
use crate::store::{crash, delivered};

/// What is known of the store that is opened next.
#[derive(Default)]
pub struct Candidate {
    data: Option<File>,
    /// A child that reads it, and when the file was written last before that.
    verification: Option<(Verification, SystemTime)>,
    state: State,
    /// A damaged store beside which a fresh one is opened.
    damage: Option<Damage>,
    /// That one's id, and up to which key its records are delivered, where this process
    /// has had it open.
    pub(super) before: Option<(StoreId, u64)>,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Unjudged,
    /// It is opened as it is, this or the next time it is tried.
    Trusted,
    /// The same, because a child could read it.
    Verified,
}

impl Candidate {
    /// Of a store whose file was renamed, so that a fresh one is opened next.
    pub(super) fn after(damage: Damage, before: Option<(StoreId, u64)>) -> Candidate {
        Candidate {
            damage: Some(damage),
            before,
            ..Candidate::default()
        }
    }
}

/// A store that has become damaged: its file is a salvage from now on.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) reason: String,
    /// Records that it had, where that is known.
    pub(super) expected: Option<u64>,
}

impl Damage {
    pub(super) fn new(reason: impl Into<String>, expected: Option<u64>) -> Damage {
        let reason = reason.into();
        Damage { reason, expected }
    }
}

/// Looks at the store that an earlier agent may have left, and has a child read it where
/// it is not trusted: before there is a runtime, and before LMDB is given it. The process
/// must have no other thread yet.
///
/// Not inlined: its frame would be a part of the caller's, which stays.
#[must_use]
#[inline(never)]
pub fn examine(base: &Path) -> Candidate {
    let folder = base.join(FOLDER);
    let mut candidate = Candidate::default();
    if files::check_own(&folder).is_ok()
        && let Ok(data) = files::open_data(&folder)
        && let Ok(found) = data.metadata()
    {
        // Taken for the time being: an agent that is ending may have it yet.
        files::try_lock(&data);
        if found.len() > 0
            && trust_in(&folder, &data) == Trust::Unknown
            && let Ok(written) = found.modified()
        {
            let verification = Verification::begin(&folder, found.len());
            candidate.verification = verification.ok().map(|child| (child, written));
        }
        candidate.data = Some(data);
    }
    candidate
}

/// A trusted file that is shorter than its meta page says is verified all the same: LMDB
/// does not write a page that one transaction both took and freed.
fn trust_in(folder: &Path, data: &File) -> Trust {
    let Ok(found) = data.metadata() else {
        return Trust::Unknown;
    };
    match trust::judge(folder, &found) {
        Trust::Trusted if salvage::end_of(data).is_none_or(|end| end > found.len()) => {
            Trust::Unknown
        }
        trust => trust,
    }
}

/// Opens the store of the base folder, and tells what was found damaged. A store that is
/// not trusted and that no child has read is taken for damaged.
///
/// # Errors
/// [`Error::CannotCreate`], [`Error::Full`] or [`Error::DiskFailed`].
pub(super) async fn open(
    base: &Path,
    candidate: &mut Candidate,
    events: &Events,
) -> Result<(Lmdb, Option<Damage>)> {
    let folder = base.join(FOLDER);
    files::check_own(&folder)?;
    let mut data = lock(&folder, candidate.data.take()).await?;
    let found = fs::symlink_metadata(folder.join(DATA_FILE)).ok();
    let length = found.as_ref().map_or(0, |found| found.len());
    let mut damage = match (&data, &found) {
        (None, Some(_)) => Some(Damage::new("it is no file", None)),
        (Some(data), _) if length > 0 => judge(&folder, data, candidate).await?,
        _ => None,
    };
    if candidate.state != State::Verified {
        // A clean end is withdrawn for good before anything is written: the folder is
        // flushed while the store is opened.
        trust::revoke(&folder);
    }
    crash::withdraw_trust_of(&folder);
    loop {
        if let Some(damage) = damage.take() {
            data = None;
            set_aside(&folder, &damage, events)?;
            *candidate = Candidate::after(damage, candidate.before);
        }
        let id = match candidate.before {
            Some((id, _)) => Some(id),
            None => kept_id(&folder),
        };
        match Lmdb::open(&folder, data.take(), id) {
            Err(Error::Damaged(reason)) if length > 0 && candidate.damage.is_none() => {
                damage = Some(Damage::new(reason, None));
            }
            Err(full @ Error::Full(_)) => {
                if length == 0 || candidate.damage.is_some() {
                    // What found no room to begin with is no damaged store.
                    let _ = fs::remove_file(folder.join(DATA_FILE));
                    let _ = fs::remove_dir(&folder);
                }
                return Err(full);
            }
            opened => return Ok((opened?, candidate.damage.take())),
        }
    }
}

/// The data file, locked; `None` where there is none, or what is no file.
async fn lock(folder: &Path, data: Option<File>) -> Result<Option<File>> {
    let data = match data.map_or_else(|| files::open_data(folder), Ok) {
        Ok(data) => data,
        Err(error) => {
            let found = fs::symlink_metadata(folder.join(DATA_FILE));
            return match found.is_ok_and(|found| found.is_file()) {
                true => Err(files::failed(folder, &error)),
                false => Ok(None),
            };
        }
    };
    let start = Instant::now();
    // An agent whose disk has blocked may be ending yet.
    while !files::try_lock(&data) {
        if start.elapsed() >= LOCK_WAIT {
            return Err(locked_elsewhere(folder));
        }
        sleep(LOCK_POLL).await;
    }
    Ok(Some(data))
}

/// What is damaged in a store that may not be opened.
async fn judge(folder: &Path, data: &File, candidate: &mut Candidate) -> Result<Option<Damage>> {
    if candidate.state != State::Unjudged {
        return Ok(None);
    }
    let unsound = |reason: &str| Ok(Some(Damage::new(reason, None)));
    match trust_in(folder, data) {
        Trust::Trusted => {
            trust::forget_verified(folder);
            candidate.state = State::Trusted;
            return Ok(None);
        }
        Trust::Deadly => return unsound("LMDB died of it"),
        Trust::Unknown => {}
    }
    check_flushed(folder, data)?;
    let Some(end) = salvage::end_of(data) else {
        return unsound("its first pages are not what they were");
    };
    let found = data
        .metadata()
        .map_err(|error| files::failed(folder, &error))?;
    let child = candidate.verification.take();
    let Some((verification, _)) = child.filter(|(_, at)| found.modified().ok() == Some(*at)) else {
        return unsound("no child could read it");
    };
    match verification.result().await {
        Ok(CheckResult::Sound) => {
            if found.len() < end {
                // LMDB does not use what it did not write, but it maps it.
                data.set_len(end)
                    .map_err(|error| files::failed(folder, &error))?;
            }
            // In this order: without the first, the second says that LMDB died of it.
            trust::trust_while_alive(folder);
            trust::set_verified(folder);
            candidate.state = State::Verified;
            Ok(None)
        }
        Ok(CheckResult::Unsound { reason, expected }) => Ok(Some(Damage::new(reason, expected))),
        Err(error) => unsound(&error.to_string()),
    }
}

/// After a flush that failed, what a read shows is the page cache, not the disk
/// (spec 4). An agent that was killed then left it to the next one to find out.
fn check_flushed(folder: &Path, data: &File) -> Result<()> {
    match data.sync_data() {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Err(Error::DiskFailed(
            format!("store {}: {error}", folder.display()),
        )),
        // What else it is, the child tells.
        _ => Ok(()),
    }
}

/// Renames a damaged store's file in its folder, which may be a mount point. What is no
/// file holds nothing to carry over.
pub(super) fn set_aside(folder: &Path, damage: &Damage, events: &Events) -> Result<()> {
    trust::revoke(folder);
    trust::forget_verified(folder);
    let data = folder.join(DATA_FILE);
    let is_file = fs::symlink_metadata(&data).is_ok_and(|found| found.is_file());
    let prefix = if is_file {
        SALVAGE_PREFIX
    } else {
        DAMAGED_PREFIX
    };
    let aside = name_with_time(folder, prefix, SystemTime::now());
    fs::rename(&data, &aside)
        .and_then(|()| sync_folder(folder))
        .map_err(|error| files::failed(folder, &error))?;
    let name = aside.to_string_lossy();
    let fields = [
        ("reason", (&damage.reason).into()),
        ("set_aside", (&*name).into()),
    ];
    events.emit("store_damaged", &fields);
    Ok(())
}

/// The id of the damaged store beside which a fresh one is opened: the records keep their
/// Idempotency-Keys, and what was delivered of it stays known.
fn kept_id(folder: &Path) -> Option<StoreId> {
    let salvage = files::salvage_files(folder).into_iter().next()?;
    let of_delivered = delivered::read(folder).map(|(id, _)| id);
    of_delivered.or_else(|| Scan::open(&salvage).ok()?.find_id())
}
