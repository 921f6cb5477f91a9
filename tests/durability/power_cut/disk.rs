//! A disk as a power cut leaves it: all that was flushed, and of the rest what
//! chance has it.
//!
//! - A file keeps what `fsync` or `fdatasync` covered, and each write through
//!   `O_DSYNC` (that one write and nothing else). Of every other sector any
//!   version since then may be there, each on its own: writes are torn and
//!   reordered. Its length is any it has had since.
//! - A name is certain after an `fsync` of its folder only. Names of one folder
//!   change in order, as every file system with a journal has it; those of two
//!   folders, and contents, in any.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::power_cut::recording::Op;
use crate::support::rng::Rng;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// How lucky the unflushed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    /// Nothing of it is there.
    None,
    /// All of it: no power cut, but a SIGKILL.
    All,
    /// Each sector and each name for itself, with so many chances in ten.
    Some(u64),
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Sector number and what it has held since the last flush.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    lengths: Vec<usize>,
}

type Names = BTreeMap<String, usize>;

#[derive(Default)]
struct Folder {
    durable: Names,
    now: Names,
    /// How it has looked since the last flush.
    since: Vec<Names>,
}

enum Node {
    File(File),
    Folder(Folder),
}

/// The files under one folder.
pub struct Disk {
    nodes: Vec<Node>,
    /// The file system gives the number of a file that is gone to another one.
    by_inode: HashMap<u64, usize>,
}

impl Disk {
    /// All that is in `root` now, as if flushed.
    pub fn flushed(root: &Path) -> Disk {
        let mut disk = Disk {
            nodes: Vec::new(),
            by_inode: HashMap::new(),
        };
        disk.read_in(root);
        disk
    }

    fn read_in(&mut self, path: &Path) -> usize {
        let found = fs::symlink_metadata(path).expect("the file");
        let at = self.nodes.len();
        self.by_inode.insert(found.ino(), at);
        if !found.is_dir() {
            let durable = fs::read(path).expect("the content");
            self.nodes.push(Node::File(File {
                now: durable.clone(),
                durable,
                ..File::default()
            }));
            return at;
        }
        self.nodes.push(Node::Folder(Folder::default()));
        let mut names = Names::new();
        for entry in fs::read_dir(path).expect("the folder") {
            let entry = entry.expect("a folder entry");
            let name = entry.file_name().into_string().expect("a name in UTF-8");
            let kind = entry.file_type().expect("its type");
            if !kind.is_dir() && !kind.is_file() {
                continue;
            }
            names.insert(name, self.read_in(&entry.path()));
        }
        self.nodes[at] = Node::Folder(Folder {
            now: names.clone(),
            durable: names,
            since: Vec::new(),
        });
        at
    }

