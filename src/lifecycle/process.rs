//! What the process asks of the operating system for itself (spec 5.5, 7, 8).

use std::fs;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

use crate::error::{Error, Result};
use crate::limits::DESCRIPTORS_RESERVED;

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
pub fn reexec_without_tcache() {
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
pub fn reexec_without_tcache() {}

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
