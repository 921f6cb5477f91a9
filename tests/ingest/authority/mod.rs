//! The `:authority` adapter in front of hyper (spec 3).

mod fuzz;
mod server;
mod stall;
use crate::support::{rng::Rng, wire};

use std::io;

use echopost::limits;
use server::{Outcome, adapted, serve};
use wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Encoder, HEADERS, PADDED, PATH, PRIORITY,
    connection, cuts, frame, hex, opening, plain_authority, recording, replaced, request,
};

/// Name, the authority in it, what it becomes, and how many requests it holds.
const RECORDINGS: [(&str, &str, &str, usize); 3] = [
    (
        "grpc-c-core",
        "tmp%2Fechopost%2F.datanadhi%2Fdata-nadhi-agent.sock",
        "tmp-2Fechopost-2F.datanadhi-2Fdata-nadhi-agent.sock",
        1,
    ),
    (
        "grpc-c-core-non-ascii",
        "tmp%2Fecho%20post%2FGr%C3%B6%C3%9Fe%20%E6%97%A5%E6%9C%AC%2Fdata-nadhi-agent.sock",
        "tmp-2Fecho-20post-2FGr-C3-B6-C3-9Fe-20-E6-97-A5-E6-9C-AC-2Fdata-nadhi-agent.sock",
        1,
    ),
    ("hyper-h2", "", "localhost:50051", 2),
];

fn whole(bytes: Vec<u8>) -> Vec<Vec<u8>> {
    vec![bytes]
}

/// hyper's view of one request with these fields after `:method` and the like.
async fn hyper_sees(fields: &[u8]) -> Outcome {
    serve(whole(connection(&[request(fields)])), 1).await
}

#[tokio::test]
async fn recordings_are_rewritten_alike_however_they_are_cut() {
    for (name, from, to, _) in RECORDINGS {
        let bytes = recording(name);
        let expected = match from {
            "" => bytes.clone(), // a fine authority already
            from => replaced(&bytes, from, to),
        };
        for parts in cuts(&bytes) {
            let first = parts[0].len();
            assert!(
                adapted(parts).await.unwrap() == expected,
                "{name} cut at {first}"
            );
        }
    }
}

#[tokio::test]
async fn hyper_serves_recordings_however_they_are_cut() {
    for (name, _, authority, requests) in RECORDINGS {
        for parts in cuts(&recording(name)) {
            let first = parts[0].len();
            let outcome = serve(parts, requests).await;
            assert_eq!(
                outcome.served.len(),
                requests,
                "{name} cut at {first}: {outcome:?}"
            );
            for seen in outcome.seen {
                assert_eq!(seen.authority, authority, "{name} cut at {first}");
                assert_eq!(
                    (seen.path.as_str(), seen.body),
                    (PATH, 20),
                    "{name} cut at {first}"
                );
                assert_eq!(seen.fields["te"], b"trailers");
            }
        }
    }
}

#[tokio::test]
async fn plain_authorities() {
    let long = "x%".repeat(5000);
    let longer = "x-".repeat(5000);
    for (sent, seen) in [
        ("localhost:50051", "localhost:50051"),
        ("[::1]:80", "[::1]:80"),
        ("user:secret@host:1", "user:secret@host:1"),
        ("user%20name@host", "user%20name@host"),
        ("tmp%2Fa.sock", "tmp-2Fa.sock"),
        ("/tmp/a b.sock", "-tmp-a-b.sock"),
        ("host/path", "host-path"),
        ("host?query#part", "host-query-part"),
        ("a:b:c", "a-b-c"),
        ("1:2:3:4:5:6:7:8:9:0", "1-2-3-4-5-6-7-8-9-0"),
        ("user@", "user-"),
        ("[::1", "---1"),
        ("]", "-"),
        ("%", "-"),
        ("a\\\"<>^`{|}~_", "a---------~_"),
        ("\u{0}\u{7f}\n", "---"),
        ("/tmp/stra\u{df}e", "-tmp-stra--e"),
        (&long, &longer),
    ] {
        let outcome = hyper_sees(&plain_authority(sent.as_bytes())).await;
        assert_eq!(outcome.authorities(), [seen], "{sent}");
        assert_eq!(outcome.served, [1], "{sent}");
    }
    let outcome = hyper_sees(&plain_authority(b"no \xff\xfe UTF-8")).await;
    assert_eq!(outcome.authorities(), ["no----UTF-8"]);
}

