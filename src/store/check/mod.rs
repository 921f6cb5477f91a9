//! EchoPost's own reader of a closed LMDB data file (spec 4, "Damage").
//!
//! LMDB trusts its pages: a damaged one can be a SIGSEGV or SIGBUS, or an abort
//! by one of its assertions. So after an unclean end the file is read here first,
//! page by page with `pread`: never mapped, nothing believed, each page at most
//! once, memory bounded by one bit a page. [`Check`] says whether LMDB can rely
//! on the file; [`Salvage`] reads what is left of one that it cannot rely on.
//!
//! What the check covers is what LMDB uses: both meta pages, the snapshot that it
//! picks, and every page reachable from there. Free pages may hold anything, and
//! so may the parts of a page that LMDB ignores. The CRC of each record is not
//! part of the check; replay looks at it (spec 4).

mod file;
mod page;
mod salvage;
mod scan;
mod survey;
mod tree;

use std::collections::VecDeque;
use std::path::Path;

use file::{DataFile, Fault, Found, Seen};
use page::{Db, Meta};
pub use salvage::{Salvage, Step};
use tree::{Kind, Leaf, Turn, Walk};

use crate::error::Result;
use crate::limits::STORE_FORMAT;

/// Name of the database that holds the records.
pub const RECORDS_DB: &str = "records";
/// Name of the database that holds the format version and the store id.
pub const META_DB: &str = "meta";
/// Key in [`META_DB`]: the store's format, a u32, little-endian.
pub const FORMAT_KEY: &str = "format";
/// Key in [`META_DB`]: the store id, 16 raw bytes.
pub const STORE_ID_KEY: &str = "store_id";

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// LMDB can rely on the file.
    Sound,
    /// LMDB must not open the file. The reason names the page, where there is one.
    Damaged(String),
}

/// What the meta database must say.
#[derive(Debug, Default)]
struct Identity {
    format: Option<Vec<u8>>,
    store_id: Option<[u8; 16]>,
}

impl Identity {
    fn take(&mut self, leaf: &Leaf<'_>) {
        for (_, node) in leaf.nodes().filter(|(_, node)| node.run().is_none()) {
            if node.key == FORMAT_KEY.as_bytes() {
                self.format = Some(node.data.to_vec());
            } else if node.key == STORE_ID_KEY.as_bytes() {
                self.store_id = node.data.try_into().ok();
            }
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        match self.format.as_deref().map(<[u8; 4]>::try_from) {
            Some(Ok(bytes)) if u32::from_le_bytes(bytes) == STORE_FORMAT => {}
            Some(Ok(bytes)) => {
                let found = u32::from_le_bytes(bytes);
                return Err(format!("format {found} instead of {STORE_FORMAT}"));
            }
            _ => return Err("format is missing".into()),
        }
        self.store_id
            .map(|_| ())
            .ok_or("store_id is missing".into())
    }
}

/// The named databases of a snapshot.
#[derive(Debug, Default)]
struct Databases {
    records: Option<Db>,
    meta: Option<Db>,
}

impl Databases {
    fn take(&mut self, leaf: &Leaf<'_>) -> std::result::Result<(), Fault> {
        for (_, node) in leaf.nodes() {
            let place = match node.key {
                key if key == RECORDS_DB.as_bytes() => &mut self.records,
                key if key == META_DB.as_bytes() => &mut self.meta,
                _ => return Err(Fault::new(leaf.number, "names a strange database")),
            };
            *place = Db::parse(node.data);
        }
        Ok(())
    }
}

struct Progress {
    file: DataFile,
    seen: Seen,
    walks: VecDeque<Walk>,
    databases: Databases,
    identity: Identity,
}

enum State {
    Running(Box<Progress>),
    Done(Verdict),
}

/// A check of a closed store, done in turns.
///
/// What LMDB relies on and what therefore is checked:
/// - both meta pages, and that it is certain which one is the newest;
/// - each tree: page numbers, kinds, depth, bounds, entries without overlap, keys
///   strictly ascending across the tree, overflow runs, the counts in its record;
/// - the free list: transaction numbers, lengths, order, range;
/// - that no page has two uses, free or not, and that the file holds every page
///   in use (it may end before the last page where the rest is free);
/// - the two databases and the format.
///
/// A store without any database is sound: it was created and never written. One
/// whose meta database has no entries is sound while it has no records.
pub struct Check {
    state: State,
}

impl Check {
    /// Begins a check of `data.mdb` in `lmdb_dir`. `Ok(None)`: there is no such
    /// file, or an empty one: nothing to check. What cannot be a data file at all
    /// (a folder, a link) is a check that ends as [`Verdict::Damaged`].
    ///
    /// # Errors
    /// [`CannotCreate`](crate::error::Error::CannotCreate) where the file may not
    /// be opened, [`DiskFailed`](crate::error::Error::DiskFailed) where the disk
    /// says so. Errors of later reads are a verdict: LMDB could not read there
    /// either.
    pub fn open(lmdb_dir: &Path) -> Result<Option<Check>> {
        let state = match DataFile::open(lmdb_dir)? {
            Found::Nothing => return Ok(None),
            Found::Unusable(why) => State::Done(Verdict::Damaged(why)),
            Found::File(mut file) => match file.metas() {
                Err(fault) => State::Done(Verdict::Damaged(fault.to_string())),
                Ok(meta) => State::Running(Box::new(Progress::new(file, &meta))),
            },
        };
        Ok(Some(Check { state }))
    }

