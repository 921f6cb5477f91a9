//! The layout of LMDB's pages, read without trust: every access is bounds-checked
//! and says `None` where the bytes cannot be what LMDB writes.
//!
//! The layout is that of LMDB "mdb.master" with data version 1 (the source that
//! heed builds), which is the layout of LMDB 0.9 too: page headers hold no
//! transaction number. All integers are in the byte order of the machine and all
//! page numbers as wide as its words, because LMDB writes its C structs as they
//! are; a file from another kind of machine has no valid meta page here.

/// Bytes of a page number, a size and a transaction number: C's `size_t`.
pub(super) const WORD: usize = size_of::<usize>();
/// Bytes of the header of every page (`PAGEHDRSZ`): number, padding, flags, and
/// the bounds of the free space or the length of an overflow run.
pub(super) const PAGE_HEADER: usize = WORD + 8;
/// Bytes of the header of a node (`NODESIZE`): data size or child, flags, key size.
pub(super) const NODE_HEADER: usize = 8;
/// Bytes of the record of one database (`MDB_db`).
pub(super) const DB_SIZE: usize = 8 + 5 * WORD;
/// Bytes that LMDB reads of a meta page: its header and `MDB_meta`.
pub(super) const META_SIZE: usize = PAGE_HEADER + 8 + 4 * WORD + 2 * DB_SIZE;
/// The first page that is no meta page (`NUM_METAS`).
pub(super) const FIRST_PAGE: u64 = 2;
/// The root of an empty tree (`P_INVALID`).
pub(super) const NO_ROOT: u64 = usize::MAX as u64;
/// Levels of the deepest tree a cursor can hold (`CURSOR_STACK`).
pub(super) const DEPTH_MAX: u16 = 32;
/// Bytes of the longest key (`MDB_MAXKEYSIZE`).
pub(super) const KEY_MAX: usize = 511;
/// Page sizes that LMDB can use, the usual one first. 64 KiB is not among them:
/// this LMDB's 16-bit bounds end at 32 KiB (`MAX_PAGESIZE`).
pub(super) const PAGE_SIZES: [usize; 6] = [4096, 16384, 8192, 32768, 2048, 1024];

/// Page flags of mdb.c. A page on disk has exactly one of them: `P_DIRTY` there
/// would make LMDB write into its read-only map.
pub(super) const P_BRANCH: u16 = 0x01;
/// A page with records.
pub(super) const P_LEAF: u16 = 0x02;
/// The first page of a run that holds one large value.
pub(super) const P_OVERFLOW: u16 = 0x04;
const P_META: u16 = 0x08;
/// The node's data is the number of the first page of an overflow run.
pub(super) const F_BIGDATA: u16 = 0x01;
/// The node's data is the record of a named database.
pub(super) const F_SUBDATA: u16 = 0x02;
/// The only flag that the free list's database has (`MDB_INTEGERKEY`).
pub(super) const DB_INTEGER_KEY: u16 = 0x08;

const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The 16-bit number at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

/// The 32-bit number at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

/// The machine word at `at`.
pub(super) fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes_at(bytes, at).map(|word| usize::from_ne_bytes(word) as u64)
}

/// The number that a page says it has.
pub(super) fn page_number(page: &[u8]) -> Option<u64> {
    word_at(page, 0)
}

/// The page's flags.
pub(super) fn page_flags(page: &[u8]) -> Option<u16> {
    u16_at(page, WORD + 2)
}

/// The length of an overflow run, in pages, from the header of its first page.
pub(super) fn run_length(page: &[u8]) -> Option<u64> {
    u32_at(page, WORD + 4).map(u64::from)
}

/// Pages of the run that a value of `size` bytes needs (`OVPAGES`).
pub(super) fn run_needed(size: u64, page_size: usize) -> u64 {
    (PAGE_HEADER as u64 - 1 + size) / page_size as u64 + 1
}

/// The record of one database: where its tree is and how large it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Db {
    pub flags: u16,
    pub depth: u16,
    pub branch_pages: u64,
    pub leaf_pages: u64,
    pub overflow_pages: u64,
    pub entries: u64,
    pub root: u64,
}

impl Db {
    pub(super) fn parse(bytes: &[u8]) -> Option<Db> {
        let word = |index: usize| word_at(bytes, 8 + index * WORD);
        Some(Db {
            flags: u16_at(bytes, 4)?,
            depth: u16_at(bytes, 6)?,
            branch_pages: word(0)?,
            leaf_pages: word(1)?,
            overflow_pages: word(2)?,
            entries: word(3)?,
            root: word(4)?,
        })
    }
}

/// What a meta page says: the start of one snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub page_size: usize,
    pub free: Db,
    pub main: Db,
    pub last_page: u64,
    pub txn: u64,
}

