//! LMDB's list of free pages, for which heed has no call.

use std::ffi::{CStr, CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{ptr, slice};

use lmdb_master_sys as ffi;

/// The list's database.
const FREE_LIST: ffi::MDB_dbi = 0;
/// The first pages are the meta pages.
const METAS: usize = 2;

/// The free pages of a store.
pub(super) struct FreeList {
    /// A bit each.
    bits: Vec<u64>,
    /// All pages.
    pages: usize,
    /// Those that are free, and those that say so.
    pub(super) count: usize,
}

impl FreeList {
    /// Reads the list of the store in `folder`, which no process writes to.
    ///
    /// # Errors
    /// LMDB's, and a page that is there twice or is none.
    pub(super) fn read(folder: &Path) -> Result<FreeList, String> {
        let folder = CString::new(folder.as_os_str().as_bytes()).map_err(|why| why.to_string())?;
        let (mut env, mut txn, mut cursor) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: these calls fill in what they are given pointers to, which outlives
        // them; nothing of it is given back, as the process ends.
        let (info, stat) = unsafe {
            let (mut info, mut stat) = (std::mem::zeroed(), std::mem::zeroed());
            ok(ffi::mdb_env_create(&raw mut env))?;
            let flags = ffi::MDB_NOLOCK | ffi::MDB_RDONLY;
            ok(ffi::mdb_env_open(env, folder.as_ptr(), flags, 0))?;
            ok(ffi::mdb_env_info(env, &raw mut info))?;
            ok(ffi::mdb_txn_begin(
                env,
                ptr::null_mut(),
                ffi::MDB_RDONLY,
                &raw mut txn,
            ))?;
            ok(ffi::mdb_stat(txn, FREE_LIST, &raw mut stat))?;
            ok(ffi::mdb_cursor_open(txn, FREE_LIST, &raw mut cursor))?;
            (info, stat)
        };
        let info: ffi::MDB_envinfo = info;
        let stat: ffi::MDB_stat = stat;
        let pages = info.me_last_pgno.saturating_add(1);
        let mut list = FreeList {
            bits: vec![0; pages.div_ceil(64)],
            pages,
            count: stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages,
        };
        loop {
            let mut pair: [ffi::MDB_val; 2] = [ffi::MDB_val {
                mv_size: 0,
                mv_data: ptr::null_mut(),
            }; 2];
            let [key, value] = &mut pair;
            // SAFETY: the cursor is open, and fills in where the map has key and value,
            // which it has until the transaction ends.
            let part = unsafe {
                match ffi::mdb_cursor_get(cursor, key, value, ffi::MDB_NEXT) {
                    ffi::MDB_NOTFOUND => return Ok(list),
                    code => ok(code)?,
                }
                slice::from_raw_parts(value.mv_data.cast::<u8>(), value.mv_size)
            };
            list.add(part)
                .ok_or("a free page is there twice, or is none")?;
        }
    }

    /// Takes in a count and as many page numbers (MDB_IDL in LMDB's midl.h).
    fn add(&mut self, part: &[u8]) -> Option<()> {
        let mut numbers = part
            .chunks_exact(size_of::<usize>())
            .filter_map(|number| number.try_into().ok().map(usize::from_ne_bytes));
        let count = numbers.next()?;
        let added = numbers
            .take(count)
            .filter(|page| self.insert(*page))
            .count();
        (added == count).then_some(())
    }

    fn insert(&mut self, page: usize) -> bool {
        let is_new = (METAS..self.pages).contains(&page) && !self.has(page);
        if let Some(bits) = self.bits.get_mut(page / 64).filter(|_| is_new) {
            *bits |= 1 << (page % 64);
            self.count += 1;
        }
        is_new
    }

    /// True for a free page.
    pub(super) fn has(&self, page: usize) -> bool {
        let bits = self.bits.get(page / 64);
        bits.is_some_and(|bits| bits & 1 << (page % 64) != 0)
    }

    /// Makes sure that these pages of the trees are all the others.
    ///
    /// # Errors
    /// The numbers.
    pub(super) fn check_others(&self, trees: usize) -> Result<(), String> {
        let (all, known) = (self.pages, METAS + self.count + trees);
        match all == known {
            true => Ok(()),
            false => Err(format!("{known} pages are in use or free, not {all}")),
        }
    }
}

fn ok(code: c_int) -> Result<(), String> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: mdb_strerror returns a string that is never freed.
    let text = unsafe { CStr::from_ptr(ffi::mdb_strerror(code)) };
    Err(text.to_string_lossy().into_owned())
}
