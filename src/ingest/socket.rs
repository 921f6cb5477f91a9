//! The socket file (spec 5.1, 5.4, 5.6 and 7): bound under another name, given
//! its mode, then renamed, so that a file that exists always answers.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};

use crate::error::{Error, Result};
use crate::limits::LISTEN_BACKLOG;

/// The socket's name in the base folder.
pub const SOCKET_NAME: &str = "data-nadhi-agent.sock";
/// Its name while it is made or taken away: no longer than the other, so that
/// a path that fits for one fits for both.
const HIDDEN_NAME: &str = ".data-nadhi-agent.so";
/// Bytes of a socket path, without the closing NUL (unix(7): 108 with it on
/// Linux, 104 elsewhere).
const PATH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The socket's path in a base folder.
#[must_use]
pub fn path_in(folder: &Path) -> PathBuf {
    folder.join(SOCKET_NAME)
}

/// Makes sure that a socket in this folder can be bound and connected to.
///
/// # Errors
/// [`Error::CannotCreate`] with the length and the limit.
pub fn check_path(folder: &Path) -> Result<()> {
    let path = path_in(folder);
    let length = path.as_os_str().as_bytes().len();
    if length > PATH_MAX {
        return Err(Error::CannotCreate(format!(
            "socket path {} has {length} bytes, but a socket path may have {PATH_MAX}: \
             choose a shorter -datanadhi",
            path.display()
        )));
    }
    Ok(())
}

/// True when something accepts connections at this folder's socket; found out
/// without waiting for it.
#[must_use]
pub fn answers(folder: &Path) -> bool {
    let connected = SocketAddrUnix::new(path_in(folder)).and_then(|address| {
        let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        ioctl_fionbio(&socket, true)?;
        connect(&socket, &address)
    });
    // AGAIN: somebody listens, and has more clients waiting than it may.
    matches!(connected, Ok(()) | Err(Errno::AGAIN))
}

/// The agent's own socket file and what listens behind it.
pub struct Socket {
    path: PathBuf,
    hidden: PathBuf,
    /// Tells the agent's own file from one that replaced it.
    identity: (u64, u64),
}

impl Socket {
    /// Binds the socket of `folder`. A stale socket is replaced; anything else
    /// of that name is not touched.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists` for a file or folder of that
    /// name.
    pub fn bind(folder: &Path) -> io::Result<(Socket, UnixListener)> {
        let path = path_in(folder);
        // Before anything is made: the watch would wake for it and try again.
        check_free(&path)?;
        let hidden = folder.join(HIDDEN_NAME);
        check_free(&hidden)?;
        match fs::remove_file(&hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&hidden)?;
        rustix::net::listen(&listener, LISTEN_BACKLOG)?;
        listener.set_nonblocking(true)?;
        set_access(&hidden, folder)?;
        let identity = identity_of(&hidden)?;
        let socket = Socket {
            path,
            hidden,
            identity,
        };
        if let Err(error) = socket.show() {
            let _ = fs::remove_file(&socket.hidden);
            return Err(error);
        }
        Ok((socket, listener))
    }

    /// True while the file at the socket's path is the one that was bound.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        identity_of(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Takes the file out of the clients' sight: who connected before is served,
    /// who looks for it afterwards finds none.
    pub fn hide(&self) {
        if self.is_in_place() {
            let _ = fs::rename(&self.path, &self.hidden);
        }
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists` for a file or folder of that
    /// name.
    pub fn show(&self) -> io::Result<()> {
        check_free(&self.path)?;
        fs::rename(&self.hidden, &self.path)
    }

    /// Removes the file for good; one that replaced it stays, and so does what
    /// another agent hides in a folder that has taken the place of this one's.
    pub fn remove(&self) {
        self.hide();
        if identity_of(&self.hidden).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.hidden);
        }
    }
}

/// Only a socket may be replaced.
fn check_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "a file or folder is in the way: move {} elsewhere",
                path.display()
            ),
        )),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// The folder decides who may send (spec 7): 0666 masked by its write bits, and
/// its group where the group may write.
fn set_access(socket: &Path, folder: &Path) -> io::Result<()> {
    let folder = fs::metadata(folder)?;
    let mode = socket_mode(folder.mode());
    if mode & 0o060 != 0 && fs::symlink_metadata(socket)?.gid() != folder.gid() {
        // Only a member of the group may do this. Where it fails the owner is
        // still served, and the group finds a socket that refuses it.
        let _ = std::os::unix::fs::lchown(socket, None, Some(folder.gid()));
    }
    fs::set_permissions(socket, Permissions::from_mode(mode))
}

/// The socket's mode for a folder's mode: connecting takes the write bit.
fn socket_mode(folder: u32) -> u32 {
    let write = folder & 0o222;
    // The owner is the agent itself.
    0o600 | write | (write << 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_decides_who_may_send() {
        for (folder, socket) in [
            (0o700, 0o600),
            (0o755, 0o600),
            (0o770, 0o660),
            (0o2775, 0o660),
            (0o777, 0o666),
            (0o1777, 0o666),
            (0o500, 0o600),
        ] {
            assert_eq!(socket_mode(0o40000 | folder), socket, "{folder:o}");
        }
    }

    #[test]
    fn whoever_listens_answers_also_behind_a_full_backlog() {
        let folder = std::env::temp_dir().join(format!("answers-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        assert!(!answers(&folder));
        let listener = UnixListener::bind(path_in(&folder)).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        // Each is left in the backlog; a connect that waited would never return.
        for _ in 0..4 {
            assert!(answers(&folder));
        }
        drop(listener);
        assert!(!answers(&folder), "stale");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_that_fits_for_the_name_fits_for_the_hidden_name() {
        assert!(HIDDEN_NAME.len() < SOCKET_NAME.len());
    }
}