    /// Reads up to `pages` pages of the trees, then returns, so that the caller
    /// can let others run. `None`: not done yet. After the verdict every call
    /// repeats it.
    pub fn step(&mut self, pages: usize) -> Option<Verdict> {
        for _ in 0..pages {
            match &mut self.state {
                State::Done(verdict) => return Some(verdict.clone()),
                State::Running(progress) => {
                    if let Some(verdict) = progress.step() {
                        self.state = State::Done(verdict);
                    }
                }
            }
        }
        match &self.state {
            State::Done(verdict) => Some(verdict.clone()),
            State::Running(_) => None,
        }
    }
}

impl Progress {
    fn new(file: DataFile, meta: &Meta) -> Progress {
        let free = Kind::Free { txn: meta.txn };
        Progress {
            seen: Seen::new(&file, meta.last_page),
            file,
            walks: VecDeque::from([Walk::new(free, meta.free), Walk::new(Kind::Main, meta.main)]),
            databases: Databases::default(),
            identity: Identity::default(),
        }
    }

    /// One page; the verdict where it decides.
    fn step(&mut self) -> Option<Verdict> {
        let step = match self.page() {
            Ok(true) => return None,
            Ok(false) => self.finish(),
            Err(fault) => Err(fault.to_string()),
        };
        Some(step.map_or_else(Verdict::Damaged, |()| Verdict::Sound))
    }

    /// Whether there was one more page to read.
    fn page(&mut self) -> std::result::Result<bool, Fault> {
        let Some(walk) = self.walks.front_mut() else {
            return Ok(false);
        };
        let kind = walk.kind();
        match (kind, walk.next(&self.file, &mut self.seen)?) {
            (Kind::Main, Turn::Leaf(leaf)) => self.databases.take(&leaf)?,
            (Kind::Meta, Turn::Leaf(leaf)) => self.identity.take(&leaf),
            (_, Turn::Branch | Turn::Leaf(_)) => {}
            (_, Turn::End) => {
                self.walks.pop_front();
                if kind == Kind::Main {
                    let records = self.databases.records.map(|db| (Kind::Records, db));
                    let meta = self.databases.meta.map(|db| (Kind::Meta, db));
                    let found = records.into_iter().chain(meta);
                    self.walks
                        .extend(found.map(|(kind, db)| Walk::new(kind, db)));
                }
            }
        }
        Ok(true)
    }

    fn finish(&self) -> std::result::Result<(), String> {
        self.seen.tail().map_err(|fault| fault.to_string())?;
        match (self.databases.records, self.databases.meta) {
            (None, None) => Ok(()),
            (Some(records), Some(meta)) if records.entries == 0 && meta.entries == 0 => Ok(()),
            (Some(_), Some(_)) => self.identity.check(),
            (None, _) => Err(format!("the database \"{RECORDS_DB}\" is missing")),
            (_, None) => Err(format!("the database \"{META_DB}\" is missing")),
        }
    }
}
