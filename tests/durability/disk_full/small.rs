//! A small file system of the test's own, in a mount namespace that no other
//! process sees and that is gone with its holder.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::agent::{Agent, Builder};
use crate::support::server::MainServer;
use crate::support::temp_folder;

const FILLER: &str = "filler";
const BLOCK: usize = 4096;

/// The file systems that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tmpfs,
    Ext4,
}

pub struct SmallDisk {
    holder: Child,
    /// Where it is mounted, in the holder's namespace.
    inner: tempfile::TempDir,
    /// The same place, for every other process.
    outer: PathBuf,
}

impl SmallDisk {
    /// One of 16 MiB.
    pub fn new(kind: Kind) -> SmallDisk {
        SmallDisk::with_mebibytes(kind, 16)
    }

    /// One of so many MiB. It takes root, and for ext4 a loop device.
    pub fn with_mebibytes(kind: Kind, mebibytes: u32) -> SmallDisk {
        let inner = temp_folder();
        let mount = match kind {
            Kind::Tmpfs => format!("mount -t tmpfs -o size={mebibytes}m tmpfs \"$0\""),
            // Without blocks set apart for root, which runs this test. Direct I/O
            // keeps the image out of the page cache, where it would count once
            // more as the agent's memory.
            Kind::Ext4 => format!(
                "truncate -s {mebibytes}M \"$0\"/image && \
                 mkfs.ext4 -q -F -m 0 -b 4096 \"$0\"/image && \
                 loop=$(losetup --find --show --direct-io=on \"$0\"/image) && \
                 {{ mount \"$loop\" \"$0\"; mounted=$?; \
                 losetup --detach \"$loop\"; [ $mounted = 0 ]; }}"
            ),
        };
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(format!(
                "{mount} && chmod 0700 \"$0\" && echo ready && exec cat"
            ))
            .arg(inner.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("a pipe");
        let ready = BufReader::new(stdout).read_line(&mut line);
        let outer = inner.path().strip_prefix("/").expect("an absolute path");
        let outer = Path::new("/proc")
            .join(holder.id().to_string())
            .join("root")
            .join(outer);
        let is_ready = ready.is_ok_and(|_| line == "ready\n");
        assert!(is_ready, "{kind:?} cannot be mounted here");
        SmallDisk {
            holder,
            inner,
            outer,
        }
    }

    /// Where the agent's folder is.
    pub fn folder(&self) -> &Path {
        &self.outer
    }

    pub fn agent(&self, server: &MainServer) -> Builder {
        let exe = Path::new(Agent::executable());
        self.agent_by_shell("exec \"$0\" \"$@\"", exe, server)
    }

    /// That executable by way of a shell: `script` ends in `exec "$0" "$@"`.
    pub fn agent_by_shell(&self, script: &str, exe: &Path, server: &MainServer) -> Builder {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .args(["sh", "-c", script])
            .arg(exe);
        // Of two folders the last one counts.
        Agent::from_command(command, &self.outer)
            .health_url(&server.url())
            .arg("-datanadhi")
            .arg(self.inner.path().to_str().expect("UTF-8"))
    }

    /// Bytes that are available.
    pub fn available(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.outer).expect("statvfs");
        stat.f_bavail * stat.f_frsize
    }

    /// Takes all there is but for so many blocks.
    pub fn fill(&self, blocks_left: usize) {
        let path = self.outer.join(FILLER);
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create(true)
            .open(path)
            .expect("a filler");
        for chunk in [64 * BLOCK, BLOCK, BLOCK] {
            while self.write(&mut file, chunk) {}
            // Blocks that were only promised are looked for now.
            file.sync_all().expect("flush");
        }
        let length = file.metadata().expect("its size").len();
        file.set_len(length - (blocks_left * BLOCK) as u64)
            .expect("give back");
        file.sync_all().expect("flush");
    }

    /// Takes so many bytes.
    pub fn fill_bytes(&self, bytes: usize) {
        let path = self.outer.join(FILLER);
        std::fs::write(path, vec![1; bytes]).expect("a filler");
    }

    /// False when there is no room.
    fn write(&self, file: &mut File, bytes: usize) -> bool {
        match file.write(&vec![1; bytes]) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::StorageFull => false,
            Err(error) => panic!("fill the disk: {error}"),
        }
    }

    /// Gives everything back.
    pub fn empty(&self) {
        std::fs::remove_file(self.outer.join(FILLER)).expect("remove the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its namespace goes with it, and with that the mount.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
