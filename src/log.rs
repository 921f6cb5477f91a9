//! Files of lines.

use std::fs::File;
use std::io::{self, Write};

/// A log that a full disk costs lines, and nothing else: a line that cannot be
/// written is dropped, and the next one is tried anew.
pub struct Log {
    open: Box<dyn Fn() -> io::Result<File> + Send + Sync>,
    file: Option<File>,
}

impl Log {
    /// The file that `open` opens, now or when there is a way.
    pub fn new(open: impl Fn() -> io::Result<File> + Send + Sync + 'static) -> Log {
        Log {
            file: open().ok(),
            open: Box::new(open),
        }
    }

    /// Appends a line, its end included.
    pub fn append(&mut self, line: &str) {
        if self.file.is_none() {
            self.file = (self.open)().ok();
        }
        if let Some(file) = &mut self.file {
            let _ = append(file, line, |_| Ok(()));
        }
    }
}

/// Appends a line, its end included, and does with the file what is to be `done`
/// then. Where either fails, the file is as it was before.
///
/// # Errors
/// Those of the file system.
pub fn append(
    file: &mut File,
    line: &str,
    done: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let before = file.metadata()?.len();
    let written = file.write_all(line.as_bytes()).and_then(|()| done(file));
    if written.is_err() {
        let _ = file.set_len(before);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_tried_again_and_no_line_is_left_half() {
        let path = std::env::temp_dir().join(format!("log-{}", std::process::id()));
        let text = || std::fs::read_to_string(&path).unwrap();
        let file = path.clone();
        let mut log = Log::new(move || File::options().append(true).open(&file));
        log.append("lost\n");
        std::fs::write(&path, "").unwrap();
        log.append("first\n");
        log.append("second\n");
        assert_eq!(text(), "first\nsecond\n");
        let mut file = File::options().append(true).open(&path).unwrap();
        let full = |_: &File| Err(io::ErrorKind::StorageFull.into());
        assert!(append(&mut file, "half", full).is_err());
        log.append("third\n");
        assert_eq!(text(), "first\nsecond\nthird\n");
        std::fs::remove_file(&path).unwrap();
    }
}
