//! The socket file (spec 5.1, 5.4, 5.6 and 7): bound under another name, given
//! its mode, then renamed, so that a file that exists always answers.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};

use crate::error::{Error, Result};
use crate::ingest::agent_folder::{self, AgentFolder};
use crate::limits::LISTEN_BACKLOG;

/// The socket's name in the base folder.
pub const SOCKET_NAME: &str = "data-nadhi-agent.sock";
/// Its name while it is made or taken away: no longer than the other, so that
/// a path that fits for one fits for both.
pub const HIDDEN_NAME: &str = ".data-nadhi-agent.so";
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
    // AGAIN: something listens, and has more clients waiting than it may.
    matches!(connect_now(&path_in(folder)), Ok(_) | Err(Errno::AGAIN))
}

/// Connects, non-blocking, where there is room in the backlog right now.
pub(super) fn connect_now(path: &Path) -> rustix::io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    ioctl_fionbio(&socket, true)?;
    connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

/// The agent's own socket and the name that leads to it.
pub struct Socket {
    path: PathBuf,
    hidden: PathBuf,
    /// Of the socket: tells the agent's own name from one that replaced it.
    identity: (u64, u64),
    /// Where the name leads through; none where it is the socket itself.
    agent_folder: Option<AgentFolder>,
}

impl Socket {
    /// Binds the socket of `folder`, under a name that lives as long as the agent
    /// (spec 5.6) if it `may_link` and that serves every user that may send. A stale socket
    /// or link of an agent's is replaced; anything else of that name is not touched.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists` for a file or folder of that
    /// name.
    pub fn bind(folder: &Path, may_link: bool) -> io::Result<(Socket, UnixListener)> {
        // Before anything is made: the watch would wake for it and try again.
        check_free(&path_in(folder))?;
        let hidden = folder.join(HIDDEN_NAME);
        check_free(&hidden)?;
        match fs::remove_file(&hidden) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if may_link && let Ok(bound) = Socket::bind_linked(folder) {
            return Ok(bound);
        }
        agent_folder::sweep(folder);
        let (socket, listener) = Socket::listen(folder, &hidden, None)?;
        socket.show_or_remove()?;
        Ok((socket, listener))
    }

    fn bind_linked(folder: &Path) -> io::Result<(Socket, UnixListener)> {
        agent_folder::check_serves(folder)?;
        let agent_folder = AgentFolder::create(folder)?;
        let path = agent_folder.socket();
        let made = Socket::listen(folder, &path, Some(agent_folder));
        let (socket, listener) = made.inspect_err(|_| agent_folder::sweep(folder))?;
        let linked = socket
            .agent_folder
            .as_ref()
            .map_or(Ok(()), AgentFolder::link);
        let shown = linked
            .and_then(|()| symlink(agent_folder::LINK, &socket.hidden))
            // Links may be forbidden on this mount.
            .and_then(|()| identity_of(&socket.hidden))
            .and_then(|found| match found == socket.identity {
                true => socket.show(),
                false => Err(io::ErrorKind::NotFound.into()),
            });
        if let Err(error) = shown {
            socket.remove();
            return Err(error);
        }
        Ok((socket, listener))
    }

    /// Listens at `path`, which no client knows yet.
    fn listen(
        folder: &Path,
        path: &Path,
        agent_folder: Option<AgentFolder>,
    ) -> io::Result<(Socket, UnixListener)> {
        let listener = UnixListener::bind(path)?;
        rustix::net::listen(&listener, LISTEN_BACKLOG)?;
        listener.set_nonblocking(true)?;
        set_access(path, folder)?;
        let socket = Socket {
            path: path_in(folder),
            hidden: folder.join(HIDDEN_NAME),
            identity: identity_of(path)?,
            agent_folder,
        };
        Ok((socket, listener))
    }

    /// True while the socket's name leads to the one that was bound, whichever way:
    /// an agent in another PID namespace makes it one of its own.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        identity_of(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Takes the name out of the clients' sight: a client that connected before is
    /// served, one that looks for it afterwards finds none.
    pub fn hide(&self) {
        if self.is_in_place() && fs::rename(&self.path, &self.hidden).is_err() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Puts the name in its place.
    ///
    /// # Errors
    /// Those of the file system; `AlreadyExists` for a file or folder of that
    /// name.
    pub fn show(&self) -> io::Result<()> {
        check_free(&self.path)?;
        fs::rename(&self.hidden, &self.path)
    }

    fn show_or_remove(&self) -> io::Result<()> {
        self.show().inspect_err(|_| self.remove())
    }

    /// Removes the name and the socket for good; one that replaced it stays, and so
    /// does what another agent hides in a folder that has taken the place of this
    /// one's.
    pub fn remove(&self) {
        for name in [&self.path, &self.hidden] {
            if identity_of(name).is_ok_and(|found| found == self.identity) || is_stale_link(name) {
                let _ = fs::remove_file(name);
            }
        }
        if let Some(agent_folder) = &self.agent_folder {
            agent_folder.remove();
        }
    }
}

/// Whether this is a link of an agent's that leads nowhere.
fn is_stale_link(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|target| target.starts_with(agent_folder::NAME))
        && fs::metadata(path).is_err()
}

/// Only a socket may be replaced, and the link of an earlier agent.
fn check_free(path: &Path) -> io::Result<()> {
    let is_free = match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_symlink() => {
            fs::read_link(path)?.starts_with(agent_folder::NAME)
        }
        Ok(found) => found.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error),
    };
    if is_free {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!(
            "a file or folder is in the way: move {} elsewhere",
            path.display()
        ),
    ))
}

/// Of what a path leads to.
fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Gives the socket the access that its folder has (spec 7): 0666 masked by its write bits, and
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
