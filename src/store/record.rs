//! What a stored value looks like: a `StoredRecord` message whose last field is
//! the CRC-32 of its key and of everything before it (spec 4).

use bytes::{BufMut, Bytes};
use prost::Message;

use crate::proto::store::StoredRecord;

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

/// Bytes that [`encode`] will write.
#[must_use]
pub fn encoded_len(record: &StoredRecord) -> usize {
    record.encoded_len() + CRC_FIELD_LEN
}

/// Writes the stored form of `record` under `key` to `space`, which has
/// [`encoded_len`] bytes.
pub fn encode(key: u64, record: &StoredRecord, space: &mut [u8]) {
    debug_assert!(space.len() == encoded_len(record) && record.crc32 == 0);
    let (body, mut field) = space.split_at_mut(space.len() - CRC_FIELD_LEN);
    record.encode_raw(&mut &mut *body);
    field.put_u8(CRC_TAG);
    field.put_u32_le(checksum(key, body));
}

/// Reads a stored value back; `None` where it is not what was written.
#[must_use]
pub fn decode(key: u64, value: Bytes) -> Option<StoredRecord> {
    let body_len = value.len().checked_sub(CRC_FIELD_LEN)?;
    let (body, field) = value.split_at(body_len);
    let (tag, crc) = field.split_first()?;
    if *tag != CRC_TAG || crc != checksum(key, body).to_le_bytes() {
        return None;
    }
    let mut record = StoredRecord::decode(value).ok()?;
    record.crc32 = 0;
    Some(record)
}

/// What the main server knows a store's records by: `"<store id>-<key>"`, a
/// structured-field string (IETF draft idempotency-key-header).
pub struct StoreName(String);

impl StoreName {
    /// The name of the store with this id.
    #[must_use]
    pub fn new(id: &[u8; 16]) -> StoreName {
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
        let mut value = vec![0; encoded_len(&sample())];
        encode(7, &sample(), &mut value);
        assert_eq!(decode(7, value.clone().into()), Some(sample()));
        let generic = StoredRecord::decode(value.as_slice()).unwrap();
        assert_ne!(generic.crc32, 0);
        assert_eq!(generic.json_data, sample().json_data);
    }

    #[test]
    fn any_changed_bit_is_noticed_and_so_is_another_key() {
        let mut value = vec![0; encoded_len(&sample())];
        encode(7, &sample(), &mut value);
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
