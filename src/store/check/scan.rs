//! The search through single pages: records that prove themselves by their CRC.

use super::STORE_ID_KEY;
use super::file::DataFile;
use super::page::{Node, PAGE_HEADER, check_layout, page_number};
use crate::limits::STORED_VALUE_MAX;

/// The tag byte of the CRC, the last field of every value: field 15, fixed32.
const CRC_TAG: u8 = 15 << 3 | 5;
/// The CRC field as a whole.
const CRC_FIELD: usize = 5;
/// Bytes of a value that are read at once to check its CRC.
const VALUE_CHUNK: usize = 16 * 1024;
/// Bits of a node's index in its page; the rest is the page number.
const INDEX_BITS: u32 = 12;
/// Set where the CRC is wrong, so that a right one of the same key sorts first.
const WRONG: u64 = 1 << 63;
/// Entries up to which the list simply grows: 1 MiB.
const LIST_FREE: usize = 64 * 1024;

/// Where one record lies. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub key: u64,
    place: u64,
}

impl Entry {
    /// Page number and index of the node.
    pub(super) fn place(self) -> (u64, usize) {
        let index = self.place & ((1 << INDEX_BITS) - 1);
        ((self.place & !WRONG) >> INDEX_BITS, index as usize)
    }
}

/// What the search has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    entries: Vec<Entry>,
    /// One bit a page: a sound leaf page of a tree, whose records count also with
    /// a wrong CRC.
    trusted: Vec<u64>,
    store_ids: Vec<[u8; 16]>,
}

impl Found {
    /// Notes that leaf page `number` is sound and in use.
    pub(super) fn trust(&mut self, number: u64) {
        let Ok(word) = usize::try_from(number / 64) else {
            return;
        };
        if self.trusted.len() <= word {
            self.trusted.resize(word + 1, 0);
        }
        if let Some(bits) = self.trusted.get_mut(word) {
            *bits |= 1 << (number % 64);
        }
    }

    fn trusts(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok();
        let bits = word.and_then(|word| self.trusted.get(word)).copied();
        bits.unwrap_or(0) & (1 << (number % 64)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The store id, where all that were found are one and the same.
    pub(super) fn store_id(&self) -> Option<[u8; 16]> {
        match self.store_ids.as_slice() {
            [id] => Some(*id),
            _ => None,
        }
    }

    /// The entries in key order, one a key.
    pub(super) fn into_sorted(mut self) -> Vec<Entry> {
        self.compact();
        self.entries
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == self.entries.capacity() && self.entries.len() >= LIST_FREE {
            self.compact();
            // Half of it again, so that the sort does not come with every entry.
            self.entries.reserve_exact(self.entries.len() / 2 + 1);
        }
        self.entries.push(entry);
    }

    fn compact(&mut self) {
        self.entries.sort_unstable();
        self.entries.dedup_by_key(|entry| entry.key);
    }
}

/// Notes the records on one page. Where the page is sound only its live entries
/// count; else each place that its pointers could name is tried, because a bad
/// header does not make the entries bad.
pub(super) fn scan_page(file: &DataFile, number: u64, page: &[u8], found: &mut Found) {
    let whole = page_number(page).and_then(|own| check_layout(page, own, true).ok());
    let trusted = whole.is_some() && found.trusts(number);
    let mut index = 0;
    // The pointers end where the lowest node starts.
    let mut end = page.len();
    while whole.map_or(PAGE_HEADER + 2 * index + 2 <= end, |count| index < count)
        && index < 1 << INDEX_BITS
    {
        if let Some(node) = Node::parse(page, index, true) {
            if let Ok(key) = <[u8; 8]>::try_from(node.key) {
                let right = crc_is_right(file, &node);
                if right {
                    end = end.min(node.start);
                }
                if right || trusted {
                    found.push(Entry {
                        key: u64::from_be_bytes(key),
                        place: number << INDEX_BITS | index as u64 | if right { 0 } else { WRONG },
                    });
                }
            }
            if whole.is_some() && node.key == STORE_ID_KEY.as_bytes() {
                note_store_id(&node, found);
            }
        }
        index += 1;
    }
}

fn note_store_id(node: &Node<'_>, found: &mut Found) {
    if let Ok(id) = <[u8; 16]>::try_from(node.data)
        && !found.store_ids.contains(&id)
        && found.store_ids.len() < 2
    {
        found.store_ids.push(id);
    }
}

/// The node's value, from the page or from its overflow run. `None` where it
/// cannot be read, or is larger than any that EchoPost stores.
pub(super) fn load(file: &DataFile, node: &Node<'_>) -> Option<Vec<u8>> {
    let Some(first) = node.run() else {
        return Some(node.data.to_vec());
    };
    let size = node.data_size as usize;
    if size > STORED_VALUE_MAX || !fits(file, first, size) {
        return None;
    }
    let mut value = vec![0; size];
    file.read_within(first, PAGE_HEADER as u64, &mut value)
        .ok()?;
    Some(value)
}

/// Whether `size` bytes from page `first` on lie inside the file, so that no
/// memory is taken for a value that cannot be there.
fn fits(file: &DataFile, first: u64, size: usize) -> bool {
    let pages = super::page::run_needed(size as u64, file.page_size);
    first
        .checked_add(pages)
        .is_some_and(|end| end <= file.pages())
}

/// Whether the value's last field is the CRC-32 of the key and all before it.
fn crc_is_right(file: &DataFile, node: &Node<'_>) -> bool {
    let Some(first) = node.run() else {
        return node.data.len().checked_sub(CRC_FIELD).is_some_and(|at| {
            let (body, field) = node.data.split_at(at);
            let mut crc = crc32fast::Hasher::new();
            crc.update(node.key);
            crc.update(body);
            is_crc(field, crc)
        });
    };
    let size = node.data_size as usize;
    if !(CRC_FIELD..=STORED_VALUE_MAX).contains(&size) || !fits(file, first, size) {
        return false;
    }
    run_crc(file, first, size, node.key).unwrap_or(false)
}

fn run_crc(file: &DataFile, first: u64, size: usize, key: &[u8]) -> Option<bool> {
    let body = size.checked_sub(CRC_FIELD)?;
    let mut field = [0; CRC_FIELD];
    let read = |at: usize, bytes: &mut [u8]| {
        let skip = (PAGE_HEADER + at) as u64;
        file.read_within(first, skip, bytes).ok()
    };
    // The tag first: it tells what is no record without reading all of it.
    read(body, &mut field)?;
    if field.first() != Some(&CRC_TAG) {
        return Some(false);
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    let mut chunk = vec![0; body.min(VALUE_CHUNK)];
    let mut at = 0;
    while at < body {
        chunk.truncate(body - at);
        read(at, &mut chunk)?;
        crc.update(&chunk);
        at += chunk.len();
    }
    Some(is_crc(&field, crc))
}

fn is_crc(field: &[u8], crc: crc32fast::Hasher) -> bool {
    field.split_first() == Some((&CRC_TAG, &crc.finalize().to_le_bytes()[..]))
}
