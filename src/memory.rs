//! The process's own memory, and how it is given back to the system (spec 9).

#[cfg(target_os = "linux")]
use std::fs;

#[cfg(target_os = "linux")]
use rustix::mm::{Advice, madvise};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use crate::limits::{LARGE_ALLOCATION, MALLOC_TOP_PAD};

/// Has glibc's malloc give back what was large, keep little in hand, and use one
/// arena: the resolver's thread would leave another, which reserves 64 MiB of
/// addresses.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt(3) sets numbers, and there is no other thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_ALLOCATION);
        libc::mallopt(libc::M_TOP_PAD, MALLOC_TOP_PAD);
    }
    release_heap();
}

/// Gives back to the kernel what the process holds and does not need: free parts
/// of the heap, and the pages of the executable, most of whose code that has run
/// was for the start. What is needed again comes back from the page cache.
pub fn release() {
    #[cfg(target_os = "linux")]
    for (start, length) in code(&fs::read_to_string("/proc/self/maps").unwrap_or_default()) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a read-only private map of a file that nothing has
        // written to: its pages come back with the same content.
        let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
    }
    release_heap();
    release_stack();
}

/// Gives back what calls that have returned have left on the stack: the start goes
/// deeper than what follows.
pub fn release_stack() {
    #[cfg(target_os = "linux")]
    if rustix::thread::gettid() == rustix::process::getpid() {
        const PAGE: usize = 4 * 1024;
        const DEPTH: usize = 64 * PAGE;
        let here = [0_u8; 1];
        let end = (here.as_ptr().addr() & !(PAGE - 1)) - PAGE;
        let start = std::ptr::with_exposed_provenance_mut(end - DEPTH);
        // SAFETY: these are whole pages, at least one below this frame: only frames that
        // have returned were there. Where the first thread's stack does not reach so deep
        // nothing else is mapped: the kernel keeps a larger gap below it.
        let _ = unsafe { madvise(start, DEPTH, Advice::LinuxDontNeed) };
    }
}

/// Gives back the free parts of the heap.
pub fn release_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The places and lengths of the maps that hold code or constants of a file, from
/// the lines of `/proc/self/maps` (proc_pid_maps(5)). Constants that were
/// relocated are read-only, too, but no longer what the file has: they stand
/// behind the code, in a small library on the file's first page, too. Those that
/// were not are the first of the file's maps.
#[cfg(target_os = "linux")]
fn code(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    let mut before = None;
    maps.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (access, offset) = (fields.next()?, fields.next()?);
        let file = fields.next().zip(fields.next());
        let first = std::mem::replace(&mut before, file) != file;
        let at_start = first && offset.bytes().all(|b| b == b'0');
        let untouched = access == "r-xp" || (access == "r--p" && at_start);
        if !untouched || file?.1 == "0" {
            return None;
        }
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        Some((start, end.checked_sub(start)?))
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::code;

    #[test]
    fn only_what_is_as_the_file_has_it_is_given_back() {
        let given = |maps: &str| code(maps).collect::<Vec<_>>();
        let usual = "\
            1000-3000 r--p 00000000 fe:00 7   /bin/a\n\
            3000-4000 r-xp 00002000 fe:00 7   /bin/a\n\
            4000-5000 r--p 00003000 fe:00 7   /bin/a\n\
            5000-6000 rw-p 00004000 fe:00 7   /bin/a\n\
            6000-7000 r--s 00000000 fe:00 9   /data.mdb\n\
            7000-8000 rw-p 00000000 00:00 0   [heap]\n\
            8000-9000 r-xp 00000000 00:00 0   [vdso]\n\
            9000-a000 r--p 00000000 00:00 0   [vvar]\n\
            a000-b000 r-xp 00000000 fe:00 8   /lib/a b\n\
            garbled\n";
        assert_eq!(
            given(usual),
            [(0x1000, 0x2000), (0x3000, 0x1000), (0xa000, 0x1000)]
        );
        // All of its segments begin on the file's first page.
        let small = "\
            1000-2000 r--p 00000000 fe:00 7   /lib/small.so\n\
            2000-3000 r-xp 00000000 fe:00 7   /lib/small.so\n\
            3000-4000 r--p 00000000 fe:00 7   /lib/small.so\n\
            4000-5000 rw-p 00000000 fe:00 7   /lib/small.so\n\
            5000-6000 r--p 00000000 fe:01 7   /lib/another.so\n";
        assert_eq!(
            given(small),
            [(0x1000, 0x1000), (0x2000, 0x1000), (0x5000, 0x1000)]
        );
    }
}
