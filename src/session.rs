//! Sessions (spec 2): a folder of logs for each run.

mod failure;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};

use crate::folder::{Folder, create_private, name_with_time, sync_folder};
use crate::limits::{REWRITES_MAX, SESSIONS_KEPT};
use crate::log::{FailureLog, Log};

const SESSION_PREFIX: &str = "session-";
/// Its name, with any digits; a second one of the same second has `-2` behind it.
const SESSION_PATTERN: &[u8] = b"session-0000-00-00T00-00-00Z";
const AGENT_LOG: &str = "agent.log";
const SUCCESS_LOG: &str = "agent-success.log";
const RUNNING_LOGS: [&str; 2] = [AGENT_LOG, SUCCESS_LOG];

/// One run's folder of logs. It is made when a log is opened, and again where it
/// was moved away.
#[derive(Clone)]
pub struct Session {
    folder: Arc<Folder>,
    name: PathBuf,
}

impl Session {
    /// Names `session-<start>`; a second run in the same second gets a suffix.
    #[must_use]
    pub fn new(folder: &Arc<Folder>, start: SystemTime) -> Session {
        let path = name_with_time(folder.path(), SESSION_PREFIX, start);
        Session {
            folder: Arc::clone(folder),
            name: path.file_name().unwrap_or_default().into(),
        }
    }

    /// `agent.log`.
    #[must_use]
    pub fn agent_log(&self) -> Log {
        Log::new(self.clone(), AGENT_LOG)
    }

    /// `agent-success.log`.
    #[must_use]
    pub fn success_log(&self) -> Log {
        Log::new(self.clone(), SUCCESS_LOG)
    }

    /// `agent-failure.log`, made with its first line.
    #[must_use]
    pub fn failure_log(&self) -> FailureLog {
        FailureLog::new(self.clone())
    }

    /// Keeps a stored value that fails its checksum, as it is, in a file of its
    /// own: `damaged-<key>`. It may hold an API key, so it is no log.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep_damaged(&self, key: u64, value: &[u8]) -> io::Result<()> {
        self.write_in_place(&format!("damaged-{key}"), &mut None, |file| {
            file.set_len(0)?;
            file.write_all(value)?;
            file.sync_all()
        })
    }

    /// Has `write` write to a file of the session and flush it, again where the path
    /// does not lead to that file then: the operator has moved it away meanwhile, and
    /// may have read it before. What was written is on disk at its path once this has
    /// returned; `open` is the file, for the next time.
    ///
    /// # Errors
    /// Those of the file system, and [`REWRITES_MAX`] files moved away in a row.
    pub fn write_in_place(
        &self,
        name: &str,
        open: &mut Option<File>,
        write: impl Fn(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        for _ in 0..REWRITES_MAX {
            let mut file = match open.take() {
                Some(file) if self.leads_to(name, &file) => file,
                _ => self.open_on_disk(name)?,
            };
            write(&mut file)?;
            if self.leads_to(name, &file) && !is_cut(&file)? {
                *open = Some(file);
                return Ok(());
            }
        }
        let why = format!("{name} is moved away whenever it is written");
        Err(io::Error::other(why))
    }

    /// Whether the path of a file leads to the one that is open, and not by a link,
    /// which would not be followed to open it again.
    #[must_use]
    pub fn leads_to(&self, name: &str, file: &File) -> bool {
        let path = self.name.join(name);
        let found = statat(self.folder.file(), path, AtFlags::SYMLINK_NOFOLLOW);
        match (found, fstat(file)) {
            (Ok(found), Ok(open)) => (found.st_dev, found.st_ino) == (open.st_dev, open.st_ino),
            _ => false,
        }
    }

    /// Opens a file of the session, and not where a link leads that another user has
    /// put in the folder's place.
    ///
    /// # Errors
    /// Those of the file system, and `NotFound` where the base folder was moved.
    pub fn open(&self, name: &str) -> io::Result<File> {
        self.folder.check_in_place()?;
        let path = self.path();
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !fs::symlink_metadata(&path)?.is_dir() {
            let why = format!("{} is no folder", path.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
        }
        create_private(&path.join(name), true)
    }

    /// Opens a file so that it survives a power cut, with the folder that may have
    /// been made for it.
    fn open_on_disk(&self, name: &str) -> io::Result<File> {
        let file = self.open(name)?;
        file.sync_all()?;
        sync_folder(&self.path())?;
        self.folder.file().sync_all()?;
        Ok(file)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }
}

/// Whether the file was truncated after the last write to it.
fn is_cut(mut file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.len() < file.stream_position()?)
}

