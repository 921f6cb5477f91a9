//! The data file as a row of pages, and the map of the pages already seen.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::page::{FIRST_PAGE, META_SIZE, Meta, PAGE_HEADER, PAGE_SIZES};
use crate::error::{Error, Result};

/// What is wrong with which page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    page: u64,
    why: String,
    /// What follows from it.
    pub kind: FaultKind,
}

/// What a salvage concludes from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// This page is bad.
    Page,
    /// The page has two uses: one of them is a stale one, although each may look
    /// right on its own.
    Shared,
    /// No page is bad by itself, but the tree is not the one its record describes.
    Counts,
}

impl Fault {
    pub(super) fn new(page: u64, why: impl Into<String>) -> Fault {
        Fault {
            page,
            why: why.into(),
            kind: FaultKind::Page,
        }
    }

    /// The same with another consequence.
    pub(super) fn of_kind(self, kind: FaultKind) -> Fault {
        Fault { kind, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} {}", self.page, self.why)
    }
}

/// What lies at the place of the data file.
pub(super) enum Found {
    /// No file, or an empty one.
    Nothing,
    /// Something that cannot be a data file: the reason.
    Unusable(String),
    /// A file of at least one byte.
    File(DataFile),
}

/// The data file, read at offsets, never mapped.
#[derive(Debug)]
pub(super) struct DataFile {
    file: File,
    bytes: u64,
    /// Bytes of a page.
    pub page_size: usize,
}

impl DataFile {
    /// Opens `data.mdb` in `lmdb_dir`, without following a link and without
    /// waiting where it is a pipe. The page size is the usual one until
    /// [`DataFile::metas`] or the caller sets another.
    ///
    /// # Errors
    /// [`Error::CannotCreate`] where the file may not be opened,
    /// [`Error::DiskFailed`] where the disk says so.
    pub(super) fn open(lmdb_dir: &Path) -> Result<Found> {
        let path = lmdb_dir.join("data.mdb");
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
            .and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let fail = |error: std::io::Error| {
            let why = format!("{}: {error}", path.display());
            match rustix::io::Errno::from_io_error(&error) {
                Some(rustix::io::Errno::LOOP) => Ok(Found::Unusable(why)),
                Some(rustix::io::Errno::IO) => Err(Error::DiskFailed(why)),
                _ => match error.kind() {
                    ErrorKind::NotFound => Ok(Found::Nothing),
                    ErrorKind::NotADirectory => Ok(Found::Unusable(why)),
                    _ => Err(Error::CannotCreate(why)),
                },
            }
        };
        match opened {
            Err(error) => fail(error),
            Ok((_, metadata)) if !metadata.is_file() => Ok(Found::Unusable(format!(
                "{} is not a regular file",
                path.display()
            ))),
            Ok((_, metadata)) if metadata.len() == 0 => Ok(Found::Nothing),
            Ok((file, metadata)) => Ok(Found::File(DataFile {
                file,
                bytes: metadata.len(),
                page_size: PAGE_SIZES[0],
            })),
        }
    }

    /// Whole pages in the file.
    pub(super) fn pages(&self) -> u64 {
        self.bytes / self.page_size as u64
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64, page: u64) -> std::result::Result<(), Fault> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|error| Fault::new(page, format!("cannot be read: {error}")))
    }

    /// Reads page `number` into `page`, whose length becomes the page size.
    pub(super) fn read(&self, number: u64, page: &mut Vec<u8>) -> std::result::Result<(), Fault> {
        page.resize(self.page_size, 0);
        self.read_within(number, 0, page)
    }

    /// Reads `bytes` from `skip` bytes after the start of page `number`, over as
    /// many pages as they take.
    pub(super) fn read_within(
        &self,
        number: u64,
        skip: u64,
        bytes: &mut [u8],
    ) -> std::result::Result<(), Fault> {
        let offset = number
            .checked_mul(self.page_size as u64)
            .and_then(|start| start.checked_add(skip))
            .ok_or_else(|| Fault::new(number, "is beyond any file"))?;
        self.read_at(bytes, offset, number)
    }

    /// Reads the header of page `number`.
    pub(super) fn header(&self, number: u64) -> std::result::Result<[u8; PAGE_HEADER], Fault> {
        let mut header = [0; PAGE_HEADER];
        self.read_within(number, 0, &mut header)?;
        Ok(header)
    }

    /// The meta page at `offset`, where LMDB would accept it.
    pub(super) fn meta_at(&self, offset: usize) -> Option<Meta> {
        let mut bytes = [0; META_SIZE];
        self.read_at(&mut bytes, offset as u64, 0).ok()?;
        Meta::parse(&bytes)
    }

    /// The snapshot that LMDB picks, and sets the page size.
    ///
    /// LMDB reads the second meta page where the first one's page size says it
    /// is, takes the larger transaction number, then looks that snapshot up by
    /// the number's parity. It refuses the file when either page lacks flag,
    /// magic or version; of the older page it uses nothing else (each commit
    /// overwrites the rest). Commits count by one, so the two numbers differ by
    /// one, or are both 0 in a file without a commit: anything else means that
    /// one of them is wrong, and that the newest snapshot may be the other.
    pub(super) fn metas(&mut self) -> std::result::Result<Meta, Fault> {
        let first = self
            .meta_at(0)
            .ok_or_else(|| Fault::new(0, "is not a meta page"))?;
        if !PAGE_SIZES.contains(&first.page_size) {
            return Err(Fault::new(0, "has an impossible page size"));
        }
        self.page_size = first.page_size;
        let second = self
            .meta_at(first.page_size)
            .ok_or_else(|| Fault::new(1, "is not a meta page"))?;
        let (index, picked, older) = if first.txn < second.txn {
            (1, second, first)
        } else {
            (0, first, second)
        };
        let unused = picked.txn == 0 && older.txn == 0;
        if !unused && (older.txn.checked_add(1) != Some(picked.txn) || picked.txn % 2 != index) {
            return Err(Fault::new(index, "has an impossible transaction number"));
        }
        if picked.page_size != self.page_size {
            return Err(Fault::new(index, "has an impossible page size"));
        }
        if picked.last_page < FIRST_PAGE - 1 {
            return Err(Fault::new(index, "has an impossible last page"));
        }
        Ok(picked)
    }
}

