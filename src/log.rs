//! The logs of a session (spec 2): files of lines, made again at their path where
//! they were moved away.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::time::Instant;

use crate::limits::LOG_CHECK_INTERVAL;
use crate::session::Session;

/// A running log. A full disk costs lines, and nothing else: a line that cannot be
/// written is dropped, and the next one is tried anew.
pub struct Log {
    session: Session,
    name: &'static str,
    file: Option<File>,
    /// When the path was last seen to lead to the file.
    checked: Instant,
}

impl Log {
    /// Opens the log, now or when there is a way.
    #[must_use]
    pub fn new(session: Session, name: &'static str) -> Log {
        Log {
            file: session.open(name).ok(),
            checked: Instant::now(),
            session,
            name,
        }
    }

    /// Appends a line, its end included.
    pub fn append(&mut self, line: &str) {
        if self.checked.elapsed() >= LOG_CHECK_INTERVAL {
            self.checked = Instant::now();
            let away = |file: &File| !self.session.leads_to(self.name, file);
            if self.file.as_ref().is_some_and(away) {
                // Where that fails, a log elsewhere is better than none.
                self.file = self.session.open(self.name).ok().or(self.file.take());
            }
        }
        if self.file.is_none() {
            self.file = self.session.open(self.name).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = append(file, line, |_| Ok(()));
        }
    }
}

const FAILURE_LOG: &str = "agent-failure.log";

/// `agent-failure.log`, the only place of the records in it.
pub struct FailureLog {
    session: Session,
    file: Option<File>,
}

impl FailureLog {
    /// The log of that session; no file is made yet.
    #[must_use]
    pub fn new(session: Session) -> FailureLog {
        FailureLog {
            session,
            file: None,
        }
    }

    /// Appends a line, its end included: on disk, in a file that stands at the log's
    /// path then. Where that fails, the file is as it was before.
    ///
    /// # Errors
    /// Those of the file system: the record must stay in the store.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        let write = |file: &mut File| append(file, line, File::sync_data);
        self.session
            .write_in_place(FAILURE_LOG, &mut self.file, write)
    }
}

/// Appends a line, its end included, and does with the file what is to be `done`
/// then. Where either fails, what was written of it is taken back.
fn append(
    file: &mut File,
    line: &str,
    done: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let taken = file.write(line.as_bytes())?;
    let written = match taken == line.len() {
        true => done(file),
        false => Err(io::ErrorKind::StorageFull.into()),
    };
    if written.is_err() {
        let _ = take_back(file, taken as u64);
    }
    written
}

/// Cuts off what the last write has appended, where it still ends the file: others
/// may have truncated the file, which must not become longer, or written to it.
fn take_back(file: &mut File, length: u64) -> io::Result<()> {
    let end = file.stream_position()?;
    let start = end.saturating_sub(length);
    let now = file.metadata()?.len();
    if start < now && now <= end {
        file.set_len(start)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::SystemTime;

    fn session(base: &Path) -> Session {
        let folder = Arc::new(Folder::open(base).unwrap());
        Session::new(&folder, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn what_cannot_be_opened_is_tried_again() {
        let base = tempfile::tempdir().unwrap();
        let place = base.path().join("session-1970-01-01T00-00-00Z");
        let session = session(base.path());
        std::fs::write(&place, "in the way").unwrap();
        let mut log = Log::new(session, "agent.log");
        log.append("lost\n");
        std::fs::remove_file(&place).unwrap();
        log.append("first\n");
        log.append("second\n");
        let text = std::fs::read_to_string(place.join("agent.log")).unwrap();
        assert_eq!(text, "first\nsecond\n");
    }

    #[test]
    fn a_failed_append_takes_back_its_own_line_and_no_other() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("log");
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        append(&mut file, "first\n", |_| Ok(())).unwrap();
        // What happens between the write and the flush that fails, and what is left.
        type Meanwhile = fn(&Path);
        let cases: [(Meanwhile, &str); 4] = [
            (|_| (), "first\n"),
            (
                |path| append_to(path, "another's\n"),
                "first\nlineanother's\n",
            ),
            (|path| truncate(path, 2), "fi"),
            (|path| truncate(path, 0), ""),
        ];
        for (meanwhile, left) in cases {
            let failed = append(&mut file, "line", |_| {
                meanwhile(&path);
                Err(io::ErrorKind::StorageFull.into())
            });
            assert!(failed.is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left);
        }
        append(&mut file, "next\n", |_| Ok(())).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next\n");
    }

    fn append_to(path: &Path, text: &str) {
        let mut file = File::options().append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn truncate(path: &Path, length: u64) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(length).unwrap();
    }
}
