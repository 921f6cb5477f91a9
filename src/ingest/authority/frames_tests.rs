use super::*;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0, length[0], length[1], kind, flags, 0, 0, 0, stream];
    bytes.extend(payload);
    bytes
}

fn follower() -> Follower {
    let mut follower = Follower::default();
    assert_eq!(follower.feed(&mut PREFACE.clone()), Ok(PREFACE.len()));
    follower
}

/// `:authority` with the value `/`, and what it becomes.
const BLOCK: &[u8] = &[0x01, 0x01, b'/'];
const FINE: &[u8] = &[0x01, 0x01, b'-'];

/// What comes out at the end, whether the follower has given up by then.
fn fed(bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut follower = follower();
    let mut bytes = bytes.to_vec();
    let released = follower.feed(&mut bytes).unwrap();
    assert_eq!(released, bytes.len());
    (bytes, matches!(follower.state, State::GivenUp))
}

#[test]
fn only_unfinished_headers_are_held() {
    let settings = frame(4, 0, 0, &[0; 6]);
    let headers = frame(HEADERS, END_HEADERS, 1, BLOCK);
    let data = frame(0, 0, 1, &[7; 50]);
    // What is fed after the preface, how much of it is released, what it takes
    // to go on.
    for (case, bytes, released, needed) in [
        ("nothing", vec![], 0, 9),
        ("a whole frame", settings.clone(), 15, 9),
        ("half a frame header", settings[..5].to_vec(), 0, 9),
        ("a frame header", settings[..9].to_vec(), 9, 0),
        ("half a payload", settings[..12].to_vec(), 12, 0),
        ("a header block", headers.clone(), 12, 9),
        ("half a header block", headers[..10].to_vec(), 0, 12),
        ("its header", headers[..9].to_vec(), 0, 12),
        (
            "one and a half",
            [&headers[..], &headers[..9]].concat(),
            12,
            12,
        ),
        (
            "one, and half a body",
            [&headers[..], &data[..20]].concat(),
            32,
            0,
        ),
        ("an open block", frame(HEADERS, 0, 1, BLOCK), 0, 21),
    ] {
        let mut follower = follower();
        let got = follower.feed(&mut bytes.clone());
        assert_eq!((got, follower.needed()), (Ok(released), needed), "{case}");
    }
}

#[test]
fn the_preface_passes_byte_by_byte() {
    let mut follower = Follower::default();
    for byte in PREFACE {
        assert!(follower.in_preface());
        assert_eq!(follower.feed(&mut [*byte]), Ok(1));
    }
    assert!(matches!(follower.state, State::Head(_)));
    // The SETTINGS frame is part of the preface.
    let (last, settings) = frame(4, 0, 0, &[0; 6])
        .split_last()
        .map_or((0, Vec::new()), |(last, rest)| (*last, rest.to_vec()));
    follower.feed(&mut settings.clone()).unwrap();
    assert!(follower.in_preface());
    follower.feed(&mut [last]).unwrap();
    assert!(!follower.in_preface());

    let mut follower = Follower::default();
    follower.feed(&mut PREFACE.clone()).unwrap();
    follower.feed(&mut frame(4, 0, 0, &[])).unwrap();
    assert!(!follower.in_preface(), "empty SETTINGS");

    let mut follower = Follower::default();
    let mut bytes = *b"PRI * HTTP/1.1";
    assert_eq!(follower.feed(&mut bytes), Ok(bytes.len()));
    assert!(matches!(follower.state, State::GivenUp));
}

#[test]
fn gives_up_at_a_violation_and_touches_nothing_from_there_on() {
    let open = || frame(HEADERS, 0, 1, &BLOCK[..1]);
    for (case, bytes) in [
        ("stream 0", frame(HEADERS, END_HEADERS, 0, BLOCK)),
        (
            "no HEADERS before",
            frame(CONTINUATION, END_HEADERS, 1, BLOCK),
        ),
        (
            "a client pushes",
            frame(PUSH_PROMISE, END_HEADERS, 1, BLOCK),
        ),
        ("a frame inside", [open(), frame(0, 0, 1, &[])].concat()),
        (
            "HEADERS inside",
            [open(), frame(HEADERS, END_HEADERS, 1, BLOCK)].concat(),
        ),
        (
            "another stream",
            [open(), frame(CONTINUATION, END_HEADERS, 3, &BLOCK[1..])].concat(),
        ),
        (
            "no length of padding",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[]),
        ),
        (
            "too much padding",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[4, 1, 1, b'/']),
        ),
        (
            "far too much padding",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[255, 1]),
        ),
        (
            "half a priority",
            frame(HEADERS, END_HEADERS | PRIORITY, 1, &[0; 4]),
        ),
        ("no HPACK", frame(HEADERS, END_HEADERS, 1, &[0x80])),
        (
            "a field cut short",
            frame(HEADERS, END_HEADERS, 1, &BLOCK[..2]),
        ),
    ] {
        let fine = frame(HEADERS, END_HEADERS, 5, BLOCK);
        let bytes = [bytes, fine].concat();
        assert_eq!(fed(&bytes), (bytes, true), "{case}");
    }
}

