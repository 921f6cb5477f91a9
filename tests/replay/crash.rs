//! SIGKILL in the middle of a replay: nothing lost, nothing out of order, and
//! no more sent twice than spec 6 allows.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::fixture::{DEADLINE, Fixture, first_deliveries, texts};
use crate::support::server::{Answer, Ending, MainServer};
use crate::support::wait;

const RECORDS: usize = 600;
/// Delivered records that a crash may send again, beside the one in flight.
const GROUP: usize = 64;
/// Deliveries after which the agent is killed, each time.
const KILLS: [usize; 5] = [1, 63, 150, 260, 450];
/// Deliveries after a kill was due at which the server falls silent: a kill that
/// comes late still comes in the middle.
const LATE: usize = 100;

#[test]
fn killed_again_and_again_nothing_is_lost_and_a_group_is_repeated_at_most() {
    let mut fixture = Fixture::down();
    let records = texts(0..RECORDS);
    fixture.store(&records);
    let silent_at = Arc::new(AtomicUsize::new(KILLS[0] + LATE));
    let (limit, mut seen) = (Arc::clone(&silent_at), HashSet::new());
    fixture.server.on_post(move |message| {
        let key = message.header("idempotency-key").map(str::to_owned);
        if !seen.contains(&key) && seen.len() >= limit.load(Ordering::SeqCst) {
            return Answer::ok().then(Ending::Never);
        }
        seen.insert(key);
        Answer::ok()
    });
    fixture.server.up();
    let mut again_before = 0;
    for (number, kill_at) in (1..).zip(KILLS) {
        wait::until(DEADLINE, "deliveries", || {
            first_deliveries(&fixture.server).0.len() >= kill_at
        });
        fixture.agent.sigkill();
        let (first, again) = first_deliveries(&fixture.server);
        assert!(first.len() < RECORDS, "killed too late to mean anything");
        // One more than a group: the request in flight.
        let most = again_before + GROUP + 1;
        assert!(again <= most, "{again} repeated, {again_before} before");
        again_before = again;
        let next = KILLS.get(number).map_or(RECORDS, |kill_at| kill_at + LATE);
        silent_at.store(next, Ordering::SeqCst);
        fixture.restart();
    }
    wait::until(DEADLINE, "everything", || {
        first_deliveries(&fixture.server).0.len() >= RECORDS
    });
    fixture.agent.expect_exit(0, DEADLINE);
    let (first, again) = first_deliveries(&fixture.server);
    let order: Vec<_> = first.iter().map(|post| post.log_data()).collect();
    let stored: Vec<_> = records.iter().map(String::as_bytes).collect();
    assert_eq!(order, stored);
    assert!(again <= again_before + GROUP + 1);
}

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
