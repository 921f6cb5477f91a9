//! Records that the main server does not take (spec 6): a JSON line each in
//! `agent-failure.log`, on disk before the record is deleted.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::events::{now_rfc3339, rfc3339};
use crate::proto::store::StoredRecord;
use crate::store::Record;

/// A record's line, its end included: with the status of the last answer, `None` where the
/// record never went out, and the answer's first bytes without secrets, or the agent's own
/// reason.
#[must_use]
pub fn line(record: &Record, status: Option<u16>, answer: &str) -> String {
    let readable;
    let content = match &record.content {
        Ok(content) => content,
        Err(raw) => {
            readable = readable_part(raw);
            &readable
        }
    };
    let received_at = UNIX_EPOCH
        .checked_add(Duration::from_nanos(content.received_at))
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let fields = Fields {
        time: now_rfc3339(),
        key: record.key,
        received_at: rfc3339(received_at),
        pipelines: &content.pipelines,
        json_data: String::from_utf8_lossy(&content.json_data),
        status,
        answer,
        idempotency_key: &record.idempotency_key,
        api_key_own: !content.api_key.is_empty(),
        intact: record.content.is_ok(),
    };
    // Strings and numbers always serialise.
    let mut line = serde_json::to_string(&fields).unwrap_or_default();
    line.push('\n');
    line
}

/// What stands in a line, in this order.
#[derive(Serialize)]
struct Fields<'a> {
    time: String,
    key: u64,
    received_at: String,
    pipelines: &'a [String],
    json_data: Cow<'a, str>,
    status: Option<u16>,
    answer: &'a str,
    idempotency_key: &'a str,
    api_key_own: bool,
    intact: bool,
}

/// Of a value that fails its checksum, what may be shown: where a tag is
/// garbled, any field can hold the API key, but no key is a JSON object.
fn readable_part(raw: &Bytes) -> StoredRecord {
    let decoded = StoredRecord::decode(raw.clone()).unwrap_or_default();
    let is_object = decoded.json_data.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<IgnoredAny>(&decoded.json_data).is_ok();
    StoredRecord {
        json_data: if is_object {
            decoded.json_data
        } else {
            Bytes::new()
        },
        received_at: decoded.received_at,
        ..StoredRecord::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn record() -> Record {
        Record {
            key: 1_700_000_000_000_000_001,
            idempotency_key: "\"00ff-7\"".into(),
            content: Ok(StoredRecord {
                json_data: Bytes::from_static("{\"n\": 1e400,\"t\":\"ü\\n\"}".as_bytes()),
                pipelines: vec!["a\"b".into()],
                api_key: "secret".into(),
                received_at: 1_700_000_000_000_000_000,
                ..StoredRecord::default()
            }),
        }
    }

    fn parsed(record: &Record, status: Option<u16>, answer: &str) -> Value {
        let line = line(record, status, answer);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        assert!(!line.contains("secret"));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn the_line_holds_the_whole_record_but_not_its_key() {
        let line = parsed(&record(), Some(401), "no: *** \u{fffd}");
        assert_eq!(line["key"], 1_700_000_000_000_000_001u64);
        assert_eq!(line["received_at"], "2023-11-14T22:13:20.000000000Z");
        assert_eq!(line["pipelines"][0], "a\"b");
        assert_eq!(line["json_data"], "{\"n\": 1e400,\"t\":\"ü\\n\"}");
        assert_eq!(line["status"], 401);
        assert_eq!(line["answer"], "no: *** \u{fffd}");
        assert_eq!(line["idempotency_key"], "\"00ff-7\"");
        assert_eq!(line["api_key_own"], true);
        assert_eq!(line["intact"], true);
    }

    #[test]
    fn of_a_damaged_record_only_a_json_object_is_shown() {
        let whole = record().content.unwrap().encode_to_vec();
        let json = whole.windows(4).position(|at| at == b"1e40").unwrap();
        let key = whole.windows(6).position(|at| at == b"secret").unwrap() - 2;
        let with = |at: usize, byte: u8| {
            let mut value = whole.clone();
            value[at] = byte;
            Bytes::from(value)
        };
        for (value, shown) in [
            (with(json, b'2'), "{\"n\": 2e400,\"t\":\"ü\\n\"}"),
            (with(json, b'x'), ""),
            // The key's tag has become another field's.
            (with(key, 0x0a), ""),
            (with(key, 0x12), "{\"n\": 1e400,\"t\":\"ü\\n\"}"),
            (with(key, 0x2a), "{\"n\": 1e400,\"t\":\"ü\\n\"}"),
            (Bytes::from_static(b"\xff\xffsecret"), ""),
        ] {
            let mut damaged = record();
            damaged.content = Err(value);
            let line = parsed(&damaged, None, "checksum");
            assert_eq!(line["json_data"], shown);
            assert_eq!(line["status"], Value::Null);
            assert_eq!(line["intact"], false);
        }
    }
}
