//! The store of an agent that is no more.

use std::path::Path;

use echopost::proto::store::StoredRecord;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, EnvFlags, EnvOpenOptions};
use prost::Message;

/// Every record in `<folder>/lmdb`, by key. The agent must not be running.
///
/// Reads a copy: to open the store itself would change its lock file, and with
/// it what the next agent finds.
pub fn records(folder: &Path) -> Vec<(u64, StoredRecord)> {
    let copy = super::temp_folder();
    let data = folder.join("lmdb/data.mdb");
    std::fs::copy(&data, copy.path().join("data.mdb"))
        .unwrap_or_else(|error| panic!("copy {}: {error}", data.display()));

    let mut options = EnvOpenOptions::new();
    // SAFETY: the files are a private copy in a fresh folder. No other process
    // knows of it, so none can change what is mapped here.
    let env = unsafe {
        options
            .max_dbs(4)
            .flags(EnvFlags::READ_ONLY)
            .open(copy.path())
    }
    .expect("open the copy of the store");
    let read = env.read_txn().expect("a read transaction");
    let records = env
        .open_databases_and_commit(read, |opener, read| -> heed::Result<_> {
            let records: Option<Database<Bytes, Bytes>> =
                opener.open_database(read, Some("records"))?;
            Ok(CommitOrAbort::<_, ()>::Commit(records))
        })
        .expect("open the records")
        .unwrap_commit();
    let Some(records) = records else {
        return Vec::new();
    };
    let read = env.read_txn().expect("a read transaction");
    records
        .iter(&read)
        .expect("a cursor")
        .map(|entry| {
            let (key, value) = entry.expect("an entry");
            let key = key.try_into().expect("a key of eight bytes");
            let value = StoredRecord::decode(value).expect("a stored record");
            (u64::from_be_bytes(key), value)
        })
        .collect()
}
