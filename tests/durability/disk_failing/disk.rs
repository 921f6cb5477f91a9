//! A disk that fails on demand: a library between the agent and the C library.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::support::{agent::Builder, preload, temp_folder};

/// What one agent's disk does, and what it was asked to do. Paths are matched by
/// a part of them.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// One that works.
    pub fn new() -> Disk {
        let folder = temp_folder();
        std::fs::write(folder.path().join("plan"), "").expect("write the plan");
        Disk { folder }
    }

    /// Puts it between the agent and the disk.
    pub fn under(&self, agent: Builder) -> Builder {
        let path = |name: &str| self.path(name).to_str().expect("UTF-8").to_owned();
        agent
            .preload(library())
            .env("DISK_PLAN", &path("plan"))
            .env("DISK_LOG", &path("disk-log"))
    }

    /// From now on `call` (open, write, flush, meta, sync_folder) does `what`
    /// (the number of an error, `short`, or 0: wait) on such paths.
    pub fn plan(&self, call: &str, path: &str, what: &str) {
        self.set(&format!("{call} {path} {what}\n"));
    }

    /// Has room for no more than half of what is written.
    pub fn fill_up(&self, path: &str, beside: &str) {
        self.set(&format!("write {path} short\nwrite {beside} 28\n"));
    }

    /// It works again.
    pub fn mend(&self) {
        self.set("");
    }

    /// How often `call` was made on such paths; `waiting`: held up.
    pub fn count(&self, call: &str, path: &str) -> usize {
        let log = std::fs::read_to_string(self.path("disk-log")).unwrap_or_default();
        log.lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(made, on)| *made == call && on.contains(path))
            .count()
    }

    /// In one step: the agent reads it at any moment.
    fn set(&self, plan: &str) {
        std::fs::write(self.path("next"), plan).expect("write the plan");
        std::fs::rename(self.path("next"), self.path("plan")).expect("put the plan in place");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The library, compiled once a test process.
fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failing-disk.so");
        preload::compile("tests/durability/disk_failing/shim.c", &library)
    });
    &LIBRARY
}
