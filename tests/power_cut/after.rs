//! What is on a disk after a cut, and what must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use echopost::events::Events;
use echopost::proto::store::StoredRecord;
use echopost::store::check::{Salvage, Step};
use echopost::store::open;
use echopost::store::record::{self, StoreName};
use serde_json::Value;

use crate::history::{Fate, LANES, is_refused};
use crate::recording::Mark;
use crate::support::samples::number_of;
use crate::support::sender::block_on;

/// A record as an agent that starts on a disk would see it.
pub struct Found {
    pub record: StoredRecord,
    pub idempotency_key: String,
}

/// Opens the store of a disk as an agent does; the records by key.
pub fn open_store(base: &Path) -> BTreeMap<u64, Found> {
    let (lmdb, id) = block_on(open::open(base, &Events::default())).expect("a store");
    let (mut found, mut last) = (BTreeMap::new(), 0);
    loop {
        let batch = lmdb.read_after(last).expect("a batch");
        if batch.is_empty() {
            return found;
        }
        for (key, value) in batch {
            let record = record::decode(key, value).expect("a record with a right CRC");
            let idempotency_key = StoreName::new(&id).idempotency_key(key, Some(&record));
            last = key;
            found.insert(
                key,
                Found {
                    record,
                    idempotency_key,
                },
            );
        }
    }
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

pub fn damaged_folders(base: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(base).expect("the base folder");
    let paths = entries.map(|entry| entry.expect("a folder entry").path());
    let is_damaged = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with("lmdb.damaged-")
    };
    paths.filter(is_damaged).collect()
}

/// What the salvage reads, on a file that stays as it is; None where the store's
/// id is lost, or a record is garbled.
pub fn salvaged(store: &Path) -> Option<BTreeMap<u64, Found>> {
    let mut salvage = Salvage::open(store).expect("the damaged store");
    let mut saved = BTreeMap::new();
    loop {
        match salvage.step() {
            Step::Record { key, value } => {
                let record = record::decode(key, value.into())?;
                let id = salvage.store_id()?;
                let idempotency_key = StoreName::new(&id).idempotency_key(key, Some(&record));
                saved.insert(
                    key,
                    Found {
                        record,
                        idempotency_key,
                    },
                );
            }
            Step::Working => {}
            Step::Done => return Some(saved),
        }
    }
}
