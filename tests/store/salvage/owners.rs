//! A store that belongs to another id.

use std::path::Path;

use crate::salvage::{Arrived, DEADLINE, made, serve};
use crate::support::agent::{Agent, Builder};
use crate::support::preload::compile;
use crate::support::server::MainServer;
use crate::support::{pages, store, temp_folder};

const OTHER: &str = "12345";
const COUNT: u64 = 2000;

/// The agent for which all that has a path which begins so belongs to another user.
fn squashed(base: &Path, prefix: &str) -> Builder {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("salvage_shim.so");
    let library = compile("tests/store/salvage/shim.c", &library);
    let prefix = base.join(prefix);
    Agent::builder(base)
        .preload(&library)
        .env("ECHOPOST_SQUASHED", prefix.to_str().unwrap())
        .env("ECHOPOST_SQUASHED_TO", OTHER)
}

#[test]
fn a_mount_that_gives_everything_to_another_id_is_served() {
    for damaged in [false, true] {
        let base = temp_folder();
        made::filled(base.path(), 0..COUNT, 100);
        if damaged {
            pages::zero_root(base.path());
        }
        let mut server = MainServer::new_down();
        let arrived = Arrived::at(&server);
        let agent = squashed(base.path(), "lmdb").health_url(&server.url());
        let agent = serve(agent.spawn(), &mut server, COUNT);
        assert!(arrived.numbers().into_iter().eq(0..=COUNT));
        let corrupt = agent.events_named("store_corrupt");
        assert_eq!(corrupt.len(), usize::from(damaged));
    }
}

#[test]
fn a_store_of_another_user_is_not_opened_where_new_files_are_the_agents_own() {
    let base = temp_folder();
    made::filled(base.path(), 0..COUNT, 100);
    let server = MainServer::new_up();
    let agent = squashed(base.path(), "lmdb/data").health_url(&server.url());
    let mut agent = agent.spawn();
    agent.expect_exit(73, DEADLINE);
    let said = agent.stderr();
    assert!(said.contains("belongs to another user (12345"), "{said}");
    assert_eq!(store::records(base.path()).len() as u64, COUNT);
    assert!(server.posts().is_empty());
}
