//! The socket's name that lives as long as the agent (spec 5.6).
#![cfg(target_os = "linux")]

mod conditions;
mod core_dumps;
mod files;
mod heals;
mod namespaces;
use crate::support;

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use support::sender::send;

const DEADLINE: Duration = Duration::from_secs(20);
/// A user that is neither root nor the tester.
const STRANGER: u32 = 54_321;

/// Where the link in `.agent/` leads: the pid and the socket's name; `None` where the
/// socket's name is the socket itself, and there is no such folder.
fn link(base: &Path) -> Option<(u32, String)> {
    let name = base.join("data-nadhi-agent.sock");
    let kind = fs::symlink_metadata(&name).expect("the name").file_type();
    if kind.is_socket() {
        assert!(!base.join(".agent").exists());
        return None;
    }
    let target = fs::read_link(&name).expect("a link");
    assert_eq!(target, Path::new(".agent/socket"));
    let target = fs::read_link(base.join(target)).expect("a link");
    let target = target.to_str().expect("UTF-8");
    let parts: Vec<&str> = target.split('/').collect();
    let ["", "proc", pid, "fd", descriptor, socket] = parts[..] else {
        panic!("{target}");
    };
    assert!(descriptor.bytes().all(|digit| digit.is_ascii_digit()));
    let hex = socket.strip_prefix("socket-").expect("its name");
    assert!(hex.len() == 16 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
    Some((pid.parse().expect("a pid"), socket.to_owned()))
}
