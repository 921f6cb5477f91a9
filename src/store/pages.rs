//! LMDB's mapped pages (MDB_page in LMDB's mdb.c): giving them back to the kernel
//! (spec 4), so that what the agent has read and written does not count as its memory,
//! and looking at their headers before what they say is trusted.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::AtomicUsize;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Bytes before a page's content.
pub(super) const HEADER: usize = 16;
/// Flag of a page of records.
pub(super) const LEAF: u16 = 0x02;
/// Flag of the first of the pages that hold one large value.
pub(super) const OVERFLOW: u16 = 0x04;

/// A page's header.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    number: usize,
    pad: u16,
    flags: u16,
    /// Of a leaf; of an overflow page the two are how many it begins.
    lower: u16,
    upper: u16,
}
const _: () = assert!(size_of::<Header>() == HEADER);

/// The pages on which a record lies: its leaf, and those of a large value.
pub(super) struct Place {
    /// Where the map begins if the leaf is the page that it says it is.
    pub(super) base: usize,
    pub(super) leaf: usize,
    pub(super) value: Range<usize>,
}

/// Where a record lies, if the headers of its pages are a leaf's, and that of as many
/// pages as its value takes: LMDB reads and frees pages by what they say.
///
/// # Safety
/// `key` and `value` were read from LMDB's map, whose pages have `page_size` bytes, in a
/// transaction that is open and has written nothing.
pub(super) unsafe fn place_of(key: &[u8], value: &[u8], page_size: usize) -> Option<Place> {
    let page_of = |at: *const u8| at.map_addr(|at| at & !(page_size - 1));
    let (leaf, first) = (page_of(key.as_ptr()), page_of(value.as_ptr()));
    // SAFETY: LMDB's pages begin at multiples of their size, and are mapped as long as
    // the transaction is open.
    let (header, of_value) =
        unsafe { (leaf.cast::<Header>().read(), first.cast::<Header>().read()) };
    let (lower, upper) = (usize::from(header.lower), usize::from(header.upper));
    let number = header.number;
    if header.flags != LEAF || lower <= HEADER || upper < lower || upper > page_size {
        return None;
    }
    let base = (leaf as usize).checked_sub(number.checked_mul(page_size)?)?;
    let within = value.as_ptr() as usize - first as usize;
    if leaf == first {
        let is_whole = within + value.len() <= page_size;
        return is_whole.then_some(Place {
            base,
            leaf: number,
            value: 0..0,
        });
    }
    let begun = usize::from(of_value.upper) << 16 | usize::from(of_value.lower);
    let pages = (HEADER + value.len()).div_ceil(page_size);
    let apart = (first as isize).wrapping_sub(leaf as isize) / page_size as isize;
    let is_sound = of_value.flags == OVERFLOW
        && within == HEADER
        && begun == pages
        && number.checked_add_signed(apart) == Some(of_value.number);
    is_sound.then(|| Place {
        base,
        leaf: number,
        value: of_value.number..of_value.number.saturating_add(pages),
    })
}

/// Where the map begins if the page with this value, read as for [`place_of`], is the one
/// that it says it is.
///
/// # Safety
/// As for [`place_of`]; the value is small enough to stand in a leaf page.
pub(super) unsafe fn base_of(value: &[u8], page_size: usize) -> Option<usize> {
    let page = value.as_ptr().map_addr(|at| at & !(page_size - 1));
    // SAFETY: as for `place_of`.
    let number = unsafe { page.cast::<Header>().read() }.number;
    (page as usize).checked_sub(number.checked_mul(page_size)?)
}

/// Gives back every mapped page. `value` was read in a transaction that is still open and
/// has written nothing, and is small enough to stand in a leaf page; `last_page` is the
/// number of the last page in use, `page_size` LMDB's. The map's base follows from them;
/// where no meta page is there, nothing happens. `known` holds the last base.
#[cfg(target_os = "linux")]
pub(super) fn return_pages(value: &[u8], last_page: usize, page_size: usize, known: &AtomicUsize) {
    use std::ffi::c_void;
    use std::sync::atomic::Ordering;

    use rustix::mm::{Advice, madvise};

    /// The number with which a meta page's content begins.
    const MAGIC: u32 = 0xBEEF_C0DE;

    // SAFETY: as promised of the value.
    let Some(base) = (unsafe { base_of(value, page_size) }) else {
        return;
    };
    let base = value.as_ptr().with_addr(base);
    if known.load(Ordering::Relaxed) != base as usize {
        let mut resident = 0;
        // SAFETY: mincore(2) fails where nothing is mapped. What is mapped there at a
        // page's begin can be read but for a guard page, of which LMDB makes none.
        let is_meta = unsafe {
            libc::mincore(base.cast_mut().cast(), page_size, &raw mut resident) == 0
                && base.add(HEADER).cast::<u32>().read() == MAGIC
        };
        if !is_meta {
            return;
        }
        known.store(base as usize, Ordering::Relaxed);
    }
    let length = (last_page + 1) * page_size;
    // SAFETY: the range is LMDB's map from its base to the last page in use: a
    // shared, read-only map of a file. Dropped pages come back from the page
    // cache with the same content.
    let _ = unsafe {
        madvise(
            base.cast_mut().cast::<c_void>(),
            length,
            Advice::LinuxDontNeed,
        )
    };
}

/// Elsewhere the advice has no such meaning.
#[cfg(not(target_os = "linux"))]
pub(super) fn return_pages(_: &[u8], _: usize, _: usize, _: &AtomicUsize) {}

/// Tells whether the process may map so many further bytes: LMDB unmaps before
/// it maps anew and has no way back, so this is tried beforehand.
pub(super) fn has_address_space(bytes: usize) -> bool {
    // SAFETY: a fresh private mapping of nothing, at an address of the kernel's
    // choice.
    let tried = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    };
    match tried {
        // SAFETY: exactly what was mapped above, and nothing refers to it.
        Ok(at) => unsafe { munmap(at, bytes) }.is_ok(),
        Err(_) => false,
    }
}
