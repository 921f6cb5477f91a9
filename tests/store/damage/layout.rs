//! Where things lie in a healthy data file, read with full trust (LMDB's mdb.c
//! describes the format).

use std::collections::{BTreeMap, BTreeSet};

use echopost::proto::store::StoredRecord;
use echopost::store::record::{FORMAT_KEY, META, RECORDS, STORE_ID_KEY};
use prost::Message;

/// The page size of the machines that the tests run on.
pub const PAGE: usize = 4096;

/// A record and its place.
pub struct Placed {
    pub record: StoredRecord,
    /// Its leaf page, and its overflow pages where there are any.
    pub pages: BTreeSet<usize>,
    /// Offset of the value in the file.
    pub at: usize,
}

/// A healthy file. Roots are page numbers.
pub struct Layout {
    pub records: BTreeMap<u64, Placed>,
    pub store_id: [u8; 16],
    /// Offset of the format's number.
    pub format_at: usize,
    /// The meta page of the newest snapshot.
    pub newest: usize,
    pub free: Option<usize>,
    pub databases: usize,
    pub identity: usize,
    pub root: Option<usize>,
}

impl Layout {
    pub fn of(bytes: &[u8]) -> Layout {
        let txn = |page: usize| number::<8>(bytes, page * PAGE + 144);
        let newest = usize::from(txn(1) > txn(0));
        let tree = |at: usize| match number::<8>(bytes, at + 40) {
            usize::MAX => None,
            root => Some(root),
        };
        let databases = tree(newest * PAGE + 40 + 48).expect("the databases");
        let named = |name: &str| {
            let mut nodes = nodes(bytes, databases).into_iter();
            let (_, at) = nodes
                .find(|(key, _)| key == name.as_bytes())
                .expect("the database");
            tree(at + 8 + name.len())
        };
        let identity = named(META).expect("a format");
        let value_of = |name: &str| {
            let mut nodes = nodes(bytes, identity).into_iter();
            let (_, at) = nodes
                .find(|(key, _)| key == name.as_bytes())
                .expect("its key");
            at + 8 + name.len()
        };
        let id_at = value_of(STORE_ID_KEY);
        let root = named(RECORDS);
        let mut records = BTreeMap::new();
        if let Some(root) = root {
            place(bytes, root, &mut records);
        }
        Layout {
            records,
            store_id: bytes[id_at..id_at + 16].try_into().unwrap(),
            format_at: value_of(FORMAT_KEY),
            newest,
            free: tree(newest * PAGE + 40),
            databases,
            identity,
            root,
        }
    }

    /// One page of each kind.
    pub fn kinds(&self) -> Vec<(&'static str, usize)> {
        let leaf = |placed: &Placed| *placed.pages.first().unwrap();
        let last = self.records.values().next_back().expect("a record");
        let mut kinds = vec![
            ("newest meta page", self.newest),
            ("older meta page", 1 - self.newest),
            ("list of databases", self.databases),
            ("store's identity", self.identity),
            ("root", self.root.expect("a root")),
            ("leaf", leaf(last)),
        ];
        kinds.extend(self.free.map(|page| ("free list", page)));
        let large = self.records.values().find(|placed| placed.pages.len() > 2);
        let large = large.expect("a record on overflow pages");
        // By number, they follow each other.
        let overflow: Vec<usize> = large.pages.iter().copied().collect();
        kinds.push(("overflow page", overflow[overflow.len() - 1]));
        kinds
    }
}

fn place(bytes: &[u8], page: usize, records: &mut BTreeMap<u64, Placed>) {
    let is_leaf = number::<2>(bytes, page * PAGE + 10) == 2;
    for (key, at) in nodes(bytes, page) {
        if !is_leaf {
            place(bytes, number::<6>(bytes, at), records);
            continue;
        }
        let mut pages = BTreeSet::from([page]);
        let mut start = at + 8 + key.len();
        if number::<2>(bytes, at + 4) == 1 {
            let first = number::<8>(bytes, start);
            pages.extend(first..first + number::<4>(bytes, first * PAGE + 12));
            start = first * PAGE + 16;
        }
        let value = &bytes[start..start + number::<4>(bytes, at)];
        let placed = Placed {
            record: StoredRecord::decode(value).expect("a stored record"),
            pages,
            at: start,
        };
        let key = u64::from_be_bytes(key.try_into().expect("a key of eight bytes"));
        records.insert(key, placed);
    }
}

/// Key and offset of each node of a page.
fn nodes(bytes: &[u8], page: usize) -> Vec<(Vec<u8>, usize)> {
    let start = page * PAGE;
    let count = (number::<2>(bytes, start + 12) - 16) / 2;
    (0..count)
        .map(|index| start + number::<2>(bytes, start + 16 + 2 * index))
        .map(|at| {
            let size = number::<2>(bytes, at + 6);
            (bytes[at + 8..at + 8 + size].to_vec(), at)
        })
        .collect()
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> usize {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[at..at + N]);
    usize::from_le_bytes(word)
}
