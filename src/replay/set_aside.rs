//! Records that the main server does not take (spec 6): a JSON line each in
//! `agent-failure.log`, on disk before the record is deleted.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::events::{now_rfc3339, rfc3339};
use crate::limits::ANSWER_BODY_KEPT;
use crate::proto::store::StoredRecord;
use crate::store::Record;

/// What stands in place of a secret.
const MASK: &str = "***";
/// Bytes of a character at most (RFC 3629): as many may be missing from a text
/// that was cut between two.
const LONGEST_CHAR: usize = 4;

/// Why a record is set aside.
pub struct Refusal<'a> {
    /// HTTP status of the last answer; `None` where the record never went out.
    pub status: Option<u16>,
    /// The answer's first bytes, or the agent's own reason.
    pub answer: &'a [u8],
    /// What it was sent with and no log may show.
    pub secrets: &'a [String],
}

/// A record's line, its end included.
#[must_use]
pub fn line(record: &Record, refusal: &Refusal) -> String {
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
    let answer = String::from_utf8_lossy(refusal.answer);
    let fields = Fields {
        time: now_rfc3339(),
        key: record.key,
        received_at: rfc3339(received_at),
        pipelines: &content.pipelines,
        json_data: String::from_utf8_lossy(&content.json_data),
        status: refusal.status,
        answer: without(&answer, refusal.secrets, ANSWER_BODY_KEPT),
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
    answer: String,
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

/// The ways in which a server may write `secret`: as it is, in a JSON string, in one
/// of an encoder that also escapes what HTML knows, and in a URL.
fn spellings(secret: &str) -> Vec<String> {
    let spelled = |spell: &dyn Fn(char) -> String| secret.chars().map(spell).collect::<String>();
    let json = |special: &'static str, upper: bool| {
        spelled(&|c| match c {
            '"' | '\\' if !special.contains(c) => format!("\\{c}"),
            '/' if special.is_empty() => "\\/".to_owned(),
            _ if special.contains(c) && upper => format!("\\u{:04X}", u32::from(c)),
            _ if special.contains(c) => format!("\\u{:04x}", u32::from(c)),
            _ => c.to_string(),
        })
    };
    let url = |upper: bool| {
        spelled(&|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' => c.to_string(),
            _ => c
                .encode_utf8(&mut [0; 4])
                .bytes()
                .fold(String::new(), |text, byte| match upper {
                    true => format!("{text}%{byte:02X}"),
                    false => format!("{text}%{byte:02x}"),
                }),
        })
    };
    vec![
        secret.to_owned(),
        // PHP's, which escapes the slash, Go's, .NET's.
        json("", false),
        json("&<>", false),
        json("&<>'+`\"", true),
        url(true),
        url(false),
    ]
}

/// `text` with the secrets masked, should the server have quoted one, in whichever
/// of its spellings. A text that reaches `limit` bytes was cut there, maybe in the
/// middle of one.
pub(super) fn without(text: &str, secrets: &[String], limit: usize) -> String {
    let cut = text.len() + LONGEST_CHAR > limit;
    let mut masked = text.to_owned();
    let secrets = secrets.iter().filter(|secret| !secret.is_empty());
    for secret in secrets.flat_map(|secret| spellings(secret)) {
        masked = masked.replace(&secret, MASK);
        let quoted = secret
            .char_indices()
            .rev()
            .filter_map(|(end, _)| secret.get(..end).filter(|start| !start.is_empty()))
            .find_map(|start| masked.strip_suffix(start));
        if let Some(before) = quoted.filter(|_| cut) {
            masked = before.to_owned() + MASK;
        }
    }
    masked
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

    fn parsed(record: &Record, refusal: &Refusal) -> Value {
        let line = line(record, refusal);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        assert!(!line.contains("secret"));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn the_line_holds_the_whole_record_but_not_its_key() {
        let refusal = Refusal {
            status: Some(401),
            answer: b"no: secret \xff",
            secrets: &["secret".to_owned()],
        };
        let line = parsed(&record(), &refusal);
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
    fn a_secret_is_masked_whole_and_where_the_text_was_cut_in_it() {
        let secrets = ["", "kéy-123", "p/w", r#"a"b\c/d"#, "X&y+z"].map(str::to_owned);
        for (text, limit, expected) in [
            ("no key", 100, "no key"),
            ("a kéy-123, kéy-123", 100, "a ***, ***"),
            ("a kéy-1", 100, "a kéy-1"),
            ("p/w and p\\/w of kéy-123", 100, "*** and *** of ***"),
            ("a p\\/", 5, "a ***"),
            (r#""a\"b\\c/d" "#, 100, "\"***\" "),
            (r#""a\"b\\c\/d" "#, 100, "\"***\" "),
            (r"X\u0026y+z and X\u0026y\u002Bz", 100, "*** and ***"),
            ("/login?key=X%26y%2Bz&b", 100, "/login?key=***&b"),
            ("/login?key=X%26y%2bz&b", 100, "/login?key=***&b"),
            ("a kéy-1", 8, "a ***"),
            ("a ké", 5, "a ***"),
            ("a k", 6, "a ***"),
            ("a kéy-123k", 11, "a ******"),
            ("a b", 3, "a b"),
            ("k", 1, "***"),
            ("", 0, ""),
        ] {
            assert_eq!(without(text, &secrets, limit), expected, "{text} {limit}");
        }
    }

    #[test]
    fn of_a_damaged_record_only_a_json_object_is_shown() {
        let refusal = Refusal {
            status: None,
            answer: b"checksum",
            secrets: &[],
        };
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
            let line = parsed(&damaged, &refusal);
            assert_eq!(line["json_data"], shown);
            assert_eq!(line["status"], Value::Null);
            assert_eq!(line["intact"], false);
        }
    }
}
