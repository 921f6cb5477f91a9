//! No core dump, whatever the system would do with one (spec 7): the agent's memory
//! holds API keys.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::agent::Agent;
use crate::support::server::MainServer;
use crate::support::{temp_folder, wait};
use crate::{DEADLINE, is_root};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// The system's own pattern, put back at the end.
struct Pattern(String);

impl Pattern {
    fn set(pattern: &str) -> Option<Pattern> {
        let before = fs::read_to_string(PATTERN).ok()?;
        fs::write(PATTERN, pattern).ok()?;
        Some(Pattern(before))
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        let _ = fs::write(PATTERN, &self.0);
    }
}

/// Cores whose names end with a process's id, so that other tests' crashes do not
/// count.
fn has_core(folder: &Path, pid: u32) -> bool {
    folder.join(format!("core.{pid}")).exists()
}

#[test]
fn neither_a_file_nor_a_pipe_gets_a_core() {
    if !is_root("the system's core pattern") {
        return;
    }
    let cores = temp_folder();
    fs::set_permissions(cores.path(), Permissions::from_mode(0o777)).expect("chmod");
    let program = cores.path().join("take");
    let script = format!("#!/bin/sh\ncat > {}/core.$1\n", cores.path().display());
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("chmod");
    for pattern in [
        format!("{}/core.%p", cores.path().display()),
        format!("|{} %p", program.display()),
    ] {
        let Some(_pattern) = Pattern::set(&pattern) else {
            println!("NOT TESTED: this system's core pattern is not to be set");
            return;
        };
        let server = MainServer::new_down();
        let folder = temp_folder();
        let mut agent = Agent::by_shell("ulimit -c unlimited; exec \"$0\" \"$@\"", folder.path())
            .health_url(&server.url())
            .spawn();
        agent.wait_socket();
        agent.signal(Signal::ABORT);
        agent.wait_exit(DEADLINE);
        // Another process shows that the pattern works, and that the agent's time is over.
        let mut other = Command::new("sh")
            .args(["-c", "ulimit -c unlimited; kill -ABRT $$"])
            .spawn()
            .expect("a shell");
        other.wait().expect("its end");
        wait::until(DEADLINE, "the other's core", || {
            has_core(cores.path(), other.id())
        });
        assert!(!has_core(cores.path(), agent.pid()), "{pattern}");
    }
}
