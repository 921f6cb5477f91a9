//! What a process did to its files, in order (see `shim.c`).

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::agent::{Agent, Builder};
use crate::support::preload;

/// One call that changed something. Files and folders go by their inodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Write {
        file: u64,
        /// Through a descriptor with `O_DSYNC`: durable by itself.
        durable: bool,
        offset: u64,
        bytes: Vec<u8>,
    },
    Length {
        file: u64,
        length: u64,
    },
    /// fsync or fdatasync of a file or a folder.
    Flush {
        inode: u64,
    },
    NewFile {
        folder: u64,
        inode: u64,
        name: String,
    },
    NewFolder {
        folder: u64,
        inode: u64,
        name: String,
    },
    Remove {
        folder: u64,
        name: String,
    },
    Rename {
        folder: u64,
        from: String,
        to: String,
    },
}

/// A log that agents append to, and that a test may look at meanwhile.
pub struct Recorder {
    shim: PathBuf,
    log: PathBuf,
}

/// How much had been recorded at some moment, in bytes. Whatever was recorded
/// up to there had happened by then.
pub type Mark = u64;

impl Recorder {
    /// Compiles the shim into `folder` and begins an empty log there.
    pub fn new(folder: &Path) -> Recorder {
        let log = folder.join("recording");
        let shim = preload::compile("tests/durability/power_cut/shim.c", &folder.join("shim.so"));
        fs::write(&log, b"").expect("an empty log");
        Recorder { shim, log }
    }

    /// An agent on `folder` that is recorded.
    pub fn agent(&self, folder: &Path) -> Builder {
        Agent::builder(folder)
            .preload(&self.shim)
            .env("ECHOPOST_RECORDING", &self.log.to_string_lossy())
    }

    /// Forgets what was recorded. No agent may be running.
    pub fn forget(&self) {
        fs::write(&self.log, b"").expect("an empty log");
    }

    /// A function that tells how much has been recorded.
    pub fn marker(&self) -> impl Fn() -> Mark + Send + Clone + 'static {
        let log = self.log.clone();
        move || fs::metadata(&log).expect("the log").len()
    }

    /// All that was recorded, each with the mark right after it.
    pub fn ops(&self) -> Vec<(Mark, Op)> {
        let bytes = fs::read(&self.log).expect("the log");
        let mut rest = bytes.as_slice();
        let mut ops = Vec::new();
        while !rest.is_empty() {
            let op = parse(&mut rest);
            ops.push(((bytes.len() - rest.len()) as Mark, op));
        }
        ops
    }
}

fn parse(rest: &mut &[u8]) -> Op {
    let head = rest.split_off(..32).expect("a whole head");
    let number = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().unwrap());
    let length = u32::from_ne_bytes(head[4..8].try_into().unwrap()) as usize;
    let (a, b, offset) = (number(8), number(16), number(24));
    let data = rest.split_off(..length).expect("whole data");
    let name = || String::from_utf8(data.to_vec()).expect("a name in UTF-8");
    match head[0] {
        b'W' => Op::Write {
            file: a,
            durable: b == 1,
            offset,
            bytes: data.to_vec(),
        },
        b'T' => Op::Length { file: a, length: b },
        b'S' => Op::Flush { inode: a },
        b'C' => Op::NewFile {
            folder: a,
            inode: b,
            name: name(),
        },
        b'D' => Op::NewFolder {
            folder: a,
            inode: b,
            name: name(),
        },
        b'U' => Op::Remove {
            folder: a,
            name: name(),
        },
        b'R' => {
            assert_eq!(a, b, "a rename from one folder to another");
            let names = name();
            let (from, to) = names.split_once('\0').expect("two names");
            Op::Rename {
                folder: a,
                from: from.to_owned(),
                to: to.to_owned(),
            }
        }
        kind => panic!("kind {kind}"),
    }
}
