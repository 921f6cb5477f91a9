//! A clock that is behind the store.

use std::fs::File;
use std::time::{Duration, SystemTime};

use crate::salvage::{Arrived, made, serve, start};
use crate::support::server::MainServer;
use crate::support::{pages, temp_folder};

/// Nanoseconds, in 2096.
pub const FAR: u64 = 3_976_214_400_000_000_000;
const COUNT: u64 = 5000;

#[test]
fn what_is_new_comes_after_what_has_a_later_key() {
    for is_file_from_there in [true, false] {
        let base = temp_folder();
        made::filled_from(base.path(), FAR, 0..COUNT, 100);
        pages::zero_root(base.path());
        if is_file_from_there {
            let data = File::options()
                .write(true)
                .open(base.path().join("lmdb/data.mdb"));
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(FAR + COUNT);
            data.unwrap().set_modified(time).unwrap();
        }
        let mut server = MainServer::new_down();
        let arrived = Arrived::at(&server);
        let agent = start(base.path(), &server);
        serve(agent, &mut server, COUNT);
        assert!(arrived.numbers().into_iter().eq(0..=COUNT));
        let keys = arrived.keys();
        let own = (0..COUNT).map(|number| made::idempotency_key(FAR + number));
        assert!(keys[..keys.len() - 1].iter().cloned().eq(own));
        let mut different = keys.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), keys.len());
    }
}
