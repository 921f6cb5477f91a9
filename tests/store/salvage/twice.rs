//! Two records under one key.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::salvage::made::{FIRST_KEY, filled, idempotency_key, value};
use crate::salvage::{Arrived, serve, start};
use crate::support::pages::{self, Layout, data_file};
use crate::support::server::MainServer;
use crate::support::store::put_raw;
use crate::support::temp_folder;

const OTHER: u64 = 500;
const NEW: u64 = 900;

#[test]
fn two_records_under_one_key_come_both_and_a_copy_comes_once() {
    // The key behind that one is free, or taken.
    for count in [1, 3] {
        let (base, other) = (temp_folder(), temp_folder());
        filled(base.path(), 0..count, 0);
        let (key, json) = (FIRST_KEY, OTHER.to_string());
        put_raw(other.path(), &[(key, value(key, json))]);
        let own = leaf(base.path());
        // The other's, this one's own once more, and the other's once more.
        for page in [leaf(other.path()), own, leaf(other.path())] {
            let data = OpenOptions::new().append(true).open(data_file(base.path()));
            data.unwrap().write_all(&page).unwrap();
        }
        pages::zero(base.path(), &[0]);
        let mut server = MainServer::new_down();
        let arrived = Arrived::at(&server);
        let agent = start(base.path(), &server);
        let agent = serve(agent, &mut server, NEW);
        let numbers = arrived.numbers();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let expected: Vec<u64> = (0..count).chain([OTHER, NEW]).collect();
        assert_eq!(sorted, expected, "{}", agent.stdout());
        assert_eq!(numbers.last(), Some(&NEW));
        for (number, known_by) in numbers.iter().zip(arrived.keys()) {
            match *number {
                NEW => {}
                OTHER => assert_eq!(known_by, idempotency_key(FIRST_KEY)),
                own => assert_eq!(known_by, idempotency_key(FIRST_KEY + own)),
            }
        }
        assert_eq!(
            agent.events_named("store_corrupt")[0]["saved"],
            count as usize + 1
        );
    }
}

/// The only leaf page of the records.
fn leaf(base: &Path) -> Vec<u8> {
    let bytes = fs::read(data_file(base)).unwrap();
    let layout = Layout::of(&bytes);
    bytes[layout.pages.range(layout.root.expect("a root"))].to_vec()
}
