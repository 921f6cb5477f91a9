//! SIGKILL in the middle of a slow replay; `store::durable_order` has it at any moment of a
//! quick one.

use std::time::Duration;

use crate::support::fixture::{DEADLINE, Fixture, first_deliveries, texts};
use crate::support::server::{Answer, MainServer};

#[test]
fn what_was_delivered_is_deleted_within_250_ms_also_when_the_server_is_slow() {
    let server = MainServer::new_up();
    server.on_post(|_| Answer::ok().after(Duration::from_millis(300)));
    let mut fixture = Fixture::new(server);
    let records = texts(0..12);
    fixture.store(&records);
    fixture.server.wait_delivered(7, DEADLINE);
    fixture.agent.sigkill();
    let before = fixture.server.delivered().len();
    fixture.server.on_post(|_| Answer::ok());
    fixture.restart();
    fixture.wait_for(&records[11]);
    let (first, again) = first_deliveries(&fixture.server);
    assert_eq!(first.len(), records.len());
    // The one in flight, the one before it, less than 250 ms old, and one more
    // whose answer was there when the 250 ms were over.
    assert!(again <= 3, "{again} of {before} were sent again");
}