#[test]
fn the_reserved_bit_of_a_stream_is_ignored() {
    let mut bytes = [
        frame(HEADERS, 0, 1, &[]),
        frame(CONTINUATION, END_HEADERS, 1, BLOCK),
    ];
    bytes[1][5] = 0x80;
    let (out, given_up) = fed(&bytes.concat());
    assert!(out.ends_with(FINE) && !given_up);
}

#[test]
fn padding_may_take_all_but_the_fields() {
    for (payload, expected) in [
        (vec![0, 1, 1, b'/'], vec![0, 1, 1, b'-']),
        (
            vec![3, 1, 1, b'/', 1, 1, b'/'],
            vec![3, 1, 1, b'-', 1, 1, b'/'],
        ),
        (vec![3, 1, 1, b'/'], vec![3, 1, 1, b'/']), // nothing but padding
    ] {
        let flags = END_HEADERS | PADDED;
        let expected = frame(HEADERS, flags, 1, &expected);
        assert_eq!(fed(&frame(HEADERS, flags, 1, &payload)), (expected, false));
    }
}

#[test]
fn a_block_may_take_so_many_bytes_and_no_more() {
    let max = limits::HEADER_BLOCK_MAX;
    let headers = |length: usize| frame(HEADERS, 0, 1, &vec![0; length - HEAD]);
    let more = |length: usize| frame(CONTINUATION, 0, 1, &vec![0; length - HEAD]);
    for (case, bytes, expected) in [
        ("one, full", headers(max), Ok(0)),
        ("one, over", headers(max + 1), Err(TooLarge)),
        (
            "over, and only declared",
            headers(max + 1)[..HEAD].to_vec(),
            Err(TooLarge),
        ),
        ("two, full", [headers(100), more(max - 100)].concat(), Ok(0)),
        (
            "two, over",
            [headers(100), more(max - 99)].concat(),
            Err(TooLarge),
        ),
        (
            "empty ones",
            [headers(9), more(9).repeat(max / 9)].concat(),
            Err(TooLarge),
        ),
    ] {
        assert_eq!(follower().feed(&mut bytes.clone()), expected, "{case}");
    }
}

#[test]
fn frames_are_looked_at_once_however_slowly_they_come() {
    let mut bytes = frame(HEADERS, 0, 1, &[]);
    bytes.extend(frame(CONTINUATION, 0, 1, &[]).repeat(1000));
    let mut follower = follower();
    for end in 1..=bytes.len() {
        assert_eq!(follower.feed(&mut bytes[..end]), Ok(0));
        let State::Head(block) = &follower.state else {
            panic!("not in a block");
        };
        assert_eq!(block.scanned, end / HEAD * HEAD);
        assert_eq!(follower.needed(), end / HEAD * HEAD + HEAD);
    }
}

#[test]
fn a_streams_window_is_hidden_once_the_connection_is_to_end() {
    let window = |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 1, 0]);
    for (is_ending, stream, kind) in [
        (false, 5, WINDOW_UPDATE),
        (true, 5, UNKNOWN),
        // One that was begun before.
        (true, 3, WINDOW_UPDATE),
        // The connection's own.
        (true, 0, WINDOW_UPDATE),
    ] {
        for split in 1..13 {
            let mut follower = follower();
            follower
                .feed(&mut frame(HEADERS, END_HEADERS, 3, BLOCK))
                .unwrap();
            follower.is_ending = is_ending;
            let mut held = window(stream)[..split].to_vec();
            let mut out: Vec<u8> = Vec::new();
            for rest in [&window(stream)[split..], &[]] {
                let released = follower.feed(&mut held).unwrap();
                out.extend(held.drain(..released));
                held.extend(rest);
            }
            let mut expected = window(stream);
            expected[TYPE_AT] = kind;
            assert_eq!(out, expected, "{is_ending}, stream {stream}, split {split}");
        }
    }
}
