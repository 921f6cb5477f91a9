//! A walk over one of LMDB's trees, page by page, that believes nothing.

use super::file::{DataFile, Fault, FaultKind, Seen};
use super::page::{
    DB_INTEGER_KEY, DB_SIZE, DEPTH_MAX, Db, F_BIGDATA, F_SUBDATA, KEY_MAX, NO_ROOT, Node,
    P_OVERFLOW, WORD, check_layout, page_flags, page_number, run_length, run_needed, word_at,
};

type Checked<T> = std::result::Result<T, Fault>;

/// Bytes of a page list that are read at once.
const LIST_CHUNK: usize = 16 * 1024;

/// Which tree is walked: what its keys and values must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// LMDB's list of free pages: keys are transaction numbers in the machine's
    /// byte order, from 1 to this snapshot's.
    Free {
        /// The snapshot's transaction number.
        txn: u64,
    },
    /// LMDB's list of the named databases.
    Main,
    /// Keys of 8 bytes, big-endian.
    Records,
    /// Keys are short names.
    Meta,
}

impl Kind {
    fn flags(self) -> u16 {
        match self {
            Kind::Free { .. } => DB_INTEGER_KEY,
            _ => 0,
        }
    }

    /// The key in the form whose byte order is the tree's order.
    fn ordered(self, key: &[u8]) -> Option<Vec<u8>> {
        match self {
            Kind::Free { txn } => {
                let id =
                    word_at(key, 0).filter(|id| key.len() == WORD && (1..=txn).contains(id))?;
                Some(id.to_be_bytes().to_vec())
            }
            Kind::Records => (key.len() == 8).then(|| key.to_vec()),
            Kind::Main | Kind::Meta => (1..=KEY_MAX).contains(&key.len()).then(|| key.to_vec()),
        }
    }

    fn takes_value(self, node: &Node<'_>) -> bool {
        match self {
            Kind::Main => node.flags == F_SUBDATA && node.data.len() == DB_SIZE,
            _ => node.flags & !F_BIGDATA == 0,
        }
    }
}

struct Branch {
    page: Vec<u8>,
    number: u64,
    count: usize,
    next: usize,
}

/// A leaf page that passed.
pub(super) struct Leaf<'a> {
    /// Its number.
    pub number: u64,
    /// How many nodes it has.
    pub count: usize,
    page: &'a [u8],
}

impl<'a> Leaf<'a> {
    /// Keeps the page, so that its nodes can be looked at between turns.
    pub(super) fn copy_to(&self, page: &mut Vec<u8>) {
        page.clear();
        page.extend_from_slice(self.page);
    }

    /// Its nodes in key order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (usize, Node<'a>)> + use<'a> {
        let page = self.page;
        (0..self.count)
            .filter_map(move |index| Node::parse(page, index, true).map(|node| (index, node)))
    }
}

/// Where the walk stands after one page.
pub(super) enum Turn<'a> {
    /// A branch page: nothing to look at.
    Branch,
    Leaf(Leaf<'a>),
    /// The whole tree was seen and its record's counts are right.
    End,
}

/// A walk over one tree in key order. Holds at most one page a level.
pub(super) struct Walk {
    kind: Kind,
    db: Db,
    /// What was counted, in the form of what the tree's record says.
    counted: Db,
    path: Vec<Branch>,
    started: bool,
    leaf: Vec<u8>,
    /// The last key or separator that was passed; the next key is not below it.
    bound: Vec<u8>,
    /// `bound` is a separator, which the next key may equal.
    bound_open: bool,
}

impl Walk {
    pub(super) fn new(kind: Kind, db: Db) -> Walk {
        Walk {
            kind,
            db,
            counted: Db {
                branch_pages: 0,
                leaf_pages: 0,
                overflow_pages: 0,
                entries: 0,
                ..db
            },
            path: Vec::new(),
            started: false,
            leaf: Vec::new(),
            bound: Vec::new(),
            bound_open: true,
        }
    }

