//! What must hold for any bytes at all, for each parser of what comes from
//! outside. Run by the fuzzer (`tests/fuzz`) and, over the corpora, as ordinary
//! tests (`tests/ingest/fuzz_corpus.rs`).

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use echopost::ingest::authority::frames::Follower;
use echopost::limits::RETRY_AFTER_MAX;
use echopost::proto::store::StoredRecord;
use echopost::replay::redact::Redactor;
use echopost::replay::retry_after;
use echopost::replay::set_aside;
use echopost::store::{Record, record};

/// A property over any input.
pub type Property = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const ALL: [(&str, Property); 4] = [
    ("authority", authority),
    ("record", stored_record),
    ("retry_after", retry_after),
    ("failure_line", failure_line),
];

/// The adapter lets as many bytes out as came in, in whatever pieces they came,
/// and its rewriting does not depend on the pieces. The first byte is the size
/// of the pieces.
pub fn authority(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    for is_ending in [false, true] {
        let whole = follow(stream, stream.len().max(1), is_ending);
        let pieces = follow(stream, usize::from(size).max(1), is_ending);
        if let (Some(whole), Some(pieces)) = (&whole, &pieces) {
            assert_eq!(whole, pieces);
            assert_eq!(whole.len(), stream.len());
        }
    }
}

/// What a reader gets of `stream`, the rest included that was never released;
/// `None` where a header block was too large.
fn follow(stream: &[u8], size: usize, is_ending: bool) -> Option<Vec<u8>> {
    let mut follower = Follower::default();
    follower.is_ending = is_ending;
    let mut out = Vec::new();
    let mut held = Vec::new();
    for piece in stream.chunks(size) {
        held.extend_from_slice(piece);
        let released = follower.feed(&mut held).ok()?;
        assert!(released <= held.len());
        out.extend(held.drain(..released));
    }
    out.extend(held);
    Some(out)
}

/// What decodes was written by the agent, and is written the same again. The
/// first eight bytes are the key.
pub fn stored_record(data: &[u8]) {
    let Some((key, value)) = data.split_first_chunk::<8>() else {
        return;
    };
    let key = u64::from_be_bytes(*key);
    let Some(decoded) = record::decode(key, Bytes::copy_from_slice(value)) else {
        return;
    };
    let again = record::encoded(key, &decoded);
    assert_eq!(record::decode(key, again.into()), Some(decoded));
}

/// No header asks for more than the longest wait, and no form of one panics.
pub fn retry_after(data: &[u8]) {
    for now in [0, 1_700_000_000, 253_402_300_799] {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        if let Some(wait) = retry_after::parse(data, now) {
            assert!(wait <= RETRY_AFTER_MAX);
        }
    }
}

/// The line is one JSON object that holds the record and not its key, whatever
/// the record and the answer hold.
pub fn failure_line(data: &[u8]) {
    let (answer, value) = data.split_at(data.len() / 2);
    let text = String::from_utf8_lossy(value).into_owned();
    let intact = StoredRecord {
        json_data: Bytes::copy_from_slice(text.as_bytes()),
        pipelines: vec![text.clone()],
        api_key: "k-3141592653".into(),
        received_at: (data.len() as u64).wrapping_mul(0x0123_4567_89ab_cdef),
        ..StoredRecord::default()
    };
    for content in [Ok(intact), Err(Bytes::copy_from_slice(value))] {
        let record = Record {
            key: data.len() as u64,
            idempotency_key: text.clone(),
            content,
        };
        let quoted = [answer, b"k-3141592653", answer].concat();
        let shown = Redactor::new(["k-3141592653"]).redact(&quoted, false);
        let line = set_aside::line(&record, Some(400), &shown);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("a JSON object");
        assert_eq!(parsed["intact"], record.content.is_ok());
        if record.content.is_ok() {
            assert_eq!(parsed["json_data"], text.as_str());
        }
        let answer = parsed["answer"].as_str().expect("a string");
        assert!(!answer.contains("k-3141592653"));
    }
}
