//! Stores that are made, not grown.

use std::ops::Range;
use std::path::Path;

use echopost::proto::store::StoredRecord;
use echopost::store::record::{StoreName, encoded};

use crate::support::store::put_raw;

/// The key of record 0, in 2020.
pub const FIRST_KEY: u64 = 1_577_836_800_000_000_000;

/// The JSON of the record with this number.
pub fn json(number: u64) -> String {
    number.to_string()
}

/// The number of such a record, or of one of a [`filled`] store.
pub fn number(json: &[u8]) -> u64 {
    let text = std::str::from_utf8(json).expect("a record of ours");
    let digits = text.trim_start_matches('[').split([',', ']']).next();
    let number = digits.and_then(|digits| digits.parse().ok());
    number.unwrap_or_else(|| panic!("no record of ours: {text:.80}"))
}

/// What is stored under `key`.
pub fn value(key: u64, json: String) -> Vec<u8> {
    let record = StoredRecord {
        json_data: json.into(),
        received_at: key,
        ..StoredRecord::default()
    };
    encoded(key, &record)
}

/// A store in `<base>/lmdb` with these records, each of some `bytes`, under keys from
/// `first_key` on.
pub fn filled_from(base: &Path, first_key: u64, numbers: Range<u64>, bytes: usize) {
    let values = numbers.map(|number| {
        let text = match bytes {
            0 => json(number),
            _ => format!("[{number},\"{}\"]", "x".repeat(bytes)),
        };
        let key = first_key + number;
        (key, value(key, text))
    });
    put_raw(base, &values.collect::<Vec<_>>());
}

/// The same, from [`FIRST_KEY`] on.
pub fn filled(base: &Path, numbers: Range<u64>, bytes: usize) {
    filled_from(base, FIRST_KEY, numbers, bytes);
}

/// What the server must know the record by that lies under `key`.
pub fn idempotency_key(key: u64) -> String {
    StoreName::new(&[7; 16]).idempotency_key(key, None)
}
