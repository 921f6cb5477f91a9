//! A clock that is set back (spec 4: keys are one order, whatever it does).

use rustix::process::Signal;

use crate::disk_failing::disk::Disk;
use crate::disk_failing::{DEADLINE, expect_acks, start};
use crate::support::server::MainServer;
use crate::support::{agent::Agent, store, temp_folder, wait};

const HOUR: &str = "3600";

#[test]
fn between_two_lives_and_within_one() {
    let (folder, disk) = (temp_folder(), Disk::new());
    let mut server = MainServer::new_down();
    let mut agent = start(folder.path(), &server, &disk);
    expect_acks(&agent, 0..1);
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    disk.plan("clock", "back", HOUR);
    let mut agent = start(folder.path(), &server, &disk);
    expect_acks(&agent, 1..2);
    disk.plan("clock", "back", "7200");
    expect_acks(&agent, 2..3);
    agent.sigkill();
    let records = store::records(folder.path());
    let keys: Vec<u64> = records.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, [keys[0], keys[0] + 1, keys[0] + 2]);
    let received = |at: usize| records[at].1.received_at;
    assert!(
        received(1) < received(0) && received(2) < received(1),
        "the clock stood"
    );
    let mut agent = start(folder.path(), &server, &disk);
    server.up();
    agent.expect_exit(0, DEADLINE);
    assert_eq!(server.delivered_json(), [b"0", b"1", b"2"]);
}

#[test]
fn between_two_outages_of_a_standby() {
    let (folder, disk) = (temp_folder(), Disk::new());
    let server = MainServer::new_up();
    let agent = Agent::builder(folder.path()).health_url(&server.url());
    let mut agent = disk.under(agent.arg("-standby")).spawn();
    agent.wait_answering();
    expect_acks(&agent, 0..1);
    let store = folder.path().join("lmdb");
    wait::until(DEADLINE, "standby", || {
        server.delivered().len() == 1 && !store.exists()
    });
    disk.plan("clock", "back", HOUR);
    expect_acks(&agent, 1..2);
    server.wait_delivered(2, DEADLINE);
    wait::until(DEADLINE, "standby again", || !store.exists());
    assert_eq!(server.delivered_json(), [b"0", b"1"]);
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
}
