//! The data file's name goes before the lock, its blocks after it (spec 5.4): to give
//! gigabytes back takes a while, and a successor waits for the lock.

use std::fs::{self, File};
use std::path::Path;

use rustix::process::Signal;

use crate::leaving::DEADLINE;
use crate::support::agent::{Agent, names_in};
use crate::support::fixture::Fixture;
use crate::support::server::MainServer;
use crate::support::{preload, temp_folder, wait};

fn is_locked(folder: &Path) -> bool {
    let folder = File::open(folder).expect("the folder");
    folder.try_lock().is_err()
}

#[test]
fn the_data_files_name_goes_before_the_lock_and_its_blocks_after_it() {
    let (folder, elsewhere) = (temp_folder(), temp_folder());
    let library = elsewhere.path().join("unlock.so");
    let library = preload::compile("tests/lifecycle/leaving/unlock.c", &library);
    let mut server = MainServer::new_down();
    let mut agent = Agent::builder(folder.path())
        .health_url(&server.url())
        .preload(&library)
        .spawn();
    agent.wait_socket();
    agent.send("1");
    let data = folder.path().join("lmdb/data.mdb");
    assert!(data.is_file());
    server.up();
    agent.wait_event("agent_stopped", DEADLINE);
    agent.wait_stopped(DEADLINE);
    assert_eq!(names_in(folder.path()), ["session"]);
    assert!(is_locked(folder.path()));
    let open = fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("its descriptors");
    let gone = format!("{} (deleted)", data.display());
    let gone = open
        .map(|entry| fs::read_link(entry.expect("a descriptor").path()))
        .filter(|path| path.as_ref().is_ok_and(|path| path == Path::new(&gone)));
    assert_eq!(gone.count(), 1, "its blocks");
    agent.signal(Signal::CONT);
    wait::until(DEADLINE, "the lock", || !is_locked(folder.path()));
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered_json(), [b"1"]);
}

#[test]
fn in_standby_the_blocks_go_with_the_name() {
    let (folder, mut server, agent) = Fixture::standby(MainServer::new_down()).parts();
    agent.send("1");
    let before = agent.events_named("standby").len();
    server.up();
    wait::until(DEADLINE, "sleep", || {
        agent.events_named("standby").len() > before
    });
    assert!(!folder.path().join("lmdb").exists());
    let open = fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("its descriptors");
    for entry in open {
        let path = fs::read_link(entry.expect("a descriptor").path()).unwrap_or_default();
        assert!(!path.to_string_lossy().contains("data.mdb"), "{path:?}");
    }
}