    /// Does what the process did. What lies elsewhere is passed over.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Write {
                file,
                durable,
                offset,
                bytes,
            } => {
                if let Some(file) = self.file(*file) {
                    file.write(usize::try_from(*offset).unwrap(), bytes, *durable);
                }
            }
            Op::Length { file, length } => {
                if let Some(file) = self.file(*file) {
                    assert_eq!(*length, 0, "only an empty file is known to be made so");
                    file.now.clear();
                    file.dirty.clear();
                    file.lengths.push(0);
                }
            }
            Op::Flush { inode } => match self.by_inode.get(inode).map(|&at| &mut self.nodes[at]) {
                Some(Node::File(file)) => file.flush(),
                Some(Node::Folder(folder)) => {
                    folder.durable = folder.now.clone();
                    folder.since.clear();
                }
                None => {}
            },
            Op::NewFile {
                folder,
                inode,
                name,
            } => self.add(*folder, *inode, name, Node::File(File::default())),
            Op::NewFolder {
                folder,
                inode,
                name,
            } => self.add(*folder, *inode, name, Node::Folder(Folder::default())),
            Op::Remove { folder, name } => self.rename(*folder, name, None),
            Op::Rename { folder, from, to } => self.rename(*folder, from, Some(to)),
        }
    }

    /// The content of `path` as the process sees it.
    pub fn now(&self, path: &[&str]) -> Option<&[u8]> {
        let mut at = 0;
        for name in path {
            let Node::Folder(folder) = &self.nodes[at] else {
                return None;
            };
            at = *folder.now.get(*name)?;
        }
        match &self.nodes[at] {
            Node::File(file) => Some(&file.now),
            Node::Folder(_) => None,
        }
    }

    /// Writes to `target` what the root may look like after a power cut now.
    pub fn image(&self, target: &Path, luck: Luck, rng: &mut Rng) {
        self.build(0, target, luck, rng);
    }

    fn build(&self, at: usize, target: &Path, luck: Luck, rng: &mut Rng) {
        match &self.nodes[at] {
            Node::File(file) => fs::write(target, file.after_cut(luck, rng)).expect("write"),
            Node::Folder(folder) => {
                fs::create_dir_all(target).expect("create a folder");
                for (name, &child) in folder.after_cut(luck, rng) {
                    self.build(child, &target.join(name), luck, rng);
                }
            }
        }
    }

    fn file(&mut self, inode: u64) -> Option<&mut File> {
        match &mut self.nodes[*self.by_inode.get(&inode)?] {
            Node::File(file) => Some(file),
            Node::Folder(_) => None,
        }
    }

    fn folder(&mut self, inode: u64) -> Option<&mut Folder> {
        match &mut self.nodes[*self.by_inode.get(&inode)?] {
            Node::Folder(folder) => Some(folder),
            Node::File(_) => None,
        }
    }

    fn add(&mut self, folder: u64, inode: u64, name: &str, node: Node) {
        let at = self.nodes.len();
        let Some(folder) = self.folder(folder) else {
            return;
        };
        folder.change(|names| {
            names.insert(name.to_owned(), at);
        });
        self.nodes.push(node);
        self.by_inode.insert(inode, at);
    }

    /// A socket is renamed and removed as a file is, but never seen to be made.
    fn rename(&mut self, folder: u64, from: &str, to: Option<&str>) {
        if let Some(folder) = self.folder(folder)
            && let Some(&at) = folder.now.get(from)
        {
            folder.change(|names| {
                names.remove(from);
                if let Some(to) = to {
                    names.insert(to.to_owned(), at);
                }
            });
        }
    }
}

impl Folder {
    fn change(&mut self, change: impl FnOnce(&mut Names)) {
        self.since.push(self.now.clone());
        change(&mut self.now);
    }

    fn after_cut(&self, luck: Luck, rng: &mut Rng) -> &Names {
        match luck {
            Luck::None => &self.durable,
            Luck::All => &self.now,
            Luck::Some(_) => {
                let versions = self.since.len() + 1;
                let chosen = rng.index(versions);
                self.since.get(chosen).unwrap_or(&self.now)
            }
        }
    }
}

impl File {
    fn write(&mut self, offset: usize, bytes: &[u8], durable: bool) {
        let end = offset + bytes.len();
        if end > self.now.len() {
            self.lengths.push(self.now.len());
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let start = sector * SECTOR;
            let held = self.now[start..self.now.len().min(start + SECTOR)].to_vec();
            if durable {
                self.dirty.remove(&sector);
                put(&mut self.durable, start, &held);
            } else {
                self.dirty.entry(sector).or_default().push(held);
            }
        }
    }

    fn flush(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            put(
                &mut self.durable,
                sector * SECTOR,
                &versions[versions.len() - 1],
            );
        }
        self.durable.resize(self.now.len(), 0);
        self.lengths.clear();
        assert!(self.durable == self.now, "the sectors make up the file");
    }

    fn after_cut(&self, luck: Luck, rng: &mut Rng) -> Vec<u8> {
        let chances = match luck {
            Luck::None => return self.durable.clone(),
            Luck::All => return self.now.clone(),
            Luck::Some(chances) => chances,
        };
        let mut image = self.durable.clone();
        for (sector, versions) in &self.dirty {
            if rng.below(10) < chances {
                let chosen = rng.index(versions.len());
                put(&mut image, sector * SECTOR, &versions[chosen]);
            }
        }
        // What is durable cannot be cut off.
        let lengths = self.lengths.len() + 1;
        let chosen = rng.index(lengths);
        let length = *self.lengths.get(chosen).unwrap_or(&self.now.len());
        image.resize(length.max(self.durable.len()), 0);
        image
    }
}

/// Overwrites, and extends with zeros where there is a gap.
fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}
