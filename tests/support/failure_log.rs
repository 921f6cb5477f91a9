//! An `agent-failure.log` as an operator sends it again: what of it can be sent,
//! and what is left of it afterwards.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::samples::{Sample, parse};

/// A line that is not blank.
pub struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// The whole of it, with its end where it has one.
    bytes: Vec<u8>,
    /// What is sent, or why nothing is.
    pub content: Result<Sample, String>,
}

/// Reads a file of records: an `agent-failure.log`, what was kept of one, or
/// samples. Lines that hold no record to send say why; only a record that needs
/// the key it came with fails the whole, as there is a remedy.
pub fn read(path: &Path, api_key: Option<&str>) -> Result<Vec<Line>, String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("{name}: {error}"))?;
    let mut lines = Vec::new();
    let mut without_key = 0;
    for (at, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let value = serde_json::from_slice::<Value>(line);
        let own_key = matches!(&value, Ok(value) if value["api_key_own"] == true);
        let content = match value {
            Ok(value) if value["intact"] == false => Err(damaged(&value)),
            Ok(_) if own_key && api_key.is_none() => {
                without_key += 1;
                continue;
            }
            Ok(value) => parse(&value, api_key),
            Err(_) if !line.ends_with(b"\n") => Err(CUT_OFF.to_owned()),
            Err(error) => Err(format!("no record: {error}")),
        };
        lines.push(Line {
            number: at + 1,
            bytes: line.to_vec(),
            content,
        });
    }
    if without_key > 0 {
        return Err(format!(
            "{name}: {without_key} of {} records came with an API key of their own, which no \
             file keeps; pass it with --api-key. Nothing was sent",
            lines.len() + without_key
        ));
    }
    Ok(lines)
}

/// The agent deletes a record only after its line is on disk.
const CUT_OFF: &str = "cut off, as by a crash while it was written; the agent had its record still";

fn damaged(value: &Value) -> String {
    let key = &value["key"];
    format!("not intact; the stored value is in damaged-{key} beside the log it comes from")
}

/// Where the lines go that were not stored: a file that is not there yet.
pub struct Keep(PathBuf);

impl Keep {
    /// `path`, or `FILE.failed` beside the file that is sent.
    pub fn new(path: Option<PathBuf>, from: &Path) -> Result<Keep, String> {
        let path = path.unwrap_or_else(|| {
            let mut name = from.as_os_str().to_owned();
            name.push(".failed");
            name.into()
        });
        let keep = Keep(path);
        let wrong = match keep.0.symlink_metadata() {
            Ok(_) => "is there already, and is not overwritten; name another file with --keep",
            Err(_) if !keep.folder().is_dir() => "there is no such folder",
            Err(_) => return Ok(keep),
        };
        let path = keep.0.display();
        Err(format!("{path}: {wrong}. Nothing was sent"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the lines byte for byte, and flushes them to disk. No file is made
    /// where there are none, or where they cannot all be written.
    pub fn write<'a>(&self, lines: impl Iterator<Item = &'a Line>) -> std::io::Result<()> {
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return Ok(());
        }
        // They are as private as the log.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.0)?;
        let written = lines
            .try_for_each(|line| file.write_all(&line.bytes))
            .and_then(|()| file.sync_all())
            .and_then(|()| File::open(self.folder())?.sync_all());
        if written.is_err() {
            let _ = std::fs::remove_file(&self.0);
        }
        written
    }

    fn folder(&self) -> &Path {
        match self.0.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }
}
