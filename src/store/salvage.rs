//! One linear scan over a damaged store's file (spec 4): every value whose checksum is
//! right, whatever the pages around it say. It never goes through LMDB.

mod bands;
mod page;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::limits::{SALVAGE_ID_PAGES, SALVAGE_PAGES, STORED_VALUE_MAX};
use crate::store::delivered::options;
use crate::store::pages::HEADER;
use crate::store::record::{self, STORE_ID_KEY, StoreId};
use bands::Bands;
use page::{META_LENGTH, Place};

/// A place in the file: a page, and a node on it.
type Position = (u64, usize);

/// A record that was found.
pub struct Found {
    pub key: u64,
    /// As it was stored.
    pub value: Vec<u8>,
    /// First byte and length of the pages that hold the value alone.
    apart: Option<(u64, u64)>,
}

/// What was found from one place to another.
pub struct Findings {
    pub records: Vec<Found>,
    from: Position,
    to: Position,
}

/// The scan of a file.
pub struct Scan {
    file: File,
    page_size: usize,
    pages: u64,
    next: Position,
    bands: Bands,
    unreadable: u64,
}

impl Scan {
    /// Begins at the file's begin.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path) -> io::Result<Scan> {
        let file = options().read(true).write(true).open(path)?;
        let mut begin = [0; META_LENGTH];
        let read = file.read_exact_at(&mut begin, 0);
        let page_size = read.ok().and_then(|()| page::page_size(&begin));
        let page_size = page_size.unwrap_or_else(rustix::param::page_size);
        let pages = file.metadata()?.len().div_ceil(page_size as u64);
        Ok(Scan {
            file,
            page_size,
            pages,
            next: (0, 0),
            bands: Bands::one(),
            unreadable: 0,
        })
    }

    /// When the file was written last, in unix nanoseconds.
    pub(super) fn written_at(&self) -> u64 {
        let written = self.file.metadata().and_then(|file| file.modified());
        let since = written.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default());
        since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.pages.saturating_mul(self.page_size as u64)
    }

    /// Begins anew, and goes by the order of keys from now on.
    pub fn restart_in_order(&mut self) {
        self.next = (0, 0);
        self.bands = Bands::to_be_found();
        self.unreadable = 0;
    }

    /// Goes back to where these were found.
    pub fn go_back(&mut self, findings: &Findings) {
        self.next = findings.from;
    }

    /// Pages that the disk does not give.
    pub(super) fn unreadable_pages(&self) -> u64 {
        self.unreadable
    }

    /// False where pages have been given back, now or by an earlier agent.
    pub(super) fn is_whole(&self) -> bool {
        let taken = self
            .file
            .metadata()
            .map(|file| (file.blocks() * 512, file.len()));
        taken.is_ok_and(|(taken, length)| taken >= length)
    }

    /// The next records whose keys are beyond `through`, of some `bytes`: one at least,
    /// or none where so many pages have none. `None` at the end.
    pub fn next(&mut self, through: u64, bytes: usize, records: usize) -> Option<Findings> {
        let mut findings = Findings {
            records: Vec::new(),
            from: self.next,
            to: self.next,
        };
        let mut size = 0;
        for _ in 0..SALVAGE_PAGES {
            if self.next.0 >= self.pages {
                break;
            }
            let (page, node) = self.next;
            self.next = (page + 1, 0);
            let Some(content) = self.page(page) else {
                // A failing disk takes its time: the rest of the agent runs in between.
                self.unreadable += 1;
                break;
            };
            if self.bands.is_finding() {
                let first = keys(&content).find(|key| key.1 > through);
                first.into_iter().for_each(|key| self.bands.see(key.1));
                continue;
            }
            for (number, key, length, place) in keys(&content).skip_while(|key| key.0 < node) {
                if size >= bytes || findings.records.len() >= records {
                    self.next = (page, number);
                    findings.to = self.next;
                    return Some(findings);
                }
                let is_sought = key > through.max(self.bands.done()) && key <= self.bands.end();
                if !is_sought || length > STORED_VALUE_MAX {
                    continue;
                }
                if let Some(found) = self.read(&content, key, length, &place) {
                    size += found.value.len();
                    findings.records.push(found);
                }
            }
        }
        findings.to = self.next;
        if findings.to == findings.from && self.bands.next() {
            self.next = (0, 0);
            return Some(findings);
        }
        (findings.to != findings.from).then_some(findings)
    }

    /// The store's id, from the begin of the file.
    pub fn find_id(&self) -> Option<StoreId> {
        let mut id = None;
        for page in 0..self.pages.min(SALVAGE_ID_PAGES) {
            let content = self.page(page)?;
            for (_, node) in page::nodes(&content) {
                if node.key == STORE_ID_KEY.as_bytes()
                    && let Place::Here(at) = node.place
                    && let Some(bytes) = content.get(at..at + node.length)
                {
                    id = bytes.try_into().ok().or(id);
                }
            }
        }
        id
    }

    /// Gives back the disk's blocks of what was found, which is stored elsewhere: the
    /// pages of the trees that were passed, and those of large values.
    ///
    /// # Errors
    /// Those of fallocate(2); elsewhere than on Linux there is none.
    pub fn punch(&self, findings: &Findings) -> io::Result<()> {
        if self.bands.is_finding() {
            return Ok(());
        }
        let size = self.page_size as u64;
        let mut holes: Vec<_> = findings
            .records
            .iter()
            .filter_map(|found| found.apart)
            .collect();
        for number in findings.from.0..findings.to.0 {
            let content = self.page(number).unwrap_or_default();
            // What a later band has stays.
            let is_through = keys(&content).all(|key| key.1 <= self.bands.end());
            if is_through && page::is_of_tree(&content, number) {
                match holes.last_mut() {
                    Some((at, length)) if *at + *length == number * size => *length += size,
                    _ => holes.push((number * size, size)),
                }
            }
        }
        for (at, length) in holes {
            punch_hole(&self.file, at, length)?;
        }
        Ok(())
    }

    fn read(&self, page: &[u8], key: u64, length: usize, place: &Place) -> Option<Found> {
        let (value, apart) = match *place {
            Place::Here(at) => (page.get(at..at + length)?.to_vec(), None),
            Place::Overflow(number) => {
                let at = number.checked_mul(self.page_size as u64)?;
                let mut value = vec![0; length];
                self.file
                    .read_exact_at(&mut value, at.checked_add(HEADER as u64)?)
                    .ok()?;
                let whole = (HEADER + length).next_multiple_of(self.page_size);
                (value, Some((at, whole as u64)))
            }
        };
        record::is_intact(key, &value).then_some(Found { key, value, apart })
    }

    /// A page's bytes, fewer at the file's end; `None` where the disk does not give them.
    fn page(&self, number: u64) -> Option<Vec<u8>> {
        let mut content = vec![0; self.page_size];
        let length = read_up_to(&self.file, &mut content, number * self.page_size as u64).ok()?;
        content.truncate(length);
        Some(content)
    }
}

