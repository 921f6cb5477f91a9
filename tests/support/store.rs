//! The store of an agent that is no more.

use std::path::Path;

use echopost::proto::store::StoredRecord;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn};
use prost::Message;

/// Address space for any store of a test.
const MAP_SIZE: usize = 1 << 32;

/// Every record in `<folder>/lmdb`, by key. The agent must not be running.
pub fn records(folder: &Path) -> Vec<(u64, StoredRecord)> {
    let decode = |value: Vec<u8>| StoredRecord::decode(value.as_slice()).expect("a stored record");
    let raw = raw_records(folder).into_iter();
    raw.map(|(key, value)| (key, decode(value))).collect()
}

/// The same as [`records`], each value byte for byte as it is stored.
pub fn raw_records(folder: &Path) -> Vec<(u64, Vec<u8>)> {
    with_copy(folder, |_, read, records| {
        let Some(records) = records else {
            return Vec::new();
        };
        records
            .iter(read)
            .expect("a cursor")
            .map(|entry| {
                let (key, value) = entry.expect("an entry");
                let key = key.try_into().expect("a key of eight bytes");
                (u64::from_be_bytes(key), value.to_vec())
            })
            .collect()
    })
}

/// How many transactions were ever committed to the store in `<folder>/lmdb`.
/// The agent must not be running.
pub fn commits(folder: &Path) -> usize {
    with_copy(folder, |env, _, _| env.info().last_txn_id)
}

/// Puts values into the store in `<folder>/lmdb` as they are, making it when
/// there is none. The agent must not be running.
pub fn put_raw(folder: &Path, values: &[(u64, Vec<u8>)]) {
    let path = folder.join("lmdb");
    std::fs::create_dir_all(&path).expect("the store's folder");
    // SAFETY: the agent does not run, and no other process knows of this folder.
    let env = unsafe {
        EnvOpenOptions::new()
            .max_dbs(4)
            .map_size(MAP_SIZE)
            .flags(EnvFlags::NO_LOCK)
            .open(&path)
    }
    .expect("open the store");
    let write = env.write_txn().expect("a transaction");
    let (records, meta) = env
        .create_databases_and_commit(write, |opener, write| -> heed::Result<_> {
            let records: Database<Bytes, Bytes> = opener.create_database(write, Some("records"))?;
            let meta: Database<Bytes, Bytes> = opener.create_database(write, Some("meta"))?;
            Ok(CommitOrAbort::<_, ()>::Commit((records, meta)))
        })
        .expect("the databases")
        .unwrap_commit();
    let mut write = env.write_txn().expect("a transaction");
    let format = echopost::limits::STORE_FORMAT.to_le_bytes();
    meta.put(&mut write, b"format", &format).expect("put");
    meta.put(&mut write, b"store_id", &[7; 16]).expect("put");
    for (key, value) in values {
        let key = key.to_be_bytes();
        // As the agent does it where it can be done: its pages are full.
        let last = records.last(&write).expect("a cursor");
        let flags = match last.is_none_or(|(last, _)| *last < key[..]) {
            true => PutFlags::APPEND,
            false => PutFlags::empty(),
        };
        let put = records.put_with_flags(&mut write, flags, &key, value);
        put.expect("put");
    }
    write.commit().expect("commit");
}

/// Opens a copy: to open the store itself would change its lock file, and with
/// it what the next agent finds.
fn with_copy<T>(
    folder: &Path,
    look: impl FnOnce(&Env, &RoTxn, Option<Database<Bytes, Bytes>>) -> T,
) -> T {
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
            let records = opener.open_database(read, Some("records"))?;
            Ok(CommitOrAbort::<_, ()>::Commit(records))
        })
        .expect("open the records")
        .unwrap_commit();
    let read = env.read_txn().expect("a read transaction");
    look(&env, &read, records)
}
