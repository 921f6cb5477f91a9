//! Opening the store (spec 4).

use std::fs;
use std::path::Path;

use crate::error::Result;
use crate::events::Events;
use crate::store::lmdb::{Lmdb, StoreId};

/// The store's folder in the base folder.
pub const STORE_NAME: &str = "lmdb";
/// A file in the store's folder that tells a clean end.
const CLEAN_MARKER: &str = "clean";

/// True where an earlier agent left a store.
#[must_use]
pub fn exists(base: &Path) -> bool {
    base.join(STORE_NAME).exists()
}

/// Opens the store.
///
/// # Errors
/// Those of [`Lmdb::open`].
pub async fn open(base: &Path, _events: &Events) -> Result<(Lmdb, StoreId)> {
    let folder = base.join(STORE_NAME);
    let _ = fs::remove_file(folder.join(CLEAN_MARKER));
    let mut lmdb = Lmdb::open(&folder)?;
    let id = lmdb.identify()?;
    Ok((lmdb, id))
}

/// Marks the closed store in `folder` as whole. Without the marker the next
/// start checks it, so a failure costs only time.
pub fn mark_clean(folder: &Path) {
    if let Ok(marker) = fs::File::create(folder.join(CLEAN_MARKER)) {
        let _ = marker.sync_all();
    }
}
