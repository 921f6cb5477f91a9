//! What must hold for any bytes at all, for each parser of what comes from
//! outside. Run by the fuzzer (`tests/fuzz`) and, over the corpora, as ordinary
//! tests (`tests/ingest/fuzz_corpus.rs`).

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use echopost::ingest::authority::frames::Follower;
use echopost::limits::RETRY_AFTER_MAX;
use echopost::proto::store::StoredRecord;
use echopost::replay::redact::Redactor;
use echopost::replay::retry_after;
use echopost::replay::route::Route;
use echopost::replay::server::ServerUrl;
use echopost::replay::set_aside;
use echopost::store::salvage::{self, Scan};
use echopost::store::{Record, record};

/// A property over any input.
pub type Property = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const ALL: [(&str, Property); 6] = [
    ("authority", authority),
    ("record", stored_record),
    ("salvage", salvage),
    ("retry_after", retry_after),
    ("redact", redact),
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
    let key = "k-3141592653";
    let (answer, value) = data.split_at(data.len() / 2);
    let (answer, text) = (lossy(answer), lossy(value));
    let intact = StoredRecord {
        json_data: Bytes::copy_from_slice(text.as_bytes()),
        pipelines: vec![text.clone()],
        api_key: key.into(),
        received_at: (data.len() as u64).wrapping_mul(0x0123_4567_89ab_cdef),
        ..StoredRecord::default()
    };
    for content in [Ok(intact), Err(Bytes::copy_from_slice(value))] {
        let record = Record {
            key: data.len() as u64,
            idempotency_key: text.clone(),
            content,
        };
        let line = set_aside::line(&record, Some(400), &answer);
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let parsed: serde_json::Value = serde_json::from_str(&line).expect("a JSON object");
        assert_eq!(parsed["intact"], record.content.is_ok());
        assert_eq!(parsed["answer"], answer.as_str());
        if record.content.is_ok() {
            assert_eq!(parsed["json_data"], text.as_str());
            assert!(!line.contains(key) || [text.as_str(), &answer].concat().contains(key));
        }
    }
}

/// No spelling of a secret comes through, whatever is around it; a second pass changes
/// nothing, and a text that has no secret stays as it is. The first byte is the secret's
/// length, and whether the text is cut; the secret follows, then the text.
pub fn redact(data: &[u8]) {
    let Some((&control, rest)) = data.split_first() else {
        return;
    };
    let is_cut = control % 2 == 1;
    let (secret, text) = rest.split_at(usize::from(control / 2).min(rest.len()));
    let secret = lossy(secret);
    let secret = secret.trim();
    // What no header can hold, or what the mask itself holds, in some spelling.
    let is_foreign = |c: char| c == '\u{fffd}' || c == '*' || c.is_control();
    let of_mask = ["2a", "2A", "42"];
    if secret.is_empty()
        || secret.contains(is_foreign)
        || of_mask.iter().any(|x| secret.contains(x))
    {
        return;
    }
    let url = format!("http://{0}:{0}@server", percent(secret));
    let route = Route::from(ServerUrl::parse(&url).expect("a URL"));
    let redactor = Redactor::new(route.secrets()).and(secret);
    let escapes = b"%\\&+";
    let has_escapes = secret.bytes().any(|byte| escapes.contains(&byte));
    let redact = |text: &[u8]| {
        let shown = redactor.redact(text, is_cut);
        // What a secret with escapes of its own means may hold the mask's bytes.
        if !shown.contains('\u{fffd}') && !has_escapes {
            assert_eq!(redactor.redact(shown.as_bytes(), is_cut), shown, "again");
        }
        shown
    };
    let basic = STANDARD.encode(format!("{secret}:{secret}"));
    let (before, after) = text.split_at(text.len() / 2);
    // An escape that begins before a secret, or in it, and ends beyond: only a secret as it
    // is stands out from that.
    let mut apart = before;
    while let Some(at) = apart.iter().rposition(|byte| escapes.contains(byte))
        && at + 12 > apart.len()
    {
        apart = &apart[..at];
    }
    for plain in [secret, &basic, basic.trim_end_matches('=')] {
        for spelling in spellings(plain) {
            // One with escapes of its own, written with others, can be read in many ways.
            if has_escapes && spelling != plain && plain == secret {
                continue;
            }
            let text = if spelling == plain {
                [before, spelling.as_bytes(), after].concat()
            } else {
                [apart, spelling.as_bytes(), b" ", after].concat()
            };
            let shown = redact(&text);
            assert!(!shown.contains(&spelling), "{spelling}: {shown}");
        }
    }
    let begins = [secret, &basic].map(|secret| secret.as_bytes()[0]);
    // What Latin-1 makes of any other secret begins otherwise.
    if secret.is_ascii() && !begins.iter().any(|begin| escapes.contains(begin)) {
        let mut other = text.to_vec();
        other.retain(|byte| !begins.contains(byte) && !escapes.contains(byte) && *byte != b'@');
        assert_eq!(redact(&other), lossy(&other));
    }
}

