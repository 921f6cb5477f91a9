//! Where the records of a healthy file lie, read with full trust.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use echopost::store::check::RECORDS_DB;

use crate::store::{Content, Folder, Store};

/// The page size of the machines that the tests run on.
pub const PAGE: usize = 4096;
pub fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(word)
}

/// A healthy file, and which pages each of its records lies on.
pub struct Healthy {
    pub bytes: Vec<u8>,
    pub content: Content,
    pub ever: Content,
    pub places: BTreeMap<u64, BTreeSet<usize>>,
    pub branches: BTreeSet<usize>,
    pub free_root: usize,
    /// Where in the file the page number of the records' root stands.
    pub root_at: usize,
}

impl Healthy {
    pub fn new(folder: &Folder, store: Store) -> Healthy {
        let (content, ever) = store.close();
        let bytes = fs::read(folder.data()).unwrap();
        let mut healthy = Healthy {
            bytes,
            content,
            ever,
            places: BTreeMap::new(),
            branches: BTreeSet::new(),
            free_root: 0,
            root_at: 0,
        };
        let txn = |page: usize| number::<8>(&healthy.bytes, page * PAGE + 144);
        let meta = if txn(1) > txn(0) { PAGE } else { 0 };
        let root = |db: usize| number::<8>(&healthy.bytes, meta + 40 + db * 48 + 40) as usize;
        healthy.free_root = root(0);
        let main = root(1);
        let nodes = healthy.nodes(main);
        let records = nodes
            .iter()
            .find(|(key, _)| key == RECORDS_DB.as_bytes())
            .unwrap();
        healthy.root_at = records.1 + 8 + records.0.len() + 40;
        let root = number::<8>(&healthy.bytes, healthy.root_at);
        if root != u64::MAX {
            healthy.place(root as usize);
        }
        assert_eq!(healthy.places.len(), healthy.content.len());
        healthy
    }

    /// Key and offset of each node of a page.
    fn nodes(&self, page: usize) -> Vec<(Vec<u8>, usize)> {
        let start = page * PAGE;
        let count = (number::<2>(&self.bytes, start + 12) as usize - 16) / 2;
        (0..count)
            .map(|index| start + number::<2>(&self.bytes, start + 16 + 2 * index) as usize)
            .map(|at| {
                let size = number::<2>(&self.bytes, at + 6) as usize;
                (self.bytes[at + 8..at + 8 + size].to_vec(), at)
            })
            .collect()
    }

    fn place(&mut self, page: usize) {
        let leaf = number::<2>(&self.bytes, page * PAGE + 10) == 2;
        for (key, at) in self.nodes(page) {
            if !leaf {
                self.branches.insert(page);
                self.place(number::<6>(&self.bytes, at) as usize);
                continue;
            }
            let mut pages = BTreeSet::from([page]);
            if number::<2>(&self.bytes, at + 4) == 1 {
                let first = number::<8>(&self.bytes, at + 16) as usize;
                let length = number::<4>(&self.bytes, first * PAGE + 12) as usize;
                pages.extend(first..first + length);
            }
            self.places
                .insert(u64::from_be_bytes(key.try_into().unwrap()), pages);
        }
    }

    pub fn pages(&self) -> usize {
        self.bytes.len() / PAGE
    }
}