#[tokio::test]
async fn huffman_coded_authorities() {
    // Encoded by an independent implementation.
    for (sent, encoded, valid) in [
        ("/tmp/a b.sock", "6134d6c0d48d741c9d7f", false),
        (
            "/run/user/1000/app/.datanadhi/data-nadhi-agent.sock",
            "62cb6a62d416c602000181d75b0bc8348ea1c9399890691ad50e49ccb0e62d495d07275f",
            false,
        ),
        (
            "/tmp/stra\u{df}e/agent.sock",
            "6134d6c21360ffff8fffff79581cc5a92ba0e4eb",
            false,
        ),
        (
            "tmp%2Fechopost%2Fa.sock",
            "4d35aa2c2524e7ace84aa2c235d07275",
            false,
        ),
        ("a:b:c", "1dc8ee13", false),
        ("localhost:50051", "a0e41d139d09b8d800d87f", true),
    ] {
        let mut field = vec![0x01];
        let encoded = hex(encoded);
        Encoder::integer(&mut field, 0x80, 7, encoded.len());
        field.extend(encoded);
        let outcome = hyper_sees(&field).await;
        assert_eq!(outcome.served, [1], "{sent}");
        let seen = &outcome.seen[0].authority;
        assert_eq!(seen.len(), sent.len(), "{sent}");
        assert_eq!(seen == sent, valid, "{sent} became {seen}");
    }
}

#[tokio::test]
async fn what_has_no_acceptable_form_of_equal_length_costs_only_its_own_call() {
    let mut foreign = vec![0x41, 0x80 | 50];
    foreign.extend(hex(
        "63fffd1ffff8fffff47fffa3fffd9fffefffffd5fffef7fffe7ffff47fffe3ffffd1\
         fffe8ffff67fffbfffff57fffbdffff9d8f3",
    ));
    foreign[1] = 0x80 | u8::try_from(foreign.len() - 2).unwrap();
    for (case, field) in [
        ("static entry 1", vec![0x81]),
        ("no bytes", vec![0x41, 0x00]),
        ("no bytes, Huffman-coded", vec![0x41, 0x80]),
        ("mostly non-ASCII, Huffman-coded", foreign),
    ] {
        let next = request(&plain_authority(b"/next"));
        let bytes = connection(&[request(&field), next]);
        assert_eq!(
            adapted(whole(bytes.clone())).await.unwrap().len(),
            bytes.len()
        );
        let outcome = serve(whole(bytes), 2).await;
        assert_eq!(
            (outcome.reset, outcome.served),
            (vec![1], vec![3]),
            "{case}"
        );
    }
}

/// The frames of one request whose block is cut in so many ways.
fn shapes(block: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let end = END_HEADERS | END_STREAM;
    let padded = |padding: u8, middle: &[u8]| {
        let tail = vec![0xaa; usize::from(padding)];
        [&[padding], middle, block, &tail].concat()
    };
    let priority = [0, 0, 0, 0, 15];
    let parts = |at: &[usize]| {
        let mut frames = Vec::new();
        let (mut from, mut kind, mut flags) = (0, HEADERS, END_STREAM);
        for to in at {
            frames.extend(frame(kind, flags, 1, &block[from..*to]));
            (from, kind, flags) = (*to, CONTINUATION, 0);
        }
        frames.extend(frame(kind, flags | END_HEADERS, 1, &block[from..]));
        frames
    };
    let split = [&padded(3, &[])[..8], &[0xaa; 3]].concat();
    vec![
        ("plain", frame(HEADERS, end, 1, block)),
        (
            "priority",
            frame(HEADERS, end | PRIORITY, 1, &[&priority, block].concat()),
        ),
        ("padded", frame(HEADERS, end | PADDED, 1, &padded(7, &[]))),
        (
            "padded by nothing",
            frame(HEADERS, end | PADDED, 1, &padded(0, &[])),
        ),
        (
            "padded, priority",
            frame(HEADERS, end | PADDED | PRIORITY, 1, &padded(255, &priority)),
        ),
        ("two", parts(&[block.len() / 2])),
        ("many, some of them empty", parts(&[0, 3, 8, 8, 12])),
        ("an empty last one", parts(&[block.len()])),
        (
            "padded, then continued",
            [
                frame(HEADERS, END_STREAM | PADDED, 1, &split),
                frame(CONTINUATION, END_HEADERS, 1, &block[7..]),
            ]
            .concat(),
        ),
    ]
}

