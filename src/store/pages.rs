//! Gives LMDB's mapped pages back to the kernel (spec 4), so that what the
//! agent has read and written does not count as its memory.

use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Gives back every mapped page. `value` was read in a transaction that is
/// still open, and is small enough to stand in a leaf page; `last_page` is the
/// number of the last page in use, `page_size` LMDB's. The map's base follows
/// from them; where it does not, nothing happens.
#[cfg(target_os = "linux")]
pub(super) fn return_pages(value: &[u8], last_page: usize, page_size: usize) {
    use std::ffi::c_void;

    use rustix::mm::{Advice, madvise};

    let page = value.as_ptr().map_addr(|at| at & !(page_size - 1));
    // SAFETY: LMDB's page begins at the multiple of the page size below the
    // value, is mapped as long as the transaction is open, and begins with its
    // number (MDB_page in LMDB's mdb.c).
    let number = unsafe { page.cast::<usize>().read() };
    if number > last_page {
        return;
    }
    let Some(base) = (page as usize).checked_sub(number * page_size) else {
        return;
    };
    let base = page.with_addr(base).cast_mut().cast::<c_void>();
    let length = (last_page + 1) * page_size;
    // SAFETY: the range is LMDB's map from its base to the last page in use: a
    // shared, read-only map of a file. Dropped pages come back from the page
    // cache with the same content.
    let _ = unsafe { madvise(base, length, Advice::LinuxDontNeed) };
}

/// Elsewhere the advice has no such meaning.
#[cfg(not(target_os = "linux"))]
pub(super) fn return_pages(_value: &[u8], _last_page: usize, _page_size: usize) {}

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
