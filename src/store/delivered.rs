//! How far the records are delivered, in a file beside LMDB's: the successor of a
//! killed agent goes on from there, and so does the salvage of a damaged store. It is
//! written more often than deletes are committed, and not flushed: after a power cut
//! it may be older, or nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::store::record::StoreId;

pub(super) const NAME: &str = "delivered";
/// The store's id, the key, and the CRC-32 of both, big-endian.
const LENGTH: usize = 16 + 8 + 4;

/// The file.
pub(super) struct DeliveredFile {
    path: PathBuf,
    id: StoreId,
    file: Option<File>,
}

impl DeliveredFile {
    /// The file in the store's folder, and the key up to which the records of the store
    /// `id` were delivered; `None` where it does not say.
    pub(super) fn open(folder: &Path, id: StoreId) -> (DeliveredFile, Option<u64>) {
        let through = read(folder).and_then(|(of, through)| (of == id).then_some(through));
        let path = folder.join(NAME);
        let file = None;
        (DeliveredFile { path, id, file }, through)
    }

    /// Keeps that every record up to the key `through` is delivered or set aside.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn write(&mut self, through: u64) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => options().write(true).create(true).open(&self.path)?,
        };
        let written = file.write_all_at(&encode(&self.id, through), 0);
        self.file = Some(file);
        written
    }
}

/// What the file in `folder` says: of which store, and up to which key.
pub(super) fn read(folder: &Path) -> Option<(StoreId, u64)> {
    let mut bytes = [0; LENGTH];
    let file = options().read(true).open(folder.join(NAME)).ok()?;
    file.read_exact_at(&mut bytes, 0).ok()?;
    decode(&bytes)
}

/// Private, through no link, and without waiting where it is a pipe.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

fn encode(id: &StoreId, through: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let (body, crc) = bytes.split_at_mut(LENGTH - 4);
    let (id_bytes, key_bytes) = body.split_at_mut(id.len());
    id_bytes.copy_from_slice(id);
    key_bytes.copy_from_slice(&through.to_be_bytes());
    crc.copy_from_slice(&crc32fast::hash(body).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; LENGTH]) -> Option<(StoreId, u64)> {
    let id = bytes.get(..16)?.try_into().ok()?;
    let through = u64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?);
    (encode(&id, through) == *bytes).then_some((id, through))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_only_whole() {
        let bytes = encode(&[7; 16], 42);
        assert_eq!(decode(&bytes), Some(([7; 16], 42)));
        for at in 0..LENGTH * 8 {
            let mut bad = bytes;
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(&bad), None, "bit {at}");
        }
        assert_eq!(decode(&[0; LENGTH]), None);
    }

    #[test]
    fn it_counts_for_its_own_store() {
        let folder = tempfile::tempdir().unwrap();
        DeliveredFile::open(folder.path(), [7; 16])
            .0
            .write(42)
            .unwrap();
        assert_eq!(DeliveredFile::open(folder.path(), [7; 16]).1, Some(42));
        assert_eq!(DeliveredFile::open(folder.path(), [8; 16]).1, None);
    }

    #[test]
    fn what_is_no_file_says_nothing_and_does_not_block() {
        let fifo = |path: &Path| {
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made?.success());
            Ok(())
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        for make in [
            fifo,
            |path: &Path| std::fs::create_dir(path),
            |path: &Path| std::os::unix::fs::symlink("nowhere", path),
        ] as [fn(&Path) -> io::Result<()>; 3]
        {
            make(&path).unwrap();
            let (mut delivered, through) = DeliveredFile::open(folder.path(), [7; 16]);
            assert_eq!(through, None);
            assert!(delivered.write(1).is_err());
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
    }
}
