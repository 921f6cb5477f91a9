//! A name service that a test commands: a library between the agent and the C
//! library.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::support::agent::Builder;
use crate::support::{preload, temp_folder};

/// What one agent's lookups find.
pub struct Names {
    folder: tempfile::TempDir,
}

impl Names {
    /// `plan`: numeric addresses, `fail`, `hang`, `stuck` or `threadless`.
    pub fn new(plan: &str) -> Names {
        let names = Names {
            folder: temp_folder(),
        };
        names.set(plan);
        names
    }

    /// Puts it between the agent and the C library.
    pub fn under(&self, agent: Builder) -> Builder {
        let path = |name: &str| self.path(name).to_str().expect("UTF-8").to_owned();
        agent
            .preload(library())
            .env("NAMES_PLAN", &path("plan"))
            .env("NAMES_LOG", &path("log"))
    }

    /// From now on; also for a lookup that hangs.
    pub fn set(&self, plan: &str) {
        // In one step: the agent reads it at any moment.
        std::fs::write(self.path("next"), plan).expect("write the plan");
        std::fs::rename(self.path("next"), self.path("plan")).expect("put the plan in place");
    }

    /// How many lookups there were, with those that hang.
    pub fn lookups(&self) -> usize {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().count()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The library, compiled once a test process.
fn library() -> &'static Path {
    static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("names.so");
        preload::compile("tests/network/names/shim.c", &library)
    });
    &LIBRARY
}
