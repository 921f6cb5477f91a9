//! A listening socket that the agent's starter passes (spec 5.9), by the rules of
//! sd_listen_fds(3).

use std::ffi::OsString;
use std::os::unix::net::UnixListener;

use crate::error::{Error, Result};

/// Names the process that the socket is meant for.
const PID_VARIABLE: &str = "LISTEN_PID";
/// How many descriptors are passed.
const FDS_VARIABLE: &str = "LISTEN_FDS";

/// The listener that was passed to this process, non-blocking and closed on exec;
/// `None` where there is none, or it is meant for another process. `variable`
/// looks into the environment. To be called once, before anything is opened.
///
/// # Errors
/// [`Error::Usage`] when it is not one UNIX stream socket that listens.
pub fn passed(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<UnixListener>> {
    let (pid, fds) = (variable(PID_VARIABLE), variable(FDS_VARIABLE));
    if !cfg!(target_os = "linux") || !is_passed(std::process::id(), pid, fds)? {
        return Ok(None);
    }
    descriptor::take().map(Some)
}

/// Whether the two variables pass one descriptor to process `own`.
fn is_passed(own: u32, pid: Option<OsString>, fds: Option<OsString>) -> Result<bool> {
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse::<u32>().ok());
    let (Some(pid), Some(fds)) = (pid, fds) else {
        return Ok(false);
    };
    match number(&pid) {
        None => Err(refused(&format!(
            "{PID_VARIABLE} {} is no process id",
            pid.display()
        ))),
        Some(pid) if pid != own => Ok(false),
        Some(_) if number(&fds) == Some(1) => Ok(true),
        Some(_) => Err(refused(&format!(
            "{FDS_VARIABLE} is {}, but the agent serves one socket",
            fds.display()
        ))),
    }
}

fn refused(why: &str) -> Error {
    Error::Usage(format!(
        "{why}; a socket unit for it has one ListenStream=, a path, and Accept=no"
    ))
}

#[cfg(target_os = "linux")]
mod descriptor {
    use std::mem::ManuallyDrop;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::net::UnixListener;

    use rustix::io::{FdFlags, fcntl_setfd};
    use rustix::net::{AddressFamily, SocketType, sockopt};

    use super::refused;
    use crate::error::Result;

    /// `SD_LISTEN_FDS_START`.
    const FIRST: i32 = 3;

    /// Takes the passed descriptor over.
    pub(super) fn take() -> Result<UnixListener> {
        let describe = |error| refused(&format!("the passed descriptor {FIRST}: {error}"));
        // SAFETY: the variables say that the starter of this process passed the
        // descriptor to it, and nothing has been opened since, so nothing else owns
        // it. Where they lie and there is none, it is never closed either.
        let passed = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(FIRST) });
        fcntl_setfd(&*passed, FdFlags::CLOEXEC).map_err(describe)?;
        let passed = ManuallyDrop::into_inner(passed);
        let listens = sockopt::socket_domain(&passed).map_err(describe)? == AddressFamily::UNIX
            && sockopt::socket_type(&passed).map_err(describe)? == SocketType::STREAM
            && sockopt::socket_acceptconn(&passed).map_err(describe)?;
        if !listens {
            return Err(refused(&format!(
                "the passed descriptor {FIRST} is no UNIX stream socket that listens"
            )));
        }
        let listener = UnixListener::from(passed);
        listener
            .set_nonblocking(true)
            .map_err(|error| refused(&format!("the passed descriptor {FIRST}: {error}")))?;
        Ok(listener)
    }
}

#[cfg(not(target_os = "linux"))]
mod descriptor {
    use std::os::unix::net::UnixListener;

    use super::refused;
    use crate::error::Result;

    pub(super) fn take() -> Result<UnixListener> {
        Err(refused("sockets are passed on Linux alone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_pass_a_socket_to_the_process_they_name() {
        for (pid, fds, expected) in [
            (Some("7"), Some("1"), Ok(true)),
            (None, None, Ok(false)),
            (None, Some("1"), Ok(false)),
            (Some("7"), None, Ok(false)),
            (Some("8"), Some("1"), Ok(false)),
            (Some("8"), Some("nonsense"), Ok(false)),
            (Some("x"), Some("1"), Err("LISTEN_PID x is no process id")),
            (Some("7"), Some("0"), Err("LISTEN_FDS is 0")),
            (Some("7"), Some("2"), Err("LISTEN_FDS is 2")),
            (Some("7"), Some("-1"), Err("LISTEN_FDS is -1")),
            (Some("7"), Some(""), Err("LISTEN_FDS is ")),
        ] {
            let found = is_passed(7, pid.map(Into::into), fds.map(Into::into));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{pid:?} {fds:?}"),
                (Err(Error::Usage(said)), Err(words)) => assert!(said.starts_with(words), "{said}"),
                (found, _) => panic!("{pid:?} {fds:?}: {found:?}"),
            }
        }
    }
}
