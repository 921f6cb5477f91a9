//! What the store holds (spec 4): the names of its databases, and a record's key and
//! value. The value is a `StoredRecord` message whose last field is the CRC-32 of its key
//! and of everything before it.

use bytes::{BufMut, Bytes};
use prost::Message;

use crate::proto::store::StoredRecord;

/// The database of the records, by key.
pub const RECORDS: &str = "records";
/// The database of records that came while those of a damaged store were carried over.
pub const ARRIVALS: &str = "arrivals";
/// The database of the format and the store's id.
pub const META: &str = "meta";
/// Key in [`META`] of [`STORE_FORMAT`](crate::limits::STORE_FORMAT), a little-endian u32.
pub const FORMAT_KEY: &str = "format";
/// Key in [`META`] of the [`StoreId`].
pub const STORE_ID_KEY: &str = "store_id";

/// A random name for one store's life: the first half of an Idempotency-Key.
pub type StoreId = [u8; 16];

/// Tag of the field `crc32`, number 15, wire type I32 (protobuf encoding).
const CRC_TAG: u8 = (15 << 3) | 5;
/// Bytes of the field `crc32` on the wire: the tag and a little-endian u32.
const CRC_FIELD_LEN: usize = 5;

/// The key of a record: max(last key + 1, now), so that the order of arrival
/// is the order of keys also when the clock steps back. `None` only at the end
/// of u64, in the year 2554.
#[must_use]
pub fn next_key(last: u64, now_unix_nanos: u64) -> Option<u64> {
    Some(last.checked_add(1)?.max(now_unix_nanos))
}

/// Bytes that [`encoded`] makes.
#[must_use]
pub fn encoded_len(record: &StoredRecord) -> usize {
    record.encoded_len() + CRC_FIELD_LEN
}

/// True for a stored value that is what was written under `key`.
#[must_use]
pub fn is_intact(key: u64, value: &[u8]) -> bool {
    let Some(body_len) = value.len().checked_sub(CRC_FIELD_LEN) else {
        return false;
    };
    let (body, field) = value.split_at(body_len);
    field
        .split_first()
        .is_some_and(|(tag, crc)| *tag == CRC_TAG && crc == checksum(key, body).to_le_bytes())
}

/// Reads a stored value back; `None` where it is not what was written.
#[must_use]
pub fn decode(key: u64, value: Bytes) -> Option<StoredRecord> {
    if !is_intact(key, &value) {
        return None;
    }
    let mut record = StoredRecord::decode(value).ok()?;
    record.crc32 = 0;
    Some(record)
}

/// The same value for another `key`, with the Idempotency-Key that it had under its own.
#[must_use]
pub fn rekeyed(key: u64, own: u64, value: &[u8], name: &StoreName) -> Option<Vec<u8>> {
    let mut record = decode(own, Bytes::copy_from_slice(value))?;
    record.idempotency_key = name.idempotency_key(own, Some(&record));
    Some(encoded(key, &record))
}

/// The stored form of `record` under `key`.
#[must_use]
pub fn encoded(key: u64, record: &StoredRecord) -> Vec<u8> {
    let mut value = Vec::with_capacity(encoded_len(record));
    record.encode_raw(&mut value);
    let crc = checksum(key, &value);
    value.put_u8(CRC_TAG);
    value.put_u32_le(crc);
    value
}

/// What the main server knows a store's records by: `"<store id>-<key>"`, a
/// structured-field string (IETF draft idempotency-key-header).
pub struct StoreName(String);

impl StoreName {
    /// The name of the store with this id.
    #[must_use]
    pub fn new(id: &StoreId) -> StoreName {
        StoreName(format!("\"{:032x}-", u128::from_be_bytes(*id)))
    }

    /// What the main server knows a record by: what its client gave, else the
    /// store's name and its key. The same on every attempt, also after a restart.
    #[must_use]
    pub fn idempotency_key(&self, key: u64, record: Option<&StoredRecord>) -> String {
        match record {
            Some(record) if !record.idempotency_key.is_empty() => record.idempotency_key.clone(),
            _ => [&self.0, &*key.to_string(), "\""].concat(),
        }
    }
}

fn checksum(key: u64, body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&key.to_be_bytes());
    crc.update(body);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StoredRecord {
        StoredRecord {
            json_data: Bytes::from_static(b"{\"a\":1e400}"),
            pipelines: vec!["orders".into(), "audit".into()],
            api_key: "key".into(),
            received_at: 42,
            idempotency_key: String::new(),
            crc32: 0,
        }
    }

    #[test]
    fn what_was_written_is_read_back_and_any_generic_decoder_reads_it_too() {
        let value = encoded(7, &sample());
        assert_eq!(value.len(), encoded_len(&sample()));
        assert_eq!(decode(7, value.clone().into()), Some(sample()));
        let generic = StoredRecord::decode(value.as_slice()).unwrap();
        assert_ne!(generic.crc32, 0);
        assert_eq!(generic.json_data, sample().json_data);
    }

    #[test]
    fn any_changed_bit_is_noticed_and_so_is_another_key() {
        let value = encoded(7, &sample());
        assert_eq!(decode(8, value.clone().into()), None);
        for at in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert_eq!(decode(7, bad.into()), None, "bit {at}");
        }
        for len in 0..value.len() {
            assert_eq!(decode(7, value[..len].to_vec().into()), None, "{len}");
        }
    }

    #[test]
    fn another_key_leaves_the_idempotency_key() {
        let name = StoreName::new(&[0xAB; 16]);
        let value = rekeyed(9, 7, &encoded(7, &sample()), &name).unwrap();
        let record = decode(9, value.clone().into()).unwrap();
        assert_eq!(record.idempotency_key, name.idempotency_key(7, None));
        let value = rekeyed(11, 9, &value, &name).unwrap();
        let again = decode(11, value.into()).unwrap();
        assert_eq!(again.idempotency_key, record.idempotency_key);
        assert_eq!(rekeyed(9, 8, &encoded(7, &sample()), &name), None);
    }

    #[test]
    fn keys_rise_whatever_the_clock_does() {
        for (last, now, key) in [
            (0, 0, Some(1)),
            (0, 1_000, Some(1_000)),
            (1_000, 1_000, Some(1_001)),
            (1_000, 10, Some(1_001)),
            (1_000, 5_000, Some(5_000)),
            (u64::MAX - 1, 3, Some(u64::MAX)),
            (u64::MAX, 3, None),
        ] {
            assert_eq!(next_key(last, now), key, "last {last} now {now}");
        }
    }
}