#[cfg(target_os = "linux")]
fn punch_hole(file: &File, at: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, at, length)?)
}

/// Elsewhere no part of a file can be given back.
#[cfg(not(target_os = "linux"))]
fn punch_hole(_file: &File, _at: u64, _length: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The nodes that may be records.
fn keys(page: &[u8]) -> impl Iterator<Item = (usize, u64, usize, Place)> {
    page::nodes(page).filter_map(|(number, node)| {
        let key = u64::from_be_bytes(node.key.try_into().ok()?);
        Some((number, key, node.length, node.place))
    })
}

/// Where the pages of a store end, by the newer of its meta pages; `None` where the two are
/// not those of two commits, one after the other.
pub fn end_of(data: &File) -> Option<u64> {
    let mut begin = [0; META_LENGTH];
    data.read_exact_at(&mut begin, 0).ok()?;
    let page_size = page::page_size(&begin)?;
    let first = page::meta(&begin, 0)?;
    data.read_exact_at(&mut begin, page_size as u64).ok()?;
    let second = page::meta(&begin, 1)?;
    let newer = if first.commit > second.commit {
        &first
    } else {
        &second
    };
    let is_next = first.commit.abs_diff(second.commit) <= 1;
    is_next.then_some(
        newer
            .last_page
            .checked_add(1)?
            .checked_mul(page_size as u64)?,
    )
}

fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}
