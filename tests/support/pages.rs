//! The pages of a store's data file: where things lie in a healthy one, read with full
//! trust (LMDB's mdb.c describes the format), and ways to damage them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use echopost::proto::store::StoredRecord;
use echopost::store::record::{FORMAT_KEY, META, RECORDS, STORE_ID_KEY};
use prost::Message;

use super::rng::Rng;

/// `MDB_page`: its flags, where its free space begins (the offsets of its nodes end there),
/// how many pages an overflow takes, and what follows.
const FLAGS: usize = 10;
const LOWER: usize = 12;
const OVERFLOW: usize = 12;
const HEADER: usize = 16;
/// `P_BRANCH` and `P_LEAF`.
const BRANCH: usize = 1;
const LEAF: usize = 2;
/// `MDB_node`: what comes before its key.
const NODE: usize = 8;
/// `MDB_meta` within its page: the tree of the free list, whose `md_pad` is the size of a
/// page, that of the databases, and the transaction's number.
const FREE: usize = 40;
const DATABASES: usize = FREE + 48;
const TRANSACTION: usize = 144;
/// `md_root` of a tree.
const ROOT: usize = 40;

pub fn data_file(base: &Path) -> PathBuf {
    base.join("lmdb/data.mdb")
}

/// How large the pages are: as the first meta page has it, that of the machine which made
/// the file.
#[derive(Debug, Clone, Copy)]
pub struct Pages(pub usize);

impl Pages {
    pub fn of(bytes: &[u8]) -> Pages {
        let size = number::<4>(bytes, FREE);
        assert!(size.is_power_of_two() && size >= 4096, "pages of {size}");
        Pages(size)
    }

    pub fn count(self, bytes: &[u8]) -> usize {
        bytes.len() / self.0
    }

    pub fn range(self, page: usize) -> Range<usize> {
        page * self.0..(page + 1) * self.0
    }

    /// Spoils a page.
    pub fn spoil(self, bytes: &mut [u8], page: usize, way: Way, rng: &mut Rng) {
        let place = self.range(page);
        match way {
            Way::Zeroed => bytes[place].fill(0),
            Way::Random => rng.fill(&mut bytes[place]),
            Way::Torn => bytes[place.start + self.0 / 2..place.end].fill(0),
            Way::Copied => {
                let other = rng.index(self.count(bytes));
                bytes.copy_within(self.range(other), place.start);
            }
        }
    }

    /// Key and offset of each node of a page.
    fn nodes(self, bytes: &[u8], page: usize) -> Vec<(Vec<u8>, usize)> {
        let start = page * self.0;
        let count = (number::<2>(bytes, start + LOWER) - HEADER) / 2;
        (0..count)
            .map(|index| start + number::<2>(bytes, start + HEADER + 2 * index))
            .map(|at| {
                let size = number::<2>(bytes, at + 6);
                (bytes[at + NODE..][..size].to_vec(), at)
            })
            .collect()
    }

    /// Where the keys of branch pages are, but the first of each, which LMDB leaves empty.
    pub fn branch_keys(self, bytes: &[u8]) -> Vec<usize> {
        let is_branch = |page: &usize| number::<2>(bytes, page * self.0 + FLAGS) == BRANCH;
        (2..self.count(bytes))
            .filter(is_branch)
            .flat_map(|page| self.nodes(bytes, page).into_iter().skip(1))
            .map(|(_, at)| at + NODE)
            .collect()
    }
}

/// What may become of a page.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Zeroed,
    Random,
    Torn,
    Copied,
}

pub const WAYS: [Way; 4] = [Way::Zeroed, Way::Random, Way::Torn, Way::Copied];

/// Zeroes pages of the store in `<base>/lmdb`.
pub fn zero(base: &Path, pages: &[usize]) {
    let mut bytes = fs::read(data_file(base)).expect("the data file");
    let size = Pages::of(&bytes);
    for &page in pages {
        bytes[size.range(page)].fill(0);
    }
    fs::write(data_file(base), bytes).expect("damage the data file");
}

/// Zeroes the root of the records' tree.
pub fn zero_root(base: &Path) {
    let bytes = fs::read(data_file(base)).expect("the data file");
    zero(base, &[Layout::of(&bytes).root.expect("a root")]);
}

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
    pub pages: Pages,
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
        let pages = Pages::of(bytes);
        let transaction = |page: usize| number::<8>(bytes, page * pages.0 + TRANSACTION);
        let newest = usize::from(transaction(1) > transaction(0));
        let meta = newest * pages.0;
        let tree = |at: usize| match number::<8>(bytes, at + ROOT) {
            usize::MAX => None,
            root => Some(root),
        };
        let value_in = |page: usize, name: &str| {
            let mut nodes = pages.nodes(bytes, page).into_iter();
            let node = nodes.find(|(key, _)| key == name.as_bytes());
            node.expect("its key").1 + NODE + name.len()
        };
        let databases = tree(meta + DATABASES).expect("the databases");
        let identity = tree(value_in(databases, META)).expect("a format");
        let id_at = value_in(identity, STORE_ID_KEY);
        let root = tree(value_in(databases, RECORDS));
        let mut records = BTreeMap::new();
        if let Some(root) = root {
            place(pages, bytes, root, &mut records);
        }
        Layout {
            pages,
            records,
            store_id: bytes[id_at..id_at + 16].try_into().unwrap(),
            format_at: value_in(identity, FORMAT_KEY),
            newest,
            free: tree(meta + FREE),
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
        let large = self
            .records
            .values()
            .max_by_key(|placed| placed.pages.len());
        // By number, they follow each other.
        let overflow = large.expect("a record").pages.last();
        kinds.push(("overflow page", *overflow.expect("its pages")));
        kinds
    }
}

fn place(pages: Pages, bytes: &[u8], page: usize, records: &mut BTreeMap<u64, Placed>) {
    let is_leaf = number::<2>(bytes, page * pages.0 + FLAGS) == LEAF;
    for (key, at) in pages.nodes(bytes, page) {
        if !is_leaf {
            place(pages, bytes, number::<6>(bytes, at), records);
            continue;
        }
        let mut own = BTreeSet::from([page]);
        let mut start = at + NODE + key.len();
        // F_BIGDATA: the value is on pages of its own.
        if number::<2>(bytes, at + 4) == 1 {
            let first = number::<8>(bytes, start);
            own.extend(first..first + number::<4>(bytes, first * pages.0 + OVERFLOW));
            start = first * pages.0 + HEADER;
        }
        let value = &bytes[start..start + number::<4>(bytes, at)];
        let placed = Placed {
            record: StoredRecord::decode(value).expect("a stored record"),
            pages: own,
            at: start,
        };
        let key = u64::from_be_bytes(key.try_into().expect("a key of eight bytes"));
        records.insert(key, placed);
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> usize {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[at..at + N]);
    usize::from_le_bytes(word)
}
