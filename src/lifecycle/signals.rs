//! The signals that ask the agent to stop (spec 5.5). SIGINT and SIGHUP stay ignored
//! where they were.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use signal_hook::{flag, low_level::pipe};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use crate::error::{Error, Result};

const NAMES: [(Signal, &str); 3] = [
    (Signal::TERM, "SIGTERM"),
    (Signal::INT, "SIGINT"),
    (Signal::HUP, "SIGHUP"),
];

/// What the handlers leave for the runtime.
pub(super) struct Signals {
    /// A byte for each signal that came.
    came: UnixStream,
    /// The last one's index in [`NAMES`].
    last: Arc<AtomicUsize>,
}

impl Signals {
    /// Takes the signals over; needs a runtime.
    ///
    /// # Errors
    /// [`Error::CannotCreate`].
    pub(super) fn new() -> Result<Signals> {
        handle().map_err(|error| Error::CannotCreate(format!("signal handler: {error}")))
    }

    /// The name of the next one. Nothing is lost with a future that is dropped.
    pub(super) async fn next(&mut self) -> &'static str {
        match self.came.read_u8().await {
            Ok(_) => NAMES
                .get(self.last.load(Ordering::Relaxed))
                .map_or("a signal", |(_, name)| name),
            // The handlers hold the other end for ever.
            Err(_) => std::future::pending().await,
        }
    }
}

fn handle() -> io::Result<Signals> {
    let (came, tell) = StdUnixStream::pair()?;
    came.set_nonblocking(true)?;
    let last = Arc::new(AtomicUsize::new(0));
    for (index, (signal, _)) in NAMES.iter().enumerate() {
        if *signal != Signal::TERM && is_ignored(*signal) {
            continue;
        }
        // In this order: the reader of the pipe looks there.
        flag::register_usize(signal.as_raw(), Arc::clone(&last), index)?;
        pipe::register(signal.as_raw(), tell.try_clone()?)?;
    }
    // Also where the parent left them blocked (execve(2)).
    mask(libc::SIG_UNBLOCK);
    // Handled, it does not end the process: a write beyond RLIMIT_FSIZE then fails
    // with EFBIG, like one on a full disk.
    let ignored = Arc::new(AtomicBool::new(false));
    flag::register(Signal::XFSZ.as_raw(), ignored)?;
    let came = UnixStream::from_std(came)?;
    Ok(Signals { came, last })
}

/// Whether `nohup`, or a shell's background job, keeps this signal from the agent.
fn is_ignored(signal: Signal) -> bool {
    // SAFETY: sigaction(2) fills in what was zeroed, and changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal.as_raw(), std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Has the signals wait until [`Signals::new`].
pub(super) fn block() {
    mask(libc::SIG_BLOCK);
}

fn mask(how: libc::c_int) {
    // SAFETY: sigemptyset(3) makes the set that was zeroed before, and the others
    // read it; this thread is the only one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for (signal, _) in NAMES {
            libc::sigaddset(&raw mut set, signal.as_raw());
        }
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}
