//! A crash within LMDB, or because of what it maps, withdraws the trust in the store
//! (spec 4).

use std::ffi::{CString, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::store::trust;

const SIGNALS: [c_int; 3] = [libc::SIGBUS, libc::SIGSEGV, libc::SIGABRT];

/// Path of the file that says that the store is trusted. Set once, never freed.
static TRUSTED: AtomicPtr<libc::c_char> = AtomicPtr::new(ptr::null_mut());

/// Has a crash remove what says that the store in `folder` is trusted: that takes no
/// room on the disk. The handler runs on the stack that the standard library has made
/// for its own.
pub(super) fn withdraw_trust_of(folder: &Path) {
    let Ok(path) = CString::new(trust::path(folder).as_os_str().as_bytes()) else {
        return;
    };
    if !TRUSTED.load(Ordering::Relaxed).is_null() {
        return;
    }
    TRUSTED.store(path.into_raw(), Ordering::Relaxed);
    for signal in SIGNALS {
        // SAFETY: the action is zeroed before its fields are set, and the handler calls
        // nothing but functions that are safe in one (signal-safety(7)).
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as extern "C" fn(c_int) as usize;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

extern "C" fn handle(signal: c_int) {
    // SAFETY: the path ends with a null and is never freed; both calls are safe in a
    // handler. The signal is blocked until this returns, and ends the process then.
    unsafe {
        libc::unlink(TRUSTED.load(Ordering::Relaxed));
        libc::raise(signal);
    }
}
