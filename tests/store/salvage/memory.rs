//! Little memory.

use std::time::Duration;

use crate::group::Group;
use crate::salvage::{Arrived, DEADLINE, made, send};
use crate::support::agent::Agent;
use crate::support::pages;
use crate::support::server::MainServer;

const RECORDS: &str = "ECHOPOST_RECORDS";
const USUAL_RECORDS: u64 = 60_000;
/// Bytes, page cache included.
const MEMORY: u64 = 16 << 20;
const RECORD_BYTES: usize = 300;

#[test]
#[ignore = "needs root: a memory cgroup"]
fn sixteen_mebibytes_of_memory_are_enough_for_a_store_of_any_size() {
    let group = Group::new(MEMORY).expect("a memory cgroup");
    let count = std::env::var(RECORDS).map_or(USUAL_RECORDS, |text| text.parse().expect(RECORDS));
    let base = crate::support::temp_folder();
    made::filled(base.path(), 0..count, RECORD_BYTES);
    pages::zero_root(base.path());
    let mut server = MainServer::new_down();
    let arrived = Arrived::at(&server);
    let script = format!("{} && exec \"$0\" \"$@\"", group.join());
    let agent = Agent::by_shell(&script, base.path()).health_url(&server.url());
    let mut agent = agent.spawn();
    agent.wait_answering();
    send(&agent, count);
    server.up();
    agent.expect_exit(0, DEADLINE + Duration::from_millis(count));
    assert!(arrived.numbers().into_iter().eq(0..=count));
    let corrupt = &agent.events_named("store_corrupt")[0];
    assert_eq!(corrupt["saved"], count, "{corrupt}");
    let usage = group.usage();
    println!("{count} records, {usage:?}");
    assert_eq!(usage.oom_kills.unwrap_or(0), 0, "{usage:?}");
    let met = usage.at_limit.is_some_and(|times| times > 0);
    assert!(
        met || usage.peak.is_some_and(|peak| peak > MEMORY / 4),
        "{usage:?}"
    );
}
