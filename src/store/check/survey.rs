//! A salvage's first look: what the meta pages and the trees are still good for.

use super::file::{DataFile, FaultKind, Seen};
use super::page::{Meta, NO_ROOT, PAGE_SIZES};
use super::scan::Found as Entries;
use super::tree::{Kind, Turn, Walk};
use super::{Databases, Identity};

/// Any meta page that says something possible; the newer one of two. Sets no
/// page size. Which snapshot was the newest is not certain then.
pub(super) fn any_meta(file: &DataFile) -> Option<Meta> {
    let first = file.meta_at(0);
    let others = PAGE_SIZES.iter().map(|size| {
        let meta = file.meta_at(*size)?;
        (meta.page_size == *size).then_some(meta)
    });
    std::iter::once(first)
        .chain(others)
        .flatten()
        .filter(|meta| PAGE_SIZES.contains(&meta.page_size))
        .filter(|meta| meta.main.root != NO_ROOT)
        .max_by_key(|meta| meta.txn)
}

/// A first look at the snapshot that the meta pages name: how much of it is whole.
pub(super) struct Survey {
    pub meta: Meta,
    seen: Seen,
    walks: Vec<Walk>,
    pub databases: Databases,
    /// The list of databases and the tree of records have no fault.
    pub whole: bool,
    /// Which of the pages of records are sound.
    pub found: Entries,
}

impl Survey {
    pub(super) fn new(file: &DataFile, meta: Meta) -> Survey {
        Survey {
            meta,
            seen: Seen::new(file, meta.last_page),
            walks: vec![Walk::new(Kind::Main, meta.main)],
            databases: Databases::default(),
            whole: true,
            found: Entries::default(),
        }
    }

    /// Looks at one more page; whether there was one. Goes on behind faults.
    pub(super) fn page(
        &mut self,
        file: &DataFile,
        identity: &mut Identity,
        unreadable: &mut u64,
    ) -> bool {
        let Some(walk) = self.walks.last_mut() else {
            return false;
        };
        let kind = walk.kind();
        let matters = matches!(kind, Kind::Main | Kind::Records);
        let turn = match walk.next(file, &mut self.seen) {
            Ok(turn) => turn,
            Err(fault) => {
                *unreadable += u64::from(fault.kind != FaultKind::Counts);
                // A page with two uses: one of them is stale, and it may be ours.
                self.whole &= !matters && fault.kind != FaultKind::Shared;
                return true;
            }
        };
        match (kind, turn) {
            (Kind::Main, Turn::Leaf(leaf)) => self.whole &= self.databases.take(&leaf).is_ok(),
            (Kind::Meta, Turn::Leaf(leaf)) => identity.take(&leaf),
            (Kind::Records, Turn::Leaf(leaf)) => self.found.trust(leaf.number),
            (_, Turn::Branch | Turn::Leaf(_)) => {}
            (_, Turn::End) => {
                self.walks.pop();
                if kind == Kind::Main {
                    self.follow();
                }
            }
        }
        true
    }

    /// After the list of databases: their trees, the free list last.
    fn follow(&mut self) {
        let free = Kind::Free { txn: self.meta.txn };
        self.walks.push(Walk::new(free, self.meta.free));
        if let Some(db) = self.databases.meta {
            self.walks.push(Walk::new(Kind::Meta, db));
        }
        match self.databases.records {
            Some(db) => self.walks.push(Walk::new(Kind::Records, db)),
            None => self.whole &= self.meta.main.root == NO_ROOT,
        }
    }
}