/// Removes all sessions but the newest, so that [`SESSIONS_KEPT`] are left with this
/// life's `own`, and those that hold anything but the agent's own two running logs:
/// records set aside, or what an operator keeps there.
pub fn prune(folder: &Folder, own: &Session) {
    let mut sessions = sessions(folder);
    sessions.retain(|name| *own.name != **name);
    let old = sessions.len().saturating_sub(SESSIONS_KEPT - 1);
    for session in sessions.iter().take(old) {
        let _ = remove_session(folder, session);
    }
}

/// The names of all sessions, the oldest first.
fn sessions(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).into_iter().flatten().flatten();
    let mut sessions: Vec<String> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_session(name))
        .collect();
    sessions.sort_unstable_by(|a, b| session_order(a).cmp(&session_order(b)));
    sessions
}

/// Removes a session that holds nothing but the two running logs. It is opened
/// once: another user may put a link in its place meanwhile.
fn remove_session(folder: &Folder, name: &str) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let session = openat(folder.file(), name, flags, Mode::empty())?;
    for entry in Dir::read_from(&session)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let found = statat(&session, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        let mut logs = RUNNING_LOGS.iter().map(|log| log.as_bytes());
        if !is_file || !logs.any(|log| log == name.to_bytes()) {
            return Ok(());
        }
    }
    for log in RUNNING_LOGS {
        let _ = unlinkat(&session, log, AtFlags::empty());
    }
    Ok(unlinkat(folder.file(), name, AtFlags::REMOVEDIR)?)
}

/// Whether a name in the base folder is a session's.
#[must_use]
pub fn is_session(name: &str) -> bool {
    session_order(name).is_some()
}

/// What sessions sort by, the oldest first: the time, then the number within its
/// second. `None`: it is no session's name.
fn session_order(name: &str) -> Option<(&str, u64)> {
    let (time, suffix) = name.split_at_checked(SESSION_PATTERN.len())?;
    let fits = |(is, wanted): (u8, &u8)| match wanted {
        b'0' => is.is_ascii_digit(),
        _ => is == *wanted,
    };
    if !time.bytes().zip(SESSION_PATTERN).all(fits) {
        return None;
    }
    if suffix.is_empty() {
        return Some((time, 1));
    }
    let number: u64 = suffix.strip_prefix('-')?.parse().ok()?;
    (number > 1 && suffix == format!("-{number}")).then_some((time, number))
}

#[cfg(test)]
mod tests {
    use super::session_order;

    #[test]
    fn a_session_is_known_by_its_whole_name_and_sorts_by_time_and_number() {
        let sessions = [
            "session-2025-12-31T23-59-59Z-2",
            "session-2026-01-02T15-04-05Z",
            "session-2026-01-02T15-04-05Z-2",
            "session-2026-01-02T15-04-05Z-9",
            "session-2026-01-02T15-04-05Z-10",
            "session-2026-01-02T15-04-06Z",
        ];
        let orders: Vec<_> = sessions.map(session_order).into();
        assert!(orders.iter().all(Option::is_some) && orders.is_sorted());
        for other in [
            "session-",
            "session-of-another-program",
            "session-2026-01-02T15-04-05",
            "session-2026-01-02T15:04:05Z",
            "session-2026-01-02T15-04-05Z-",
            "session-2026-01-02T15-04-05Z-1",
            "session-2026-01-02T15-04-05Z-02",
            "session-2026-01-02T15-04-05Z-+2",
            "session-2026-01-02T15-04-05Z-2-2",
            "session-2026-01-02T15-04-05Z.old",
            "session-2026-01-02T15-04-05Z-99999999999999999999",
            "Session-2026-01-02T15-04-05Z",
            "session-\u{660}026-01-02T15-04-05Z",
        ] {
            assert_eq!(session_order(other), None, "{other}");
        }
    }
}