    /// Which tree this is.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads the next page and what hangs on it.
    ///
    /// # Errors
    /// The first thing on that page that is wrong. A further call goes on behind
    /// it, so that a salvage sees the rest of the tree; the end then reports the
    /// counts as wrong, and the next call ends.
    pub(super) fn next(&mut self, file: &DataFile, seen: &mut Seen) -> Checked<Turn<'_>> {
        let number = if !self.started {
            self.started = true;
            self.start()?
        } else {
            self.descend()?
        };
        let Some(number) = number else {
            return self.end().map(|()| Turn::End);
        };
        seen.used(number)?;
        if self.path.len() + 1 < usize::from(self.db.depth) {
            self.enter(file, number)?;
            return Ok(Turn::Branch);
        }
        let mut page = std::mem::take(&mut self.leaf);
        let read = file.read(number, &mut page);
        self.leaf = page;
        read?;
        let count =
            check_layout(&self.leaf, number, true).map_err(|why| Fault::new(number, why))?;
        self.counted.leaf_pages += 1;
        self.keys(file, seen, number, count)?;
        Ok(Turn::Leaf(Leaf {
            number,
            count,
            page: &self.leaf,
        }))
    }

    /// The root, or none where the tree is empty.
    fn start(&self) -> Checked<Option<u64>> {
        let db = self.db;
        if db.flags != self.kind.flags() || db.depth > DEPTH_MAX {
            return Err(Fault::new(db.root, "is the root of a strange database"));
        }
        if (db.root == NO_ROOT) != (db.depth == 0) {
            return Err(Fault::new(db.root, "is the root of a tree without depth"));
        }
        Ok((db.depth > 0).then_some(db.root))
    }

    /// The next child, from the lowest branch that has one left.
    fn descend(&mut self) -> Checked<Option<u64>> {
        while let Some(branch) = self.path.last_mut() {
            if branch.next >= branch.count {
                self.path.pop();
                continue;
            }
            let index = branch.next;
            branch.next += 1;
            let node = Node::parse(&branch.page, index, false)
                .ok_or_else(|| Fault::new(branch.number, "has an entry that leaves the page"))?;
            // The first child's key means nothing: LMDB never looks at it.
            if index > 0 {
                let key = self.kind.ordered(node.key);
                let key = key.filter(|key| *key > self.bound);
                let wrong = || Fault::new(branch.number, "has a separator out of order");
                self.bound = key.ok_or_else(wrong)?;
                self.bound_open = true;
            }
            return Ok(Some(node.child));
        }
        Ok(None)
    }

    fn enter(&mut self, file: &DataFile, number: u64) -> Checked<()> {
        let mut page = Vec::new();
        file.read(number, &mut page)?;
        let count = check_layout(&page, number, false).map_err(|why| Fault::new(number, why))?;
        self.counted.branch_pages += 1;
        self.path.push(Branch {
            page,
            number,
            count,
            next: 0,
        });
        // Down to the first child; `descend` returns it at the next call.
        Ok(())
    }

    /// Checks the keys and values of the leaf page that was just read.
    fn keys(&mut self, file: &DataFile, seen: &mut Seen, number: u64, count: usize) -> Checked<()> {
        let wrong = |why| Fault::new(number, why);
        let mut bound = self.bound.clone();
        let mut open = self.bound_open;
        for index in 0..count {
            let node = Node::parse(&self.leaf, index, true)
                .ok_or_else(|| wrong("has an entry that leaves the page"))?;
            let key = self
                .kind
                .ordered(node.key)
                .ok_or_else(|| wrong("has an impossible key"))?;
            if key < bound || (key == bound && !open) {
                return Err(wrong("has keys out of order"));
            }
            (bound, open) = (key, false);
            if !self.kind.takes_value(&node) {
                return Err(wrong("has an entry of a strange kind"));
            }
            if let Some(first) = node.run() {
                self.counted.overflow_pages += run(file, seen, first, u64::from(node.data_size))?;
            }
            if let Kind::Free { .. } = self.kind {
                free_list(file, seen, number, &node)?;
            }
            self.counted.entries += 1;
        }
        (self.bound, self.bound_open) = (bound, open);
        Ok(())
    }

    fn end(&mut self) -> Checked<()> {
        if self.counted == self.db {
            return Ok(());
        }
        // So that a further call ends.
        self.db = self.counted;
        let why = "is the root of a tree with wrong counts";
        Err(Fault::new(self.db.root, why).of_kind(FaultKind::Counts))
    }
}

/// Checks the run of overflow pages from `first` on that holds a value of `size`
/// bytes; returns its length in pages. A run may be longer than the value needs:
/// LMDB does not shrink one that it overwrites.
fn run(file: &DataFile, seen: &mut Seen, first: u64, size: u64) -> Checked<u64> {
    seen.used(first)?;
    let header = file.header(first)?;
    if page_number(&header) != Some(first) || page_flags(&header) != Some(P_OVERFLOW) {
        return Err(Fault::new(first, "does not start a large value"));
    }
    let length = run_length(&header).unwrap_or(0);
    if length < run_needed(size, file.page_size) {
        return Err(Fault::new(first, "starts a run too short for its value"));
    }
    for number in 1..length {
        seen.used(first.saturating_add(number))?;
    }
    Ok(length)
}

/// Checks a list of free pages: its length, then that many page numbers, the
/// largest first (`MDB_IDL`). LMDB reserves lists before it knows how many it
/// needs, so one may be empty in a larger space; what follows is undefined then.
fn free_list(file: &DataFile, seen: &mut Seen, number: u64, node: &Node<'_>) -> Checked<()> {
    let wrong = |why| Fault::new(number, why);
    let size = node.data_size as usize;
    if size < WORD || !size.is_multiple_of(WORD) {
        return Err(wrong("has a list of free pages of an impossible size"));
    }
    let mut chunk = vec![0; size.min(LIST_CHUNK)];
    let (mut at, mut left, mut last) = (0, None, u64::MAX);
    while at < size && left != Some(0) {
        let length = (size - at).min(LIST_CHUNK);
        chunk.truncate(length);
        match node.run() {
            Some(first) => {
                let skip = super::page::PAGE_HEADER + at;
                file.read_within(first, skip as u64, &mut chunk)?;
            }
            None => chunk.copy_from_slice(
                node.data
                    .get(at..at + length)
                    .ok_or_else(|| wrong("has an entry that leaves the page"))?,
            ),
        }
        at += length;
        for word in chunk.chunks_exact(WORD).filter_map(|word| word_at(word, 0)) {
            match left {
                None if word == 0 || word == (size / WORD - 1) as u64 => left = Some(word),
                None => return Err(wrong("has a list of free pages of the wrong length")),
                Some(0) => break,
                Some(_) if word >= last => {
                    return Err(wrong("has a list of free pages out of order"));
                }
                Some(more) => {
                    seen.free(word)?;
                    (left, last) = (Some(more - 1), word);
                }
            }
        }
    }
    Ok(())
}
