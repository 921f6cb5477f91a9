//! What is left of a damaged store: its records in key order.

use std::path::Path;

use super::Identity;
use super::file::{DataFile, Found, Seen};
use super::page::{Node, PAGE_SIZES};
use super::scan::{Entry, Found as Entries, load, scan_page};
use super::survey::{Survey, any_meta};
use super::tree::{Kind, Turn, Walk};
use crate::error::Result;
use crate::limits::SALVAGE_PAGES_PER_TURN;

/// What one turn of a [`Salvage`] brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The next record: keys ascend, each comes once.
    Record {
        /// The record's key.
        key: u64,
        /// The value as it was stored, CRC included, right or wrong.
        value: Vec<u8>,
    },
    /// Some pages were read; there is more to do.
    Working,
    /// Nothing more; every further turn says so too.
    Done,
}

/// Reads the records of a store that LMDB must not open, done in turns.
///
/// Where it is certain which snapshot is the newest, and its tree of records is
/// whole, exactly that tree's records come, whatever else is damaged. Otherwise
/// every page of the file is searched for records with a right CRC, because a bad
/// branch page hides good leaf pages; stale pages may bring back records that
/// were delivered and deleted (spec 4 prefers that to loss). Records with a wrong
/// CRC come only from leaf pages that a tree still leads to and that are sound.
///
/// The search holds 16 bytes a record; a key that lies on several pages counts once
/// whenever the list would have to grow.
pub struct Salvage {
    file: Option<DataFile>,
    stage: Stage,
    /// Page sizes to search the file with, while it has brought no record.
    page_sizes: Vec<usize>,
    identity: Identity,
    expected: Option<u64>,
    exact: bool,
    unreadable_pages: u64,
    unreadable_records: u64,
}

enum Stage {
    /// First look at the tree that the meta pages name.
    Survey(Box<Survey>),
    /// The search through all pages; the next one is `next`.
    Scan {
        next: u64,
        found: Box<Entries>,
    },
    /// A whole tree's records are handed out.
    Tree(Box<Tree>),
    /// The search's records are handed out.
    List {
        list: std::vec::IntoIter<Entry>,
        page: Vec<u8>,
        number: u64,
    },
    Done,
}

struct Tree {
    walk: Walk,
    seen: Seen,
    page: Vec<u8>,
    next: usize,
    count: usize,
}

impl Salvage {
    /// Begins with `data.mdb` in `lmdb_dir`. Where there is none, or something
    /// that cannot be one, there are no records.
    ///
    /// # Errors
    /// Those of [`Check::open`](super::Check::open). Errors of later reads are
    /// counted and passed over.
    pub fn open(lmdb_dir: &Path) -> Result<Salvage> {
        let mut salvage = Salvage {
            file: None,
            stage: Stage::Done,
            page_sizes: Vec::new(),
            identity: Identity::default(),
            expected: None,
            exact: false,
            unreadable_pages: 0,
            unreadable_records: 0,
        };
        if let Found::File(mut file) = DataFile::open(lmdb_dir)? {
            salvage.begin(&mut file);
            salvage.file = Some(file);
        }
        Ok(salvage)
    }

    fn begin(&mut self, file: &mut DataFile) {
        let certain = file.metas();
        self.exact = certain.is_ok();
        let meta = match certain {
            Ok(meta) => Some(meta),
            Err(_) => {
                self.unreadable_pages += 1;
                any_meta(file)
            }
        };
        let likely = meta.map(|meta| meta.page_size);
        let others = PAGE_SIZES
            .iter()
            .copied()
            .filter(|size| Some(*size) != likely);
        // The last one is tried first.
        self.page_sizes = others.rev().chain(likely).collect();
        self.stage = match meta {
            Some(meta) => {
                file.page_size = meta.page_size;
                Stage::Survey(Box::new(Survey::new(file, meta)))
            }
            None => Stage::Scan {
                next: 0,
                found: Box::default(),
            },
        };
        if likely.is_none()
            && let Some(size) = self.page_sizes.last()
        {
            file.page_size = *size;
        }
    }

    /// The store's id, where it could be read without doubt. Known as soon as the
    /// first record, or the end, has been returned.
    #[must_use]
    pub fn store_id(&self) -> Option<[u8; 16]> {
        self.identity.store_id
    }

    /// Pages that could not be read, or that the tree leads to and that are not
    /// what they should be. Pages behind a bad branch page are not among them.
    #[must_use]
    pub fn unreadable_pages(&self) -> u64 {
        self.unreadable_pages
    }

    /// Records that were found and whose value could not be read.
    #[must_use]
    pub fn unreadable_records(&self) -> u64 {
        self.unreadable_records
    }

    /// How many records the damaged store says it had, where that could be read.
    /// Known like [`Salvage::store_id`].
    #[must_use]
    pub fn expected_records(&self) -> Option<u64> {
        self.expected
    }