#[tokio::test]
async fn a_block_may_come_in_any_frames() {
    let block = request(&plain_authority(b"/tmp/a.sock"));
    let fine = request(&plain_authority(b"-tmp-a.sock"));
    for ((shape, sent), (_, seen)) in shapes(&block).into_iter().zip(shapes(&fine)) {
        let bytes = [opening(), sent].concat();
        let expected = [opening(), seen].concat();
        for parts in cuts(&bytes) {
            let first = parts[0].len();
            assert!(
                adapted(parts.clone()).await.unwrap() == expected,
                "{shape} cut at {first}"
            );
            let outcome = serve(parts, 1).await;
            assert_eq!(
                outcome.authorities(),
                ["-tmp-a.sock"],
                "{shape} cut at {first}"
            );
            assert_eq!(outcome.served, [1], "{shape} cut at {first}");
        }
    }
}

#[tokio::test]
async fn later_requests_refer_to_the_entry_of_the_first() {
    let blocks = [
        request(&[&[0x41], &plain_authority(b"/tmp/a.sock")[1..]].concat()), // entry 62
        request(&[0xbe]),                                                    // by index
        request(&[&[0x7e], &plain_authority(b"/tmp/b.sock")[1..]].concat()), // by its name
        request(&[0xbe]),
        request(&[0xbf]),
        // A literal name, never indexed; then updates that empty the table and
        // leave room for one entry.
        request(
            &[
                b"\x10\x0a:authority".as_slice(),
                &plain_authority(b"/c")[1..],
            ]
            .concat(),
        ),
        [&hex("203f35")[..], &request(&plain_authority(b"/d"))].concat(),
        request(b"\x40\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f\x02/e"), // Huffman-coded name
        request(&[0xbe]),
    ];
    let outcome = serve(whole(connection(&blocks)), blocks.len()).await;
    let (a, b) = ("-tmp-a.sock", "-tmp-b.sock");
    let authorities = outcome.authorities();
    assert_eq!(
        authorities,
        [a, a, b, b, a, "-c", "-d", "-e", "-e"],
        "{outcome:?}"
    );
}

#[tokio::test]
async fn bodies_pass_between_the_frames_of_other_calls() {
    let block = request(&plain_authority(b"/tmp/a.sock"));
    // A body that looks like a header block must not be touched.
    let body = frame(HEADERS, END_HEADERS, 1, &block);
    let mut bytes = opening();
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &block));
    bytes.extend(frame(DATA, 0, 1, &body));
    bytes.extend(frame(HEADERS, END_HEADERS, 3, &block));
    bytes.extend(frame(DATA, END_STREAM, 3, &body));
    bytes.extend(frame(DATA, 0, 1, &[]));
    bytes.extend(frame(0xfa, 0xff, 1, &body)); // an unknown type is ignored
    bytes.extend(frame(DATA, PADDED, 1, &[&[2], &body[..], &[0, 0]].concat()));
    bytes.extend(frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        b"\x40\x05check\x03abc",
    ));
    bytes.extend(frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        5,
        &request(&[0x01, 0x01, b'/']),
    ));
    for parts in cuts(&bytes) {
        let outcome = serve(parts, 3).await;
        assert_eq!(outcome.served.len(), 3, "{outcome:?}");
        let bodies: usize = outcome.seen.iter().map(|seen| seen.body).sum();
        assert_eq!(bodies, body.len() * 3);
    }
    let out = adapted(whole(bytes.clone())).await.unwrap();
    let kept = out
        .windows(body.len())
        .filter(|window| *window == body)
        .count();
    assert_eq!(kept, 4);
}

#[tokio::test]
async fn a_flood_of_headers_ends_the_connection() {
    let max = limits::HEADER_BLOCK_MAX;
    let continued = frame(HEADERS, 0, 1, &[0x83]);
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(max / 9);
    for (case, flood) in [
        ("declared", frame(HEADERS, 0, 1, &vec![0; max])),
        ("continued", frame(CONTINUATION, 0, 1, &vec![0; max - 9])),
        ("empty ones", empty),
    ] {
        let start = if case == "declared" {
            Vec::new()
        } else {
            continued.clone()
        };
        let bytes = [opening(), start, flood].concat();
        let error = adapted(Rng(7).cut(&bytes, 100)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{case}");
    }
}
