//! How far the records are delivered, in a file beside LMDB's: a killed agent's
//! successor goes on from there. It is written more often than deletes are
//! committed, and not flushed: after a power cut it may be older, or nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::store::lmdb::StoreId;

pub(super) const NAME: &str = "delivered";
/// The store's id, the key, and the CRC-32 of both, big-endian.
const LENGTH: usize = 16 + 8 + 4;

/// The file.
pub(super) struct MarkFile {
    path: PathBuf,
    id: StoreId,
    file: Option<File>,
}

impl MarkFile {
    /// The file in the store's folder, and how far the records of the store `id`
    /// were delivered; `None` where it does not say. Then it is written at once: what
    /// has its place on the disk can be written over when the disk is full.
    pub(super) fn open(folder: &Path, id: StoreId) -> (MarkFile, Option<u64>) {
        let path = folder.join(NAME);
        let mut bytes = [0; LENGTH];
        let read = options()
            .read(true)
            .open(&path)
            .and_then(|file| file.read_exact_at(&mut bytes, 0));
        let key = read.ok().and_then(|()| decode(&bytes, &id));
        let file = None;
        let mut mark = MarkFile { path, id, file };
        if key.is_none() {
            let _ = mark.write(0);
        }
        (mark, key)
    }

    /// Notes that every record up to `key` is done with.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&mut self, key: u64) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => options().write(true).create(true).open(&self.path)?,
        };
        let written = file.write_all_at(&encode(&self.id, key), 0);
        self.file = Some(file);
        written
    }
}

/// Private, through no link, and without waiting where it is a pipe.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

fn encode(id: &StoreId, key: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let (body, crc) = bytes.split_at_mut(LENGTH - 4);
    let (id_bytes, key_bytes) = body.split_at_mut(id.len());
    id_bytes.copy_from_slice(id);
    key_bytes.copy_from_slice(&key.to_be_bytes());
    crc.copy_from_slice(&crc32fast::hash(body).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; LENGTH], id: &StoreId) -> Option<u64> {
    let key = u64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?);
    (encode(id, key) == *bytes).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts_for_its_own_store_and_only_whole() {
        let (id, other) = ([7; 16], [8; 16]);
        let bytes = encode(&id, 42);
        assert_eq!(decode(&bytes, &id), Some(42));
        assert_eq!(decode(&bytes, &other), None);
        for at in 0..LENGTH * 8 {
            let mut bad = bytes;
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(&bad, &id), None, "bit {at}");
        }
        assert_eq!(decode(&[0; LENGTH], &id), None);
        assert_eq!(decode(&[0; LENGTH], &[0; 16]), None);
    }

    #[test]
    fn what_is_no_file_says_nothing_and_keeps_nobody_waiting() {
        use rustix::fs::{CWD, Mode, mkfifoat};
        let folder = std::env::temp_dir().join(format!("mark-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join(NAME);
        for make in [
            |path: &Path| Ok(mkfifoat(CWD, path, Mode::RWXU)?),
            |path: &Path| std::fs::create_dir(path),
            |path: &Path| std::os::unix::fs::symlink("nowhere", path),
        ] as [fn(&Path) -> io::Result<()>; 3]
        {
            make(&path).unwrap();
            let (mut mark, key) = MarkFile::open(&folder, [7; 16]);
            assert_eq!(key, None);
            assert!(mark.write(1).is_err());
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
