//! LMDB's pages as they lie in a file that it may not be given (MDB_page and MDB_node in
//! LMDB's mdb.c). Nothing is taken for granted but their numbers' sizes.

use crate::store::pages::{HEADER, LEAF};

/// Flag of a node whose value lies on overflow pages.
const BIG_DATA: u16 = 0x01;
/// Bytes of a node before its key.
const NODE_HEADER: usize = 8;
/// Flag of a branch page.
const BRANCH: u16 = 0x01;
/// Bytes of a meta page that say anything (MDB_meta).
pub(super) const META_LENGTH: usize = HEADER + 136;
const META_MAGIC: u32 = 0xBEEF_C0DE;
/// Offsets in a meta page of the page size, a u32, the last page, and the commit.
const PAGE_SIZE: usize = HEADER + 24;
const LAST_PAGE: usize = HEADER + 120;
const COMMIT: usize = HEADER + 128;

/// Where a node's value is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the page, so many bytes from its begin.
    Here(usize),
    /// Behind the header of the page with this number.
    Overflow(u64),
}

/// A key, and where its value is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) key: &'a [u8],
    pub(super) length: usize,
    pub(super) place: Place,
}

/// The nodes of a page that may be a leaf: none for any other. A number is that of a
/// node on its page.
pub(super) fn nodes(page: &[u8]) -> impl Iterator<Item = (usize, Node<'_>)> {
    let is_leaf = word(page, 10).is_some_and(|flags| flags & LEAF != 0);
    let lower = word(page, 12).filter(|_| is_leaf).map_or(0, usize::from);
    let count = lower.min(page.len()).saturating_sub(HEADER) / 2;
    (0..count).filter_map(|number| {
        let at = usize::from(word(page, HEADER + 2 * number)?);
        let node = page.get(at..)?;
        let (low, high) = (word(node, 0)?, word(node, 2)?);
        let length = usize::from(high) << 16 | usize::from(low);
        let key_end = NODE_HEADER + usize::from(word(node, 6)?);
        let key = node.get(NODE_HEADER..key_end)?;
        let place = match word(node, 4)? {
            0 => Place::Here(at + key_end),
            BIG_DATA => Place::Overflow(long(node, key_end)?),
            _ => return None,
        };
        Some((number, Node { key, length, place }))
    })
}

/// True for the page `number` of a tree.
pub(super) fn is_of_tree(page: &[u8], number: u64) -> bool {
    let flags = word(page, 10);
    long(page, 0) == Some(number) && (flags == Some(LEAF) || flags == Some(BRANCH))
}

/// The size of pages, from the begin of the file; `None` where that is no meta page.
pub(super) fn page_size(begin: &[u8]) -> Option<usize> {
    let size = long(begin, PAGE_SIZE)? as u32 as usize;
    let is_meta = long(begin, HEADER)? as u32 == META_MAGIC;
    (is_meta && size.is_power_of_two() && (512..=65_536).contains(&size)).then_some(size)
}

/// What a meta page says.
pub(super) struct Meta {
    pub(super) last_page: u64,
    /// The number of the commit that wrote it.
    pub(super) commit: u64,
}

/// The meta page `number`, which every other commit writes.
pub(super) fn meta(page: &[u8], number: u64) -> Option<Meta> {
    let commit = long(page, COMMIT)?;
    let is_its = long(page, 0)? == number && (commit == 0 || commit % 2 == number);
    let last_page = long(page, LAST_PAGE)?;
    (is_its && page_size(page).is_some()).then_some(Meta { last_page, commit })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}
