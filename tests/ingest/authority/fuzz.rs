//! Random connections against hyper, and noise.

use std::collections::BTreeMap;
use std::io;

use crate::authority::RECORDINGS;
use crate::authority::server::{Seen, adapted, serve};
use crate::support::rng::{Rng, rounds};
use crate::support::wire::{Encoder, Form, PATH, connection, recording};

/// Random fields in random forms over a random table, as sent and as expected.
fn random_request(rng: &mut Rng, encoder: &mut Encoder) -> (Vec<u8>, Seen) {
    const AUTHORITIES: [&str; 5] = ["/tmp/a.sock", "tmp%2Fb", "localhost:1", "/", "a:b:c/d e"];
    const NAMES: [&str; 4] = ["a", "x-trace-id", "idempotency-key", "some-longer-name"];
    let mut block = Vec::new();
    for _ in 0..rng.index(3) {
        encoder.resize(&mut block, rng.pick(&[0, 50, 96, 200, 700, 4096]));
    }
    let authority = rng.pick(&AUTHORITIES);
    let mut fields = vec![
        (":method", "POST".to_string()),
        (":scheme", "http".to_string()),
        (":authority", authority.to_string()),
        (":path", PATH.to_string()),
    ];
    let at = rng.index(4);
    fields.swap(at, 2);
    for name in NAMES {
        let printable = |rng: &mut Rng| char::from(b'!' + rng.index(94) as u8);
        let length = rng.pick(&[0, 1, 5, 150]);
        let value = (0..length).map(|_| printable(rng)).collect();
        fields.push((name, value));
    }
    for (name, value) in &fields {
        let form = rng.pick(&[
            Form::Index,
            Form::Index,
            Form::Indexing,
            Form::Without,
            Form::Never,
        ]);
        let (named, huffman) = (rng.index(2) == 0, rng.index(3) == 0);
        encoder.field(
            &mut block,
            (name.as_bytes(), value.as_bytes()),
            form,
            named,
            huffman,
        );
    }
    let plain = |(name, value): &(&str, String)| (name.to_string(), value.clone().into_bytes());
    let regular: BTreeMap<_, _> = fields[4..].iter().map(plain).collect();
    let seen = Seen {
        authority: authority.to_string(),
        path: PATH.to_string(),
        fields: regular,
        body: 0,
    };
    (block, seen)
}

#[tokio::test]
async fn both_tables_stay_in_step_over_random_connections() {
    let mut rng = Rng::seeded();
    let mut entries = 0;
    for round in 0..rounds(150) {
        let mut encoder = Encoder::new();
        let requests: Vec<_> = (0..8)
            .map(|_| random_request(&mut rng, &mut encoder))
            .collect();
        entries = entries.max(encoder.entries());
        let (blocks, sent): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let bytes = connection(&blocks);
        let longest = rng.pick(&[1, 7, 100, 5000]);
        let outcome = serve(rng.cut(&bytes, longest), sent.len()).await;
        assert_eq!(
            outcome.served.len(),
            sent.len(),
            "round {round}: {outcome:?}"
        );
        for (sent, seen) in sent.iter().zip(&outcome.seen) {
            assert_eq!(seen.authority.len(), sent.authority.len(), "round {round}");
            let fine = sent.authority == "localhost:1";
            assert_eq!(seen.authority == sent.authority, fine, "round {round}");
            assert_eq!(seen.fields, sent.fields, "round {round}");
            assert_eq!(seen.path, sent.path, "round {round}");
        }
    }
    assert!(entries > 20, "the table was never well filled: {entries}");
}

#[tokio::test]
async fn as_many_bytes_come_out_as_go_in_whatever_they_are() {
    let mut rng = Rng::seeded();
    let recordings = RECORDINGS.map(|(name, ..)| recording(name));
    for round in 0..rounds(2000) {
        let mut bytes = recordings[round % 3].clone();
        match round % 4 {
            0 => bytes = (0..200).map(|_| rng.index(256) as u8).collect(),
            1 => bytes
                .splice(24.., (0..300).map(|_| rng.index(12) as u8))
                .for_each(drop),
            _ => {
                for _ in 0..=rng.index(4) {
                    let at = rng.index(bytes.len());
                    bytes[at] = rng.index(256) as u8;
                }
            }
        }
        let longest = rng.pick(&[1, 20, 500]);
        match adapted(rng.cut(&bytes, longest)).await {
            Ok(out) => assert_eq!(out.len(), bytes.len(), "round {round}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::InvalidData, "round {round}"),
        }
    }
}
