//! A memory cgroup of the test's own, version 1 or 2, with the agent in it alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::support::wait;

/// Where the hierarchies are mounted.
const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

pub struct Group {
    path: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What the kernel counted.
#[derive(Debug)]
pub struct Usage {
    /// Bytes at most, page cache and kernel memory included; None before
    /// Linux 5.19.
    pub peak: Option<u64>,
    /// How often the limit was met, and pages had to be given up.
    pub at_limit: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
}

impl Group {
    /// A group that may have so many bytes, and no swap.
    ///
    /// # Errors
    /// What is missing here.
    pub fn new(bytes: u64) -> Result<Group, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("echopost-{}-{number}", std::process::id());
        let (root, version) = root()?;
        let path = Path::new(root).join(name);
        let dir = path.display();
        // What is swapped out would not count as memory. A kernel without swap
        // has none of these files.
        let limits = match version {
            Version::One => format!(
                "echo {bytes} > {dir}/memory.limit_in_bytes && \
                 {{ [ ! -e {dir}/memory.memsw.limit_in_bytes ] || \
                    echo {bytes} > {dir}/memory.memsw.limit_in_bytes; }}"
            ),
            Version::Two => format!(
                "echo {bytes} > {dir}/memory.max && \
                 {{ [ ! -e {dir}/memory.swap.max ] || echo 0 > {dir}/memory.swap.max; }}"
            ),
        };
        let prepare = match version {
            Version::One => "true".to_owned(),
            Version::Two => format!("echo +memory > {root}/cgroup.subtree_control"),
        };
        // Made first: from here on it is removed at the end.
        run(&format!("{prepare} && mkdir {dir}"))?;
        let group = Group { path, version };
        run(&limits)?;
        Ok(group)
    }

    /// The command by which a shell moves itself into the group.
    pub fn join(&self) -> String {
        let procs = self.path.join("cgroup.procs");
        format!("echo $$ > {}", procs.display())
    }

    pub fn usage(&self) -> Usage {
        let number = |name: &str| self.read(name)?.trim().parse().ok();
        let counter = |file: &str, name: &str| {
            let text = self.read(file)?;
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(key, _)| *key == name)?.1.parse().ok()
        };
        match self.version {
            Version::One => Usage {
                peak: number("memory.max_usage_in_bytes"),
                at_limit: number("memory.failcnt"),
                oom_kills: counter("memory.oom_control", "oom_kill"),
            },
            Version::Two => Usage {
                peak: number("memory.peak"),
                at_limit: counter("memory.events", "max"),
                oom_kills: counter("memory.events", "oom_kill"),
            },
        }
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path.join(name)).ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may still be clearing the agent away.
        let remove = format!("rmdir {}", self.path.display());
        wait::within(Duration::from_secs(5), || run(&remove).is_ok());
    }
}

fn root() -> Result<(&'static str, Version), String> {
    let has = |path: String| fs::read_to_string(path).is_ok_and(|text| text.contains("memory"));
    if has(format!("{V2}/cgroup.controllers")) {
        Ok((V2, Version::Two))
    } else if Path::new(V1).join("memory.limit_in_bytes").exists() {
        Ok((V1, Version::One))
    } else {
        Err(format!("neither {V2} nor {V1} has a memory controller"))
    }
}

fn run(script: &str) -> Result<(), String> {
    let output = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("sh: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
