//! `.agent/` in the base folder, and the name that leads through it (spec 5.6):
//! `data-nadhi-agent.sock` -> `.agent/socket` -> `/proc/<pid>/fd/<n>/socket-<16 hex>`.
//!
//! `n` is the agent's own descriptor of the folder, so the name is gone with the
//! agent, however it ends: a client finds none and starts another. Three things
//! keep a stale name from leading anywhere: the random part, because pids and
//! descriptor numbers come again; the mode 0700, because the next process of that
//! pid may be another user's, which could put its own socket there; and that the
//! folder is emptied by each agent that takes the instance lock.

use std::ffi::CStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, dumpable_behavior, getegid, geteuid, getgid, getuid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::ingest::socket::{SOCKET_NAME, connect_now};
use crate::random;

/// The folder's name in the base folder.
pub const NAME: &str = ".agent";
/// What the socket's own name leads to, from the base folder.
pub(super) const LINK: &str = ".agent/socket";
const LINK_NAME: &str = "socket";
const SOCKET_PREFIX: &str = "socket-";

/// The open folder, and the name of the socket in it.
pub(super) struct AgentFolder {
    folder: OwnedFd,
    path: PathBuf,
    socket: String,
}

impl AgentFolder {
    /// Makes the folder, or takes the one of an earlier agent over: the caller holds
    /// the instance lock, so that whatever is in it is stale.
    ///
    /// # Errors
    /// Those of the file system; `PermissionDenied` where the folder is another
    /// user's, or a link.
    pub(super) fn create(base: &Path) -> io::Result<AgentFolder> {
        let path = base.join(NAME);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = open(&path)?;
        rustix::fs::fchmod(&folder, Mode::RWXU)?;
        empty(&folder, &path)?;
        let socket = format!("{SOCKET_PREFIX}{:016x}", random::number());
        Ok(AgentFolder {
            folder,
            path,
            socket,
        })
    }

    /// The path of the socket, short enough for bind(2) wherever the folder is.
    pub(super) fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/{}", self.tail()))
    }

    /// Lets [`LINK`] lead to the socket.
    ///
    /// # Errors
    /// Those of the file system; `Unsupported` without `/proc`, and for PID 1,
    /// whose number says nothing in another container.
    pub(super) fn link(&self) -> io::Result<()> {
        let pid = pid_in_proc()?;
        if pid == 1 || std::process::id() == 1 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let target = format!("/proc/{pid}/{}", self.tail());
        Ok(rustix::fs::symlinkat(target, &self.folder, LINK_NAME)?)
    }

    fn tail(&self) -> String {
        format!("fd/{}/{}", self.folder.as_raw_fd(), self.socket)
    }

    /// Removes the folder and what the agent has put there.
    pub(super) fn remove(&self) {
        for name in [LINK_NAME, &self.socket] {
            let _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
        }
        // Another agent's, in a base folder that has taken the place of this one's,
        // is not empty.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Whether each client that may send may follow the link, too. The kernel asks for
/// the agent's own uid and gid, and for no fewer capabilities than the agent has
/// (ptrace(2), PTRACE_MODE_READ_FSCREDS); so the agent gives its capabilities up.
///
/// # Errors
/// `Unsupported` where some client may not.
pub(super) fn check_serves(base: &Path) -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let found = fs::metadata(base)?;
    let is_own = found.uid() == uid.as_raw()
        && found.gid() == gid.as_raw()
        && (getuid(), getgid()) == (uid, gid);
    let others_may_write = found.mode() & 0o022 != 0;
    let is_dumpable = dumpable_behavior()? == DumpableBehavior::Dumpable;
    if !is_own || others_may_write || !is_dumpable {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    if capabilities(None)? != none {
        set_capabilities(None, none)?;
    }
    Ok(())
}

/// Removes what an earlier agent has left, the folder too; that there is nothing is
/// fine. The caller holds the instance lock.
pub fn sweep(base: &Path) {
    let path = base.join(NAME);
    if let Ok(folder) = open(&path) {
        let _ = empty(&folder, &path);
        let _ = fs::remove_dir(path);
    }
}

/// Removes a stale link through this process's own pid: with the next descriptors
/// that the agent opens it could lead somewhere. To be called before any folder is
/// opened. An agent of the same pid in another PID namespace makes its own again.
pub fn remove_own_stale_link(base: &Path) {
    let link = base.join(LINK);
    if let (Ok(pid), Some(linked)) = (pid_in_proc(), pid_of_link(&link))
        && pid == linked
    {
        let _ = fs::remove_file(link);
    }
}

/// The socket of an agent that holds the folder's lock and answers there, but not by
/// its name: an agent in another PID namespace, through whose `/proc` the name does
/// not lead here. Its path is relative to the base folder.
///
/// One that is leaving has taken its name away, and one of this PID namespace is
/// about to show it, or dies: they do not count.
#[must_use]
pub fn socket_of_another_namespace(base: &Path) -> Option<PathBuf> {
    if fs::read_link(base.join(SOCKET_NAME)).ok()? != Path::new(LINK) {
        return None;
    }
    let path = base.join(NAME);
    let folder = open(&path).ok()?;
    let has_proc = pid_in_proc().is_ok();
    // A socket's path has little room.
    let short = match has_proc {
        true => PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())),
        false => path.clone(),
    };
    let names = fs::read_dir(&path).ok()?.flatten();
    let found = names.map(|entry| entry.file_name()).find_map(|name| {
        let is_socket = name
            .as_encoded_bytes()
            .starts_with(SOCKET_PREFIX.as_bytes());
        let stream = is_socket.then(|| connect_now(&short.join(&name)))?.ok()?;
        Some((name, stream))
    });
    let (name, stream) = found?;
    let named = pid_of_link(&base.join(LINK));
    let is_named = named.is_some() && named == pid_of_peer(&stream);
    (!is_named || !has_proc).then(|| Path::new(NAME).join(name))
}

