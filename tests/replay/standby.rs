//! Standby (spec 5.8): one store after the other, one replay for all of them.

use std::time::SystemTime;

use crate::support::agent::Agent;
use crate::support::fixture::{DEADLINE, Fixture, first_deliveries, place_of, texts};
use crate::support::server::MainServer;
use crate::support::{store, temp_folder};
use echopost::proto::store::StoredRecord;
use echopost::store::record;

#[test]
fn a_clock_that_stepped_back_between_two_stores_hides_no_record() {
    let folder = temp_folder();
    // A store whose key is ahead of the clock is what a step back leaves.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ahead = now.expect("a clock").as_nanos() as u64 + 3_600_000_000_000;
    let record = StoredRecord {
        json_data: "\"before\"".into(),
        ..StoredRecord::default()
    };
    store::put_raw(folder.path(), &[(ahead, record::encoded(ahead, &record))]);

    let server = MainServer::new_up();
    let mut agent = Agent::builder(folder.path())
        .health_url(&server.url())
        .arg("-standby")
        .spawn();
    agent.wait_socket();
    let fixture = Fixture {
        server,
        agent,
        folder,
    };
    fixture.wait_for("\"before\"");
    fixture.agent.wait_event("standby", DEADLINE);
    fixture.store(&texts(["after"]));
    fixture.wait_for("\"after\"");
    let (delivered, _) = first_deliveries(&fixture.server);
    let places: Vec<_> = delivered.iter().map(|post| place_of(post)).collect();
    assert!(places[0] == ahead && places[1] > ahead, "{places:?}");
}
