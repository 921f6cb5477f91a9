//! No core dump, whatever the system would do with one (spec 7): the agent's memory
//! holds API keys.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::name::{DEADLINE, link};
use crate::support::agent::Agent;
use crate::support::server::MainServer;
use crate::support::{temp_folder, wait};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";
const KEY: &str = "the-key-that-no-core-may-hold";

/// The system's own pattern, put back at the end.
struct Pattern(String);

impl Pattern {
    fn set(pattern: &str) -> Pattern {
        let before = fs::read_to_string(PATTERN).expect(PATTERN);
        fs::write(PATTERN, pattern).expect(PATTERN);
        Pattern(before)
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        let _ = fs::write(PATTERN, &self.0);
    }
}

/// Cores whose names end with a process's id, so that other tests' crashes do not
/// count.
fn core(folder: &Path, pid: u32) -> PathBuf {
    folder.join(format!("core.{pid}"))
}

fn has_core(folder: &Path, pid: u32) -> bool {
    core(folder, pid).exists()
}

/// Runs the agent where cores are unlimited, and where none may be written to a file:
/// no process can raise that limit again.
const UNLIMITED: &str = "ulimit -c unlimited; exec \"$0\" \"$@\"";
const FORBIDDEN: &str = "ulimit -c 0; test $(id -u) != 0 || exec setpriv --bounding-set -all \
                         \"$0\" \"$@\"; exec \"$0\" \"$@\"";

#[test]
fn on_a_host_without_core_files_the_name_ends_with_the_agent() {
    let server = MainServer::new_down();
    let folder = temp_folder();
    let mut agent = Agent::by_shell(FORBIDDEN, folder.path())
        .health_url(&server.url())
        .spawn();
    agent.wait_socket();
    assert!(link(folder.path()).is_some());
    agent.signal(Signal::KILL);
    agent.wait_exit(DEADLINE);
    assert!(!agent.socket().exists());
}

#[test]
#[ignore = "needs root: the system's core pattern"]
fn neither_a_file_nor_a_pipe_gets_what_the_agent_knows() {
    let cores = temp_folder();
    fs::set_permissions(cores.path(), Permissions::from_mode(0o777)).expect("chmod");
    let program = cores.path().join("take");
    let script = format!("#!/bin/sh\ncat > {}/core.$1\n", cores.path().display());
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("chmod");
    let file = format!("{}/core.%p", cores.path().display());
    let pipe = format!("|{} %p", program.display());
    for (pattern, limit) in [
        (&file, UNLIMITED),
        (&pipe, UNLIMITED),
        (&file, FORBIDDEN),
        (&pipe, FORBIDDEN),
    ] {
        let _pattern = Pattern::set(pattern);
        let server = MainServer::new_down();
        let folder = temp_folder();
        let mut agent = Agent::by_shell(limit, folder.path())
            .env("DATANADHI_API_KEY", KEY)
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
        if (pattern, limit) == (&pipe, FORBIDDEN) {
            // The kernel does not ask for that limit here.
            let core = fs::read(core(cores.path(), agent.pid())).unwrap_or_default();
            let key = KEY.as_bytes();
            assert!(!core.windows(key.len()).any(|part| part == key));
        } else {
            assert!(!has_core(cores.path(), agent.pid()), "{pattern} {limit}");
        }
    }
}