/// The pid of the process that listens; 0 where it is in another PID namespace, which
/// rustix has no value for.
fn pid_of_peer(stream: &UnixStream) -> Option<u32> {
    // SAFETY: getsockopt(2) fills the credentials in, which were zeroed before.
    unsafe {
        let mut peer: libc::ucred = std::mem::zeroed();
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        let into = (&raw mut peer).cast();
        let result = libc::getsockopt(stream.as_raw_fd(), level, option, into, &raw mut length);
        (result == 0).then_some(peer.pid.cast_unsigned())
    }
}

/// Makes the socket's name lead to `socket` without `/proc`, in one step, unless it
/// was taken away meanwhile.
///
/// # Errors
/// Those of the file system; `NotFound` for a name that was taken away.
pub fn lead_name_to(base: &Path, socket: &Path) -> io::Result<()> {
    let name = base.join(SOCKET_NAME);
    let new = base
        .join(NAME)
        .join(format!("link-{:016x}", random::number()));
    std::os::unix::fs::symlink(socket, &new)?;
    let exchanged = match rustix::fs::renameat_with(CWD, &new, CWD, &name, RenameFlags::EXCHANGE) {
        // A file system that cannot exchange: the moment in between is short.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&new, &name),
        exchanged => exchanged.map_err(io::Error::from),
    };
    let _ = fs::remove_file(&new);
    exchanged
}

/// The pid of `/proc/<pid>/…`, where the link leads there.
fn pid_of_link(link: &Path) -> Option<u32> {
    let target = fs::read_link(link).ok()?;
    let target = target.strip_prefix("/proc").ok()?;
    target
        .components()
        .next()?
        .as_os_str()
        .to_str()?
        .parse()
        .ok()
}

/// The agent's own pid, as the `/proc` that is mounted here has it.
fn pid_in_proc() -> io::Result<u32> {
    let link = fs::read_link("/proc/self")?;
    let pid = link.to_str().and_then(|pid| pid.parse().ok());
    pid.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Opens the folder, unless another user has placed it or a link there (spec 7).
fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    if rustix::fs::fstat(&folder)?.st_uid != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(folder)
}

fn empty(folder: &OwnedFd, path: &Path) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if rustix::fs::unlinkat(folder, name, AtFlags::empty()).is_err()
            && let Ok(name) = name.to_str()
        {
            fs::remove_dir_all(path.join(name))?;
        }
    }
    Ok(())
}
