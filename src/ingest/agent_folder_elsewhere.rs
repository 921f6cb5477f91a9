//! Without Linux's `/proc` the socket's name is the socket itself (spec 5.6).

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

/// The folder's name in the base folder, where there is one.
pub const NAME: &str = ".agent";
pub(super) const LINK: &str = ".agent/socket";

/// There is none.
pub(super) struct AgentFolder(Infallible);

impl AgentFolder {
    pub(super) fn create(_base: &Path) -> io::Result<AgentFolder> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn socket(&self) -> PathBuf {
        match self.0 {}
    }

    pub(super) fn link(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub(super) fn remove(&self) {
        match self.0 {}
    }
}

pub(super) fn check_serves(_base: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is nothing to sweep.
pub fn sweep(_base: &Path) {}

/// There is no link through a pid.
pub fn remove_own_stale_link(_base: &Path) {}

/// There are no PID namespaces.
#[must_use]
pub fn socket_of_another_namespace(_base: &Path) -> Option<PathBuf> {
    None
}

/// Never called.
///
/// # Errors
/// `Unsupported`.
pub fn lead_name_to(_base: &Path, _socket: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
