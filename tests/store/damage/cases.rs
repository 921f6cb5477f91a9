//! Ways to damage a store.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::damage::store::Left;
use crate::support::pages::{Layout, WAYS, Way};
use crate::support::rng::Rng;

/// What lies where `data.mdb` should be.
pub enum Data {
    Bytes(Vec<u8>),
    Folder,
    Link,
}

/// One damage to one store.
pub struct Case<'a> {
    pub left: &'a Left,
    pub what: String,
    pub data: Data,
    /// Pages that are not what they were.
    pub touched: BTreeSet<usize>,
}

impl Case<'_> {
    /// Puts the damaged store into the base folder `base`.
    pub fn build(&self, base: &Path) {
        let store = base.join("lmdb");
        fs::create_dir_all(&store).unwrap();
        let path = store.join("data.mdb");
        match &self.data {
            Data::Bytes(bytes) => fs::write(path, bytes).unwrap(),
            Data::Folder => fs::create_dir(path).unwrap(),
            Data::Link => std::os::unix::fs::symlink("/etc/passwd", path).unwrap(),
        }
        if let Some(delivered) = &self.left.delivered {
            fs::write(store.join("delivered"), delivered).unwrap();
        }
        if self.left.trusted {
            trust(&store);
        }
    }

    /// Keys of the records that lie on good pages.
    pub fn readable(&self) -> impl Iterator<Item = u64> {
        let good = |pages: &BTreeSet<usize>| pages.is_disjoint(&self.touched);
        let records = self.left.layout.records.iter();
        let records = records.filter(move |(_, placed)| good(&placed.pages));
        records.map(|(key, _)| *key)
    }

    /// Whether the store's id can be known.
    pub fn has_id(&self) -> bool {
        self.left.delivered.is_some() || !self.touched.contains(&self.left.layout.identity)
    }
}

/// Says of a store what an agent of this boot would have.
pub fn trust(store: &Path) {
    use std::os::unix::fs::MetadataExt;
    let data = fs::symlink_metadata(store.join("data.mdb")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let trusted = format!("{} {}:{}\n", boot.trim(), data.dev(), data.ino());
    fs::write(store.join("trusted"), trusted).unwrap();
}

/// Damages that are always tried.
pub fn certain<'a>(left: &'a Left, rng: &mut Rng) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    let size = left.layout.pages;
    let pages = size.count(&left.data);
    let mut add = |what: &str, data: Data, touched: BTreeSet<usize>| {
        let what = format!("{}: {what}", left.name);
        cases.push(Case {
            left,
            what,
            data,
            touched,
        });
    };
    let all: BTreeSet<usize> = (0..pages).collect();
    let foreign = b"SQLite format 3\0".repeat(1000);
    add(
        "nothing done",
        Data::Bytes(left.data.clone()),
        BTreeSet::new(),
    );
    add("foreign file", Data::Bytes(foreign), all.clone());
    add(
        "a line of text",
        Data::Bytes(b"hello\n".to_vec()),
        all.clone(),
    );
    add("empty file", Data::Bytes(Vec::new()), all.clone());
    add("a folder", Data::Folder, all.clone());
    add("a link", Data::Link, all);
    for format in [0u32, 2, u32::MAX] {
        let mut bytes = left.data.clone();
        bytes[left.layout.format_at..][..4].copy_from_slice(&format.to_le_bytes());
        add(
            &format!("format {format}"),
            Data::Bytes(bytes),
            BTreeSet::new(),
        );
    }
    for fill in [0, 0xFF] {
        let mut bytes = left.data.clone();
        bytes[..2 * size.0].fill(fill);
        add(
            &format!("both meta pages {fill}"),
            Data::Bytes(bytes),
            BTreeSet::from([0, 1]),
        );
    }
    for (kind, page) in left.layout.kinds() {
        for way in WAYS {
            cases.push(one_page(left, page, way, kind, rng));
        }
    }
    cases
}

/// Every truncation at and within a page, and each way to spoil a page.
pub fn possible<'a>(left: &'a Left, rng: &mut Rng) -> Vec<Case<'a>> {
    let mut cases = Vec::new();
    let size = left.layout.pages;
    let pages = size.count(&left.data);
    for page in 0..pages {
        for within in [0, 1 + rng.index(size.0 - 1)] {
            let length = page * size.0 + within;
            cases.push(Case {
                left,
                what: format!("{}: cut at {length}, page {page}", left.name),
                data: Data::Bytes(left.data[..length].to_vec()),
                touched: (page..pages).collect(),
            });
        }
        for way in WAYS {
            cases.push(one_page(left, page, way, "page", rng));
        }
    }
    cases
}

fn one_page<'a>(left: &'a Left, page: usize, way: Way, kind: &str, rng: &mut Rng) -> Case<'a> {
    let mut bytes = left.data.clone();
    left.layout.pages.spoil(&mut bytes, page, way, rng);
    // What is as it was is not damaged.
    let touched = (bytes != left.data).then_some(page);
    Case {
        left,
        what: format!("{}: {kind} {page} {way:?}", left.name),
        data: Data::Bytes(bytes),
        touched: touched.into_iter().collect(),
    }
}

/// A byte within the JSON of record `key` is another one.
pub fn one_byte<'a>(left: &'a Left, key: u64) -> Case<'a> {
    let Layout { records, .. } = &left.layout;
    let placed = &records[&key];
    let mut bytes = left.data.clone();
    // Field 1 is json_data: tag and length take at most six bytes.
    let at = placed.at + 12;
    bytes[at] ^= 1;
    Case {
        left,
        what: format!("{}: byte {at} of record {key}", left.name),
        data: Data::Bytes(bytes),
        touched: placed.pages.clone(),
    }
}
