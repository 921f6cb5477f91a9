//! What the integration tests and the examples stand on: the agent as a child
//! process, a main server to be away, and clients that log.
#![allow(dead_code)] // each test file uses a part

pub mod agent;
pub mod application;
pub mod failure_log;
pub mod fixture;
pub mod hostile_clients;
pub mod http1;
pub mod ledger;
pub mod model;
pub mod pages;
pub mod preload;
pub mod process;
pub mod progress;
pub mod raw;
pub mod release;
pub mod rng;
pub mod samples;
pub mod sender;
pub mod server;
pub mod store;
pub mod wait;
pub mod wire;

/// A fresh folder for one test, removed at its end. Directly in `/tmp`: a UNIX
/// socket's path has room for 108 bytes only.
pub fn temp_folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("echopost-")
        .tempdir_in("/tmp")
        .expect("a temporary folder in /tmp")
}

/// Copies an executable, in a process of its own: what another test starts meanwhile
/// would hold a descriptor of this one's, and the copy be busy.
pub fn copy_executable(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").args([from, to]).status();
    assert!(copied.expect("cp").success(), "copy {}", from.display());
}

/// A socket's file that no process serves, and none ever did: a child that inherits one
/// which listens would go on to.
pub fn stale_socket(path: &std::path::Path) {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let address = SocketAddrUnix::new(path).expect("an address");
    bind(&socket, &address).expect("bind");
}

/// A folder for the stores of hundreds of agents, in memory where that can be:
/// what those tests are about does not take a disk's time.
pub fn memory_folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::Builder::new()
            .prefix("echopost-")
            .tempdir_in(memory)
            .expect("a temporary folder in /dev/shm"),
        false => temp_folder(),
    }
}