impl Meta {
    /// What LMDB itself asks of a meta page when it opens the file, no more
    /// (`mdb_env_read_header`): the flag, the magic number, the version.
    pub(super) fn parse(page: &[u8]) -> Option<Meta> {
        if page_flags(page)? & P_META == 0
            || u32_at(page, PAGE_HEADER)? != MAGIC
            || u32_at(page, PAGE_HEADER + 4)? != DATA_VERSION
        {
            return None;
        }
        // Then the address and the size of the map, which LMDB does not use
        // when the caller sets a size.
        let free = PAGE_HEADER + 8 + 2 * WORD;
        let main = free + DB_SIZE;
        let last = main + DB_SIZE;
        Some(Meta {
            // The page size lies in the field that the free list has no use for.
            page_size: u32_at(page, free)? as usize,
            free: Db::parse(page.get(free..)?)?,
            main: Db::parse(page.get(main..)?)?,
            last_page: word_at(page, last)?,
            txn: word_at(page, last + WORD)?,
        })
    }
}

/// One entry of a branch or leaf page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    /// Where it starts in the page.
    pub start: usize,
    /// Bytes it occupies; even.
    pub footprint: usize,
    /// Node flags; on a branch page part of the child's number.
    pub flags: u16,
    pub key: &'a [u8],
    /// Leaf: the value, or the page number of its overflow run.
    pub data: &'a [u8],
    /// Leaf: bytes of the value, wherever it lies.
    pub data_size: u32,
    /// Branch: the child's page number.
    pub child: u64,
}

impl<'a> Node<'a> {
    /// Node `index` of `page`; `None` where it does not lie inside the page.
    pub(super) fn parse(page: &'a [u8], index: usize, leaf: bool) -> Option<Node<'a>> {
        let start = usize::from(u16_at(
            page,
            PAGE_HEADER.checked_add(index.checked_mul(2)?)?,
        )?);
        let low = u32_at(page, start)?;
        let flags = u16_at(page, start + 4)?;
        let key_start = start + NODE_HEADER;
        let key_end = key_start + usize::from(u16_at(page, start + 6)?);
        let data_length = match (leaf, flags & F_BIGDATA != 0) {
            (false, _) => 0,
            (true, true) => WORD,
            (true, false) => usize::try_from(low).ok()?,
        };
        let data_end = key_end.checked_add(data_length)?;
        let high = if WORD > 4 { u64::from(flags) << 32 } else { 0 };
        Some(Node {
            start,
            footprint: (data_end - start).next_multiple_of(2),
            flags,
            key: page.get(key_start..key_end)?,
            data: page.get(key_end..data_end)?,
            data_size: low,
            child: u64::from(low) | high,
        })
    }

    /// Leaf: the first page of the overflow run, where the value lies in one.
    pub(super) fn run(&self) -> Option<u64> {
        if self.flags & F_BIGDATA == 0 {
            return None;
        }
        word_at(self.data, 0)
    }
}

/// How many nodes the page's lower bound stands for, plausible or not.
pub(super) fn node_count(page: &[u8]) -> Option<usize> {
    let lower = usize::from(u16_at(page, WORD + 4)?);
    let pointers = lower.checked_sub(PAGE_HEADER)?;
    (pointers.is_multiple_of(2) && lower <= page.len()).then_some(pointers / 2)
}

/// Checks a branch or leaf page on its own: header, bounds, and that its nodes
/// fill the space from the upper bound to the end without gap or overlap, which
/// LMDB's own moves within a page rely on. Returns the number of nodes.
///
/// # Errors
/// The reason, without the page number.
pub(super) fn check_layout(page: &[u8], number: u64, leaf: bool) -> Result<usize, &'static str> {
    if page_number(page) != Some(number) {
        return Err("carries the number of another page");
    }
    if page_flags(page) != Some(if leaf { P_LEAF } else { P_BRANCH }) {
        return Err("is of the wrong kind for its depth");
    }
    let count = node_count(page).ok_or("has an impossible lower bound")?;
    let upper = usize::from(u16_at(page, WORD + 6).ok_or("is cut short")?);
    if upper > page.len() || PAGE_HEADER + 2 * count > upper {
        return Err("has impossible bounds");
    }
    // A branch with one child has no use, and LMDB asserts that there is none.
    if count < if leaf { 1 } else { 2 } {
        return Err("has too few entries");
    }
    let inline_max = (((page.len() - PAGE_HEADER) / 2) & !1) - 2; // me_nodemax
    let mut extents = Vec::with_capacity(count);
    for index in 0..count {
        let node = Node::parse(page, index, leaf).ok_or("has an entry that leaves the page")?;
        if leaf && node.run().is_none() && node.footprint > inline_max {
            return Err("holds a value that belongs on an overflow page");
        }
        extents.push((node.start, node.footprint));
    }
    extents.sort_unstable();
    let mut expected = upper;
    for (start, footprint) in extents {
        if start != expected {
            return Err("has entries that overlap or leave gaps");
        }
        expected = start + footprint;
    }
    // An odd page size does not exist, so the last node ends with the page.
    if expected != page.len() {
        return Err("has entries that overlap or leave gaps");
    }
    Ok(count)
}