/// One bit a page: seen or not. Every page of a sound file is in use once or
/// free once, so a page that turns up again is damage.
#[derive(Debug)]
pub(super) struct Seen {
    bits: Vec<u64>,
    /// Pages the file holds whole.
    held: u64,
    last_page: u64,
    /// Free pages behind the file's end: how many, and their sum. LMDB never
    /// writes a page that a transaction allocates at the end and frees again, so
    /// the file may be shorter than the last page says if all of these are free.
    beyond: u64,
    beyond_sum: u64,
}

impl Seen {
    pub(super) fn new(file: &DataFile, last_page: u64) -> Seen {
        let held = file.pages();
        let bits = held.min(last_page.saturating_add(1)).div_ceil(64);
        Seen {
            bits: vec![0; usize::try_from(bits).unwrap_or(0)],
            held,
            last_page,
            beyond: 0,
            beyond_sum: 0,
        }
    }

    /// Notes that page `number` is in use.
    pub(super) fn used(&mut self, number: u64) -> std::result::Result<(), Fault> {
        self.in_range(number)?;
        if number >= self.held {
            return Err(Fault::new(number, "is in use and behind the file's end"));
        }
        self.mark(number)
    }

    /// Notes that page `number` is free.
    pub(super) fn free(&mut self, number: u64) -> std::result::Result<(), Fault> {
        self.in_range(number)?;
        if number < self.held {
            return self.mark(number);
        }
        self.beyond += 1;
        self.beyond_sum = self.beyond_sum.wrapping_add(number);
        Ok(())
    }

    fn in_range(&self, number: u64) -> std::result::Result<(), Fault> {
        if number < FIRST_PAGE || number > self.last_page {
            return Err(Fault::new(number, "is outside the store"));
        }
        Ok(())
    }

    fn mark(&mut self, number: u64) -> std::result::Result<(), Fault> {
        let word = usize::try_from(number / 64)
            .ok()
            .and_then(|index| self.bits.get_mut(index))
            .ok_or_else(|| Fault::new(number, "is outside the store"))?;
        let bit = 1 << (number % 64);
        if *word & bit != 0 {
            return Err(Fault::new(number, "has two uses").of_kind(FaultKind::Shared));
        }
        *word |= bit;
        Ok(())
    }

    /// Whether each page between the file's end and the last page is free.
    pub(super) fn tail(&self) -> std::result::Result<(), Fault> {
        let missing = self.last_page.saturating_add(1).saturating_sub(self.held);
        let behind = Fault::new(self.last_page, "is behind the file's end");
        if self.beyond != missing {
            return Err(behind);
        }
        // The sum of the numbers from `held` to `last_page`, modulo 2^64 like the
        // one that was kept. At most 2^61 entries fit a file, so u128 holds it.
        let ends = u128::from(self.held) + u128::from(self.last_page);
        let sum = u128::from(missing).saturating_mul(ends) / 2;
        if missing > 0 && sum & u128::from(u64::MAX) != u128::from(self.beyond_sum) {
            return Err(behind);
        }
        Ok(())
    }
}
