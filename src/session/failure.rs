//! Where an agent that cannot start (exit 73) leaves its reason: one failure after another
//! has one session, so that a cron line that fails every minute pushes no other out.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::{AGENT_LOG, SUCCESS_LOG, Session, remove_session, session_order, sessions};
use crate::folder::Folder;

/// How the last line of such an agent's log ends; a line that ends with a text does not.
const ENDING: &[u8] = b",\"exit_code\":73}\n";

impl Session {
    /// The session for a failure: that of the failure right before it, else a new one.
    #[must_use]
    pub fn of_failure(folder: &Arc<Folder>) -> Session {
        let new = Session::new(folder, SystemTime::now());
        new.failure_before().unwrap_or(new)
    }

    /// The session right before this one, where it is that of a failure. Sessions of a
    /// clock that was ahead do not count.
    #[must_use]
    pub fn failure_before(&self) -> Option<Session> {
        let own = self.name.to_str().and_then(session_order);
        let before = sessions(&self.folder)
            .into_iter()
            .rfind(|name| session_order(name) < own)?;
        let before = Session {
            folder: Arc::clone(&self.folder),
            name: before.into(),
        };
        before.is_of_failure().is_ok_and(|is| is).then_some(before)
    }

    /// Removes it, where it holds nothing but events; false where it stays.
    pub fn remove(&self) -> bool {
        let name = self.name.to_str().unwrap_or_default();
        self.has_delivered_nothing()
            && remove_session(&self.folder, name).is_ok()
            && !self.path().exists()
    }

    /// Whether its life ended with exit 73 before it delivered anything, and its log can
    /// take another line.
    fn is_of_failure(&self) -> io::Result<bool> {
        let names = fs::read_dir(self.path())?.map(|entry| Ok(entry?.file_name()));
        let names: Vec<_> = names.collect::<io::Result<_>>()?;
        let others = |name: &std::ffi::OsString| name != AGENT_LOG && name != SUCCESS_LOG;
        if names.iter().any(others) || !self.has_delivered_nothing() {
            return Ok(false);
        }
        let log = OpenOptions::new()
            .read(true)
            .append(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(self.path().join(AGENT_LOG))?;
        let mut ending = [0; ENDING.len()];
        let length = log.metadata()?.len();
        log.read_exact_at(&mut ending, length.saturating_sub(ENDING.len() as u64))?;
        Ok(ending == ENDING)
    }

    fn has_delivered_nothing(&self) -> bool {
        let log = fs::symlink_metadata(self.path().join(SUCCESS_LOG));
        log.map_or(true, |log| log.len() == 0)
    }
}