/// `secret` as URLs, forms, JSON and pages write it, and as some write what others wrote.
fn spellings(secret: &str) -> Vec<String> {
    let json = |text: &str| {
        let quoted = serde_json::to_string(text).expect("a string");
        quoted[1..quoted.len() - 1].to_owned()
    };
    let html = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        text.replace('>', "&gt;").replace('"', "&quot;")
    };
    let units = secret.encode_utf16();
    vec![
        secret.to_owned(),
        percent(secret),
        percent(secret).to_lowercase(),
        percent(secret).replace("%20", "+"),
        percent(&percent(secret)),
        json(secret),
        json(secret).replace('/', "\\/"),
        json(&json(secret)),
        units.map(|unit| format!("\\u{unit:04x}")).collect(),
        html(secret),
        html(&json(secret)),
        html(secret).replace('/', "&#x2F;").replace('=', "&#x3D;"),
        secret.chars().map(|c| format!("&#{};", c as u32)).collect(),
        percent(&json(secret)),
    ]
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// The scan of a damaged store's file finds what a naive search finds: each value at a leaf
/// node's place whose checksum is right, and nothing else, in portions as small as asked
/// for. The first byte says of which size, whether the file's page size is set right, and
/// whether checksums are.
pub fn salvage(data: &[u8]) {
    let Some((&control, file)) = data.split_first() else {
        return;
    };
    let mut file = file.to_vec();
    let page_size = 512 << (control % 4);
    let is_known = file.len() >= 256 && control & 4 == 0;
    if is_known {
        file[16..20].copy_from_slice(&0xBEEF_C0DE_u32.to_ne_bytes());
        file[40..44].copy_from_slice(&(page_size as u32).to_ne_bytes());
        for (key, value) in leaf_values(&file, page_size) {
            if control & 8 == 0 && value.len() >= 5 {
                let crc = crc_field(key, &file[value.start..value.end - 5]);
                file[value.end - 5..value.end].copy_from_slice(&crc);
            }
        }
    }
    let mut expected = leaf_values(&file, page_size);
    expected.retain(|(key, value)| *key > 0 && is_intact(*key, &file[value.clone()]));
    let values = expected
        .into_iter()
        .map(|(key, at)| (key, file[at].to_vec()));
    let expected: Vec<_> = values.collect();

    let mut on_disk = tempfile::NamedTempFile::new().expect("a file");
    on_disk.write_all(&file).expect("room for it");
    let _ = salvage::end_of(&File::open(on_disk.path()).expect("the file"));
    let mut scan = Scan::open(on_disk.path()).expect("the file");
    let _ = scan.find_id();
    let portion = usize::from(control >> 4);
    let mut found = found_by(&mut scan, portion, false);
    if is_known {
        assert_eq!(found, expected);
    }
    scan.restart_in_order();
    let mut in_order = found_by(&mut scan, portion, false);
    found.sort();
    in_order.sort();
    assert_eq!(found, in_order);
    // Where pages lie over each other, a part of what is left goes with what is given back.
    scan.restart_in_order();
    for record in found_by(&mut scan, portion, true) {
        assert!(found.binary_search(&record).is_ok());
    }
}

/// All that a scan finds, and gives back to the disk.
fn found_by(scan: &mut Scan, portion: usize, gives_back: bool) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(findings) = scan.next(0, 64 * portion + 1, portion + 1) {
        let mut bytes = 0;
        for record in &findings.records {
            assert!(bytes <= 64 * portion && is_intact(record.key, &record.value));
            bytes += record.value.len();
            all.push((record.key, record.value.clone()));
        }
        assert!(findings.records.len() <= portion + 1);
        if gives_back {
            let _ = scan.punch(&findings);
        }
    }
    all
}

/// Where the values of the leaf nodes are whose keys are a record's, in any page of `file`.
fn leaf_values(file: &[u8], page_size: usize) -> Vec<(u64, Range<usize>)> {
    let number = |bytes: &[u8], at: usize, length: usize| {
        let mut number = [0; 8];
        number[..length].copy_from_slice(bytes.get(at..at + length)?);
        Some(u64::from_le_bytes(number) as usize)
    };
    let value = |page: &[u8], base: usize, node: usize| {
        let length = number(page, node, 4)?;
        let (flags, key_length) = (number(page, node + 4, 2)?, number(page, node + 6, 2)?);
        let key = page.get(node + 8..node + 8 + key_length)?;
        let key = u64::from_be_bytes(key.try_into().ok()?);
        let (start, end) = match flags {
            0 => (base + node + 16, base + page.len()),
            1 => {
                let first = number(page, node + 16, 8)?.checked_mul(page_size)?;
                (first.checked_add(16)?, file.len())
            }
            _ => return None,
        };
        (start.checked_add(length)? <= end).then_some((key, start..start + length))
    };
    let mut values = Vec::new();
    for (index, page) in file.chunks(page_size).enumerate() {
        let is_leaf = number(page, 10, 2).is_some_and(|flags| flags & 2 != 0);
        let end = number(page, 12, 2).unwrap_or(0).min(page.len());
        for slot in (16..end)
            .step_by(2)
            .filter(|slot| is_leaf && slot + 2 <= end)
        {
            let node = number(page, slot, 2);
            values.extend(node.and_then(|node| value(page, index * page_size, node)));
        }
    }
    values
}

fn is_intact(key: u64, value: &[u8]) -> bool {
    let body = value.len().checked_sub(5).map(|end| value.split_at(end));
    body.is_some_and(|(body, field)| field == crc_field(key, body))
}

fn crc_field(key: u64, body: &[u8]) -> [u8; 5] {
    let crc = crc32fast::hash(&[&key.to_be_bytes(), body].concat()).to_le_bytes();
    [15 << 3 | 5, crc[0], crc[1], crc[2], crc[3]]
}
