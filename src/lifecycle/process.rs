//! What the process asks of the operating system for itself (spec 5.5, 7, 8).

use std::fs;

use rustix::fs::Mode;
#[cfg(target_os = "linux")]
use rustix::mm::{Advice, madvise};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

use crate::error::{Error, Result};
use crate::limits::DESCRIPTORS_RESERVED;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use crate::limits::{HEAP_IN_HAND, LARGE_ALLOCATION};

/// Sets up what every file and every crash is to look like: nothing for others
/// to read, and no core dump with a key in it.
pub fn harden() {
    umask(Mode::RWXG | Mode::RWXO);
    // One byte: too little for a file, and for a core pattern that is a pipe the one
    // limit that it heeds (core(5)). A process that is not dumpable would have none
    // either, but its /proc entry is root's, and no client could follow the socket's
    // name through it.
    let one_byte = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    if setrlimit(Resource::Core, one_byte).is_err() {
        #[cfg(target_os = "linux")]
        if keep_memory_out_of_cores().is_err() {
            use rustix::process::{DumpableBehavior, set_dumpable_behavior};
            let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
    }
}

/// The host has switched core files off for good, which hardened ones do: no limit can
/// be raised to one byte. A pipe does not heed that; what it gets holds no memory then.
#[cfg(target_os = "linux")]
fn keep_memory_out_of_cores() -> std::io::Result<()> {
    if getrlimit(Resource::Core).maximum != Some(0) {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    fs::write("/proc/self/coredump_filter", "0")
}

/// Makes sure that at least one client can be connected.
///
/// # Errors
/// [`Error::CannotCreate`] with the figures.
pub fn check_descriptors() -> Result<()> {
    let needed = DESCRIPTORS_RESERVED as u64 + 1;
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < needed => Err(Error::CannotCreate(format!(
            "the limit of {allowed} open files is too low: {needed} are needed (ulimit -n)"
        ))),
        _ => Ok(()),
    }
}

/// Starts the process over without malloc's cache of a thread, unless it runs
/// without. The cache holds on to small pieces all over the heap, and so to most
/// pages of what a life has used; glibc reads the setting before `main` and never
/// again. Where it cannot be done the agent goes on as it is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn without_thread_cache() {
    use std::env;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStringExt;

    const SETTING: &[u8] = b"glibc.malloc.tcache_count=0";
    let before = env::var_os("GLIBC_TUNABLES").unwrap_or_default().into_vec();
    // SAFETY: getauxval(3) looks a number up.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    // glibc takes the variable away from an executable with privileges of its own.
    if secure || before.windows(SETTING.len()).any(|part| part == SETTING) {
        return;
    }
    // First: glibc ends the variable's text behind its first setting.
    let tunables = match before.is_empty() {
        true => SETTING.to_vec(),
        false => [SETTING, &before].join(&b':'),
    };
    let arguments: Option<Vec<_>> = env::args_os()
        .map(|argument| CString::new(argument.into_vec()).ok())
        .collect();
    let Some((arguments, tunables)) = arguments.zip(CString::new(tunables).ok()) else {
        return;
    };
    let mut argv: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(std::ptr::null());
    // SAFETY: there is no other thread that could look at the environment. The path
    // is the kernel's, under which it runs this file, and lives as long as the
    // process; `argv` ends with a null and its strings live until the call returns.
    unsafe {
        let path = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
        if !path.is_null() && libc::setenv(c"GLIBC_TUNABLES".as_ptr(), tunables.as_ptr(), 1) == 0 {
            libc::execv(path, argv.as_ptr());
        }
    }
}

/// Elsewhere malloc has no such cache.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn without_thread_cache() {}

/// Has glibc's malloc give back what was large, keep little in hand, and use one
/// arena: the resolver's thread would leave another, which reserves 64 MiB of
/// addresses.
pub fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt(3) sets numbers, and there is no other thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_ALLOCATION);
        libc::mallopt(libc::M_TOP_PAD, HEAP_IN_HAND);
    }
    give_back_heap();
}

/// Gives back to the kernel what the process holds and does not need: free parts
/// of the heap, and the pages of the executable, most of whose code that has run
/// was for the start. What is needed again comes back from the page cache.
pub fn give_back() {
    #[cfg(target_os = "linux")]
    for (start, length) in code(&fs::read_to_string("/proc/self/maps").unwrap_or_default()) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a read-only private map of a file that nothing has
        // written to: its pages come back with the same content.
        let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
    }
    give_back_heap();
    give_back_stack();
}

/// Gives back what calls that have returned have left on the stack: the start goes
/// deeper than what follows.
pub fn give_back_stack() {
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

fn give_back_heap() {
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

/// Peak resident memory so far, in KiB; 0 where the system does not tell.
#[must_use]
pub fn peak_rss_kib() -> u64 {
    // getrusage(2) would count what the parent had before exec.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
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
