//! What is on a disk after a cut, and what must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use echopost::events::Events;
use echopost::folder::Folder;
use echopost::proto::store::StoredRecord;
use echopost::store::{Writer, open};
use serde_json::Value;

use crate::power_cut::history::{Fate, LANES, is_refused};
use crate::power_cut::recording::Mark;
use crate::support::samples::number_of;
use crate::support::sender::block_on;

/// A record as an agent that starts on a disk would see it.
pub struct Found {
    pub record: StoredRecord,
    pub idempotency_key: String,
}

/// Opens the store of a disk as an agent does; the records by key.
pub fn open_store(base: &Path) -> BTreeMap<u64, Found> {
    read_store(base).expect("records with a right CRC")
}

/// The same; `None` where a record is garbled.
fn read_store(base: &Path) -> Option<BTreeMap<u64, Found>> {
    // The agent forks before it has a second thread. Here another one may have a store
    // open, and what is locked while that is so stays locked in the child.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Arc::new(Folder::open(base).expect("the base folder"));
    let candidate = open::examine(base);
    let (writer, store) = Writer::new(folder, candidate, Events::default());
    block_on(async {
        let writing = tokio::spawn(writer.run(false));
        let (mut found, mut garbled) = (BTreeMap::new(), false);
        loop {
            let batch = store.read().await.expect("a batch");
            if batch.is_empty() {
                break;
            }
            for read in batch {
                // Only in memory: nothing is deleted before a commit.
                store.set_delivered(read.key);
                let Ok(record) = read.content else {
                    garbled = true;
                    continue;
                };
                let idempotency_key = read.idempotency_key;
                let record = Found {
                    record,
                    idempotency_key,
                };
                found.insert(read.key, record);
            }
        }
        drop(store);
        writing.await.expect("a writer").expect("no error");
        (!garbled).then_some(found)
    })
}

/// Numbers of the records that a disk cut at `cut` must still hold.
pub fn required(fates: &BTreeMap<u64, Fate>, cut: Mark) -> BTreeSet<u64> {
    let must = |fate: &Fate| {
        let done = fate.delivered.is_some_and(|mark| mark < cut);
        fate.acknowledged.is_some_and(|mark| mark <= cut) && !done
    };
    let fates = fates.iter().filter(|(_, fate)| must(fate));
    fates.map(|(number, _)| *number).collect()
}

/// What was sent, each once, in the order of its lane; the numbers.
pub fn numbers<'a>(
    fates: &BTreeMap<u64, Fate>,
    jsons: impl Iterator<Item = &'a [u8]>,
) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut last = [None; LANES as usize];
    for json in jsons {
        let number = number_of(json).expect("a record of ours");
        assert_eq!(fates[&number].json.as_bytes(), json);
        let lane = &mut last[usize::try_from(number % LANES).unwrap()];
        assert!(
            lane.is_none_or(|last| last < number),
            "{number} after {lane:?}"
        );
        *lane = Some(number);
        found.insert(number);
    }
    found
}

/// The numbers of the records that the failure logs hold whole.
pub fn set_aside(base: &Path, fates: &BTreeMap<u64, Fate>) -> BTreeSet<u64> {
    let entries = fs::read_dir(base).expect("the base folder");
    let paths = entries.map(|entry| entry.expect("a folder entry").path());
    let logs = paths.filter_map(|path| fs::read(path.join("agent-failure.log")).ok());
    let lines = logs.flat_map(|log| {
        let lines = log.split(|byte| *byte == b'\n');
        // What a cut has torn was not flushed.
        let whole = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        whole.collect::<Vec<_>>()
    });
    let number = |line: Value| {
        let json = line["json_data"].as_str().expect("the record").to_owned();
        let number = number_of(json.as_bytes()).expect("a record of ours");
        assert!(is_refused(number) && fates[&number].json == json);
        number
    };
    lines.map(number).collect()
}

/// The files of stores that were damaged.
pub fn damaged_files(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base.join("lmdb")).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("a folder entry").path());
    let is_damaged = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with("data.mdb.damaged-")
    };
    paths.filter(is_damaged).collect()
}

/// What an agent would find in a copy of a store's file; `None` where a record is garbled.
pub fn held_by(data: &[u8]) -> Option<BTreeMap<u64, Found>> {
    let base = crate::support::temp_folder();
    fs::create_dir(base.path().join("lmdb")).expect("a folder");
    fs::write(base.path().join("lmdb/data.mdb"), data).expect("a copy");
    read_store(base.path())
}
