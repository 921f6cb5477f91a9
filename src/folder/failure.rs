//! Where an agent that cannot start (exit 73) leaves its reason: one failure after another
//! has one session, so that a cron line that fails every minute pushes no other out.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags, open, unlinkat};

use super::{AGENT_LOG, Folder, SESSION_PREFIX, SUCCESS_LOG, Session, holds_logs_alone};

/// How the last line of such an agent's log ends; a line that ends with a text does not.
const ENDING: &[u8] = b",\"exit_code\":73}\n";

impl Folder {
    /// The session for a failure: that of the failure right before it, else a new one.
    #[must_use]
    pub fn session_of_failure(&self) -> Session {
        let new = Session::new(self, SystemTime::now());
        self.failure_before(&new).unwrap_or(new)
    }

    /// The session right before `session`, where it is that of a failure. Sessions of a
    /// clock that was ahead do not count.
    #[must_use]
    pub fn failure_before(&self, session: &Session) -> Option<Session> {
        let entries = fs::read_dir(&self.path).ok()?.flatten();
        let names = entries.map(|entry| entry.file_name());
        let path = names
            .filter(|name| {
                name.as_encoded_bytes()
                    .starts_with(SESSION_PREFIX.as_bytes())
            })
            .map(|name| self.path.join(name))
            .filter(|path| *path < session.path)
            .max()?;
        let before = Session { path };
        before.is_of_failure().is_ok_and(|is| is).then_some(before)
    }
}

impl Session {
    /// Whether its life ended with exit 73 before it delivered anything, and its log can
    /// take another line.
    fn is_of_failure(&self) -> io::Result<bool> {
        if !self.holds_events_alone()? {
            return Ok(false);
        }
        let log = OpenOptions::new()
            .read(true)
            .append(true)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
            .open(self.path.join(AGENT_LOG))?;
        let mut ending = [0; ENDING.len()];
        let length = log.metadata()?.len();
        log.read_exact_at(&mut ending, length.saturating_sub(ENDING.len() as u64))?;
        Ok(ending == ENDING)
    }

    fn holds_events_alone(&self) -> io::Result<bool> {
        let is_folder = fs::symlink_metadata(&self.path)?.is_dir();
        let delivered = fs::symlink_metadata(self.path.join(SUCCESS_LOG));
        let nothing_delivered = delivered.map_or(true, |log| log.len() == 0);
        Ok(is_folder && nothing_delivered && holds_logs_alone(&self.path))
    }

    /// Removes it, where it holds nothing but events; false where it stays.
    pub fn remove(&self) -> bool {
        if !self.holds_events_alone().is_ok_and(|alone| alone) {
            return false;
        }
        // Not through a link that another user has put in its place meanwhile.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(folder) = open(&self.path, flags, Mode::empty()) else {
            return false;
        };
        let _ = unlinkat(&folder, SUCCESS_LOG, AtFlags::empty());
        let _ = unlinkat(&folder, AGENT_LOG, AtFlags::empty());
        fs::remove_dir(&self.path).is_ok()
    }
}
