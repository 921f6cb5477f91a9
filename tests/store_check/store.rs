//! Real LMDB stores, built through heed, and the truth about their content.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use echopost::limits::STORE_FORMAT;
use echopost::store::check::{
    Check, FORMAT_KEY, META_DB, RECORDS_DB, STORE_ID_KEY, Salvage, Step, Verdict,
};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

pub type Content = BTreeMap<u64, Vec<u8>>;
type Table = Database<'static, Bytes, Bytes>;

pub const STORE_ID: [u8; 16] = *b"0123456789abcdef";

/// splitmix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// A folder that goes away with the value.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() {
            memory.to_path_buf()
        } else {
            std::env::temp_dir()
        };
        let path = base.join(format!("echopost-check-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn data(&self) -> PathBuf {
        self.0.join("data.mdb")
    }

    pub fn holding(bytes: &[u8]) -> Folder {
        let folder = Folder::new();
        fs::write(folder.data(), bytes).unwrap();
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A value as the store writes it: content, tag, CRC-32 of key and content.
pub fn value(key: u64, size: usize, dice: &mut Dice) -> Vec<u8> {
    let mut value = vec![0; size];
    dice.fill(&mut value);
    let crc = crc(key, &value);
    value.push(0x7D);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

fn crc(key: u64, content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&key.to_be_bytes());
    crc.update(content);
    crc.finalize()
}

pub fn is_right(key: u64, value: &[u8]) -> bool {
    value.len() >= 5 && {
        let (content, field) = value.split_at(value.len() - 5);
        field[0] == 0x7D && field[1..] == crc(key, content).to_le_bytes()
    }
}

pub struct Store {
    env: Env,
    records: Table,
    pub content: Content,
    /// Every record there ever was.
    pub ever: Content,
    next: u64,
}

impl Store {
    pub fn open(dir: &Path) -> Store {
        let mut options = EnvOpenOptions::new();
        options.map_size(1 << 30).max_dbs(4);
        // SAFETY: no other process opens the folder, nothing changes the file
        // while it is mapped, and the tests do not depend on flushes.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC);
            options.open(dir).unwrap()
        };
        let txn = env.write_txn().unwrap();
        let create = env.create_databases_and_commit(txn, |opener, txn| {
            let records = opener.create_database::<Bytes, Bytes>(txn, Some(RECORDS_DB))?;
            let meta = opener.create_database::<Bytes, Bytes>(txn, Some(META_DB))?;
            if meta.is_empty(txn)? {
                let format = STORE_FORMAT.to_le_bytes();
                meta.put(txn, FORMAT_KEY.as_bytes(), &format)?;
                meta.put(txn, STORE_ID_KEY.as_bytes(), &STORE_ID)?;
            }
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(records))
        });
        let records: Table = create.unwrap().unwrap_commit();
        let txn = env.read_txn().unwrap();
        let content: Content = records
            .iter(&txn)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|(key, value)| (u64::from_be_bytes(key.try_into().unwrap()), value.to_vec()))
            .collect();
        drop(txn);
        let next = content.keys().next_back().map_or(1 << 60, |last| last + 1);
        Store {
            env,
            records,
            ever: content.clone(),
            content,
            next,
        }
    }

    /// One transaction: inserts of the given sizes, then deletes of the given keys.
    pub fn commit(&mut self, sizes: &[usize], deletes: &[u64], dice: &mut Dice) {
        let mut txn = self.env.write_txn().unwrap();
        for size in sizes {
            let key = self.next;
            self.next += 1 + dice.below(1000);
            let value = value(key, *size, dice);
            self.records
                .put(&mut txn, &key.to_be_bytes(), &value)
                .unwrap();
            self.ever.insert(key, value.clone());
            self.content.insert(key, value);
        }
        for key in deletes {
            assert!(self.records.delete(&mut txn, &key.to_be_bytes()).unwrap());
            self.content.remove(key);
        }
        txn.commit().unwrap();
    }

    /// A transaction that writes and deletes at once: pages that are never written.
    pub fn churn(&mut self, sizes: &[usize], dice: &mut Dice) {
        let mut txn = self.env.write_txn().unwrap();
        let keys: Vec<u64> = (0..sizes.len() as u64)
            .map(|index| self.next + index)
            .collect();
        for (key, size) in keys.iter().zip(sizes) {
            let value = value(*key, *size, dice);
            self.records
                .put(&mut txn, &key.to_be_bytes(), &value)
                .unwrap();
            // LMDB may spill a page that the same transaction frees.
            self.ever.insert(*key, value);
        }
        for key in &keys {
            assert!(self.records.delete(&mut txn, &key.to_be_bytes()).unwrap());
        }
        self.next += sizes.len() as u64;
        txn.commit().unwrap();
    }

    pub fn close(self) -> (Content, Content) {
        self.env.prepare_for_closing().wait();
        (self.content, self.ever)
    }
}

/// The oldest `count` keys.
pub fn oldest(content: &Content, count: u64) -> Vec<u64> {
    content.keys().copied().take(count as usize).collect()
}

/// One random step in a store's life.
pub fn live(store: &mut Store, dice: &mut Dice) {
    let size = |dice: &mut Dice| match dice.below(20) {
        0 => dice.below(300_000),
        1 | 2 => 1900 + dice.below(3000),
        _ => dice.below(700),
    } as usize;
    let count = dice.below(60);
    let sizes: Vec<usize> = (0..count).map(|_| size(dice)).collect();
    let have = store.content.len() as u64;
    match dice.below(10) {
        0..=3 => store.commit(&sizes, &[], dice),
        4..=6 => {
            let deletes = oldest(&store.content, dice.below(have + 1).min(64));
            let some = &sizes[..sizes.len() / 3];
            store.commit(some, &deletes, dice);
        }
        7 => {
            let chosen: Vec<u64> = store
                .content
                .keys()
                .copied()
                .filter(|_| dice.below(3) == 0)
                .collect();
            store.commit(&[], &chosen, dice);
        }
        8 if dice.below(3) == 0 => {
            let all = oldest(&store.content, have);
            store.commit(&[], &all, dice);
        }
        _ => store.churn(&sizes, dice),
    }
}

pub fn verdict(dir: &Path) -> Option<Verdict> {
    let mut check = Check::open(dir).unwrap()?;
    for _ in 0..1_000_000 {
        if let Some(verdict) = check.step(7) {
            return Some(verdict);
        }
    }
    panic!("the check does not end");
}

pub struct Saved {
    pub records: Vec<(u64, Vec<u8>)>,
    pub exact: bool,
    pub store_id: Option<[u8; 16]>,
}

pub fn salvage(dir: &Path) -> Saved {
    let mut salvage = Salvage::open(dir).unwrap();
    let mut records: Vec<(u64, Vec<u8>)> = Vec::new();
    for _ in 0..10_000_000 {
        match salvage.step() {
            Step::Record { key, value } => {
                assert!(records.last().is_none_or(|(last, _)| *last < key), "order");
                records.push((key, value));
            }
            Step::Working => {}
            Step::Done => {
                assert_eq!(salvage.step(), Step::Done);
                return Saved {
                    records,
                    exact: salvage.is_exact(),
                    store_id: salvage.store_id(),
                };
            }
        }
    }
    panic!("the salvage does not end");
}