    /// Whether the records are exactly those of the newest snapshot; otherwise
    /// some may be lost and some may be back. Known like [`Salvage::store_id`].
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// The next turn: at most one record, at most
    /// [`SALVAGE_PAGES_PER_TURN`] pages and what hangs on them.
    pub fn step(&mut self) -> Step {
        let Some(file) = self.file.take() else {
            return Step::Done;
        };
        let mut file = file;
        let step = self.turn(&mut file);
        if step != Step::Done {
            self.file = Some(file);
        }
        step
    }

    fn turn(&mut self, file: &mut DataFile) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Survey(survey) => self.survey(file, survey),
            Stage::Scan { next, found } => self.scan(file, next, found),
            Stage::Tree(tree) => self.tree(file, tree),
            Stage::List { list, page, number } => self.list(file, list, page, number),
            Stage::Done => Step::Done,
        }
    }

    fn survey(&mut self, file: &DataFile, mut survey: Box<Survey>) -> Step {
        for _ in 0..SALVAGE_PAGES_PER_TURN {
            if !survey.page(file, &mut self.identity, &mut self.unreadable_pages) {
                self.expected = survey.databases.records.map(|db| db.entries);
                self.exact &= survey.whole;
                self.stage = after_survey(file, *survey, self.exact);
                return Step::Working;
            }
        }
        self.stage = Stage::Survey(survey);
        Step::Working
    }

    fn scan(&mut self, file: &mut DataFile, next: u64, mut found: Box<Entries>) -> Step {
        let end = file.pages().min(next + SALVAGE_PAGES_PER_TURN as u64);
        let mut page = Vec::new();
        for number in next..end {
            if file.read(number, &mut page).is_err() {
                self.unreadable_pages += 1;
                continue;
            }
            scan_page(file, number, &page, &mut found);
        }
        if end < file.pages() {
            self.stage = Stage::Scan { next: end, found };
            return Step::Working;
        }
        if found.is_empty() {
            self.page_sizes.pop();
            if let Some(size) = self.page_sizes.last() {
                file.page_size = *size;
                self.stage = Stage::Scan {
                    next: 0,
                    found: Box::default(),
                };
            }
            return Step::Working;
        }
        if self.identity.store_id.is_none() {
            self.identity.store_id = found.store_id();
        }
        self.stage = Stage::List {
            list: found.into_sorted().into_iter(),
            page: Vec::new(),
            number: u64::MAX,
        };
        Step::Working
    }

    fn list(
        &mut self,
        file: &DataFile,
        mut list: std::vec::IntoIter<Entry>,
        mut page: Vec<u8>,
        mut number: u64,
    ) -> Step {
        let Some(entry) = list.next() else {
            return Step::Done;
        };
        let (wanted, index) = entry.place();
        if wanted != number {
            number = if file.read(wanted, &mut page).is_ok() {
                wanted
            } else {
                u64::MAX
            };
        }
        let node = (number == wanted)
            .then(|| Node::parse(&page, index, true))
            .flatten();
        let step = match node.and_then(|node| load(file, &node)) {
            Some(value) => Step::Record {
                key: entry.key,
                value,
            },
            None => {
                self.unreadable_records += 1;
                Step::Working
            }
        };
        self.stage = Stage::List { list, page, number };
        step
    }

    fn tree(&mut self, file: &DataFile, mut tree: Box<Tree>) -> Step {
        if tree.next < tree.count {
            let node = Node::parse(&tree.page, tree.next, true);
            tree.next += 1;
            let record = node.and_then(|node| {
                let key = u64::from_be_bytes(node.key.try_into().ok()?);
                Some(Step::Record {
                    key,
                    value: load(file, &node)?,
                })
            });
            self.stage = Stage::Tree(tree);
            return record.unwrap_or_else(|| {
                self.unreadable_records += 1;
                Step::Working
            });
        }
        let end = match tree.walk.next(file, &mut tree.seen) {
            Ok(Turn::End) => true,
            Ok(Turn::Branch) => false,
            Ok(Turn::Leaf(leaf)) => {
                leaf.copy_to(&mut tree.page);
                (tree.next, tree.count) = (0, leaf.count);
                false
            }
            // It was whole a moment ago: the disk fails while it is read.
            Err(_) => {
                self.unreadable_pages += 1;
                self.exact = false;
                false
            }
        };
        if end {
            return Step::Done;
        }
        self.stage = Stage::Tree(tree);
        Step::Working
    }
}

/// A whole tree is handed out; else the file is searched.
fn after_survey(file: &DataFile, survey: Survey, exact: bool) -> Stage {
    match survey.databases.records {
        Some(db) if exact => Stage::Tree(Box::new(Tree {
            walk: Walk::new(Kind::Records, db),
            seen: Seen::new(file, survey.meta.last_page),
            page: Vec::new(),
            next: 0,
            count: 0,
        })),
        None if exact => Stage::Done,
        _ => Stage::Scan {
            next: 0,
            found: Box::new(survey.found),
        },
    }
}
