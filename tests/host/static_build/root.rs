//! An empty root and an agent in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::agent::{Agent, Builder};
use crate::support::{copy_executable, temp_folder};

/// A root with the binary and a base folder, and nothing else.
pub struct Root {
    folder: tempfile::TempDir,
}

impl Root {
    pub fn new() -> Root {
        let root = Root {
            folder: temp_folder(),
        };
        copy_executable(binary(), &root.path("echopost"));
        fs::create_dir(root.base()).expect("a base folder");
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The agent's base folder, from outside.
    pub fn base(&self) -> PathBuf {
        self.path("base")
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
        fs::write(path, text).expect("write");
    }

    /// The agent in this root, as the first process of a PID namespace.
    pub fn agent(&self) -> Builder {
        let mut command = Command::new("unshare");
        command
            .args(["--fork", "--pid", "--mount", "--kill-child"])
            .arg("--root")
            .arg(self.folder.path());
        command.args(["/echopost", "-datanadhi=/base"]);
        Agent::from_command_line(command, &self.base())
    }

    /// Signals the agent itself: what was started is unshare, which waits for it.
    pub fn signal(agent: &Agent, signal: Signal) {
        let pid = agent.pid();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(&children).expect(&children);
        let child = children.trim().parse().expect("one child");
        let child = Pid::from_raw(child).expect("a process id");
        kill_process(child, signal).expect("signal the agent");
    }
}

/// The file that ECHOPOST_BIN names; else the static build, made when it is not there yet.
fn binary() -> &'static Path {
    if let Some(given) = Agent::given() {
        return Path::new(given);
    }
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = checkout.join("target/release-build/out");
        let built = Command::new(checkout.join(".github/scripts/static"))
            .arg(&folder)
            .output()
            .expect("bash");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "no static build: {said}");
        folder.join("echopost")
    });
    &BINARY
}
