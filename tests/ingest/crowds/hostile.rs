//! Clients that promise and do not keep it, many at once; a well-behaved one beside them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::crowds::client::Client;
use crate::crowds::{ANY_KIB, PATIENCE, Trial, json, record};
use crate::support::hostile_clients::HostileClients;
use crate::support::raw::{Got, Raw, begun, call, header_block_with, promise};
use crate::support::wait;
use crate::support::wire::{DATA, END_HEADERS, HEADERS, PING, frame, opening};

const LARGE: usize = 4_000_000;

fn odd(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

/// Well-behaved clients are served beside the crowd, which makes no more of the agent than
/// any may; once it has gone, the agent is small again.
fn beside<C>(load: &str, crowd: impl FnOnce(&HostileClients) -> C) {
    let mut trial = Trial::start(load);
    let start = Instant::now();
    let crowd = crowd(&trial.hostile);
    trial.note("crowd there after", start.elapsed());
    trial.small_records();
    trial.peak(ANY_KIB);
    drop(crowd);
    trial.small_again();
    trial.end();
}

/// The same on many connections, by four threads.
fn many<C: Send>(count: usize, one: impl Fn() -> C + Sync) -> Vec<C> {
    let next = AtomicUsize::new(0);
    let part = || {
        let mut made = Vec::new();
        while next.fetch_add(1, Relaxed) < count {
            made.push(one());
        }
        made
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(part)).collect();
        let made = threads.into_iter().map(|thread| thread.join());
        made.flat_map(|each| each.expect("a part of the crowd"))
            .collect()
    })
}

/// Connections that begin as many calls as they are allowed, `most` at most, each of
/// which promises a message and sends a part of it.
fn promises(hostile: &HostileClients, count: usize, most: u32, body: &[u8]) -> Vec<Client> {
    promises_of(Client::settled, hostile, count, most, body)
}

fn promises_of(
    connect: fn(&Path) -> Client,
    hostile: &HostileClients,
    count: usize,
    most: u32,
    body: &[u8],
) -> Vec<Client> {
    let crowd = many(count, || {
        let mut client = connect(&hostile.socket());
        let mut sent = Vec::new();
        for stream in odd(client.streams.min(most)) {
            client.begin(stream);
            sent.push((stream, client.body(stream, body)));
        }
        client.round_trip();
        // What they are asked for on top.
        for (stream, sent) in sent {
            client.body(stream, &body[sent..]);
        }
        client
    });
    let streams: usize = crowd.iter().map(|client| client.own.len()).sum();
    println!("{streams} streams on {count} connections");
    crowd
}

/// Connections with one call each, which they do not wait for to be allowed.
fn stalled(hostile: &HostileClients, count: usize, body: &[u8]) -> Vec<Raw> {
    let mut bytes = [opening(), call(1, b"", 0)].concat();
    // SETTINGS_MAX_FRAME_SIZE is 16,384.
    bytes.extend(body.chunks(16_384).flat_map(|part| frame(DATA, 0, 1, part)));
    many(count, || {
        let mut raw = Raw::connect(&hostile.socket());
        raw.try_send(&bytes);
        raw
    })
}

#[test]
fn few_connections_full_of_promises_hold_no_other() {
    for sent in [4_200, 20_000] {
        beside(&format!("4 x 64 that send {sent} of 30,000"), |hostile| {
            promises(hostile, 4, 64, &begun(30_000, sent))
        });
    }
}

#[test]
fn more_promises_than_places_hold_no_other() {
    for sent in [0, 8_000, 20_000] {
        beside(&format!("250 that send {sent} of 4 MB"), |hostile| {
            stalled(hostile, 250, &begun(LARGE, sent))
        });
    }
}

/// All that they may send unasked: it takes them into the line.
#[test]
fn more_promises_with_a_full_window_than_places_hold_no_other() {
    beside("250 that send a window of 4 MB", |hostile| {
        pushing(hostile, 250, 22_528)
    });
}

/// Connections that send a part of a large message as they are asked for it.
struct Pushing {
    gone: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.gone.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || std::thread::panicking());
        }
    }
}

/// Goes on until they are asked for no more.
fn pushing(hostile: &HostileClients, count: usize, length: usize) -> Pushing {
    let (gone, sent) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let body: Arc<[u8]> = begun(LARGE, length - 5).into();
    let threads = (0..count)
        .map(|_| {
            let mut client = Client::connect(&hostile.socket());
            let (gone, sent, body) = (Arc::clone(&gone), Arc::clone(&sent), Arc::clone(&body));
            std::thread::spawn(move || {
                client.begin(1);
                let mut at = 0;
                while client.is_open && !gone.load(Relaxed) {
                    let now = client.body(1, &body[at..]);
                    at += now;
                    sent.fetch_add(now, Relaxed);
                    match client.raw.next(Duration::from_millis(100)) {
                        Got::Frame(got) => client.take(&got),
                        Got::End => client.is_open = false,
                        Got::Nothing => {}
                    }
                }
                while !gone.load(Relaxed) {
                    std::thread::park_timeout(wait::POLL);
                }
            })
        })
        .collect();
    let crowd = Pushing { gone, threads };
    let (mut seen, mut since) = (0, Instant::now());
    wait::until(PATIENCE, "nothing moves", || {
        let now = sent.load(Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        now > 0 && since.elapsed() > Duration::from_secs(1)
    });
    println!("{seen} bytes taken");
    crowd
}

/// As many as have a place: beyond, nothing tells them from well-behaved ones before they stop.
#[test]
fn bodies_of_which_a_quarter_is_missing_hold_no_other() {
    beside("190 that send 3 of 4 MB", |hostile| {
        pushing(hostile, 190, 3_000_000)
    });
}

#[test]
fn large_records_are_taken_beside_stalled_ones() {
    taken_beside("60 that send 20,000 of 4 MB", 50, 500_000, |hostile| {
        stalled(hostile, 60, &begun(LARGE, 20_000))
    });
}

/// As much as any crowd can make of the agent, and the budget on top.
#[test]
fn the_largest_records_are_taken_beside_full_windows() {
    let body = begun(LARGE, 200_000);
    taken_beside("190 x as allowed, deaf", 8, 3_900_000, |hostile| {
        promises_of(Client::deaf, hostile, 190, 64, &body)
    });
}

fn taken_beside<C>(
    load: &str,
    count: usize,
    bytes: usize,
    crowd: impl FnOnce(&HostileClients) -> C,
) {
    let mut trial = Trial::start(&format!("{load}, {count} x 1 of {bytes} bytes"));
    let socket = trial.hostile.socket();
    let crowd = crowd(&trial.hostile);
    let json = json(bytes);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let client = |_| scope.spawn(|| record(&socket, &json));
        let threads: Vec<_> = (0..count).map(client).collect();
        trial.small_records();
        let answers = threads.into_iter().map(|thread| thread.join());
        answers.map(|answer| answer.expect("a client")).collect()
    });
    let (took, failures): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let took = took.into_iter().flatten();
    trial.note("fastest and slowest", (took.clone().min(), took.max()));
    let failures: Vec<_> = failures.into_iter().filter_map(Result::err).collect();
    trial.none_failed(count, &failures);
    trial.peak(ANY_KIB);
    drop(crowd);
    trial.small_again();
    trial.end();
}

/// Calls that are begun and left, and then such as have many headers.
fn headers(hostile: &HostileClients, fields: usize) -> (Vec<Client>, Vec<Raw>) {
    let open = promises(hostile, 32, 64, b"");
    let block = header_block_with(&vec![("n", "v"); fields]);
    let mut bytes = opening();
    bytes.extend(odd(64).flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &block)));
    let fat = many(158, || {
        let mut raw = Raw::connect(&hostile.socket());
        raw.try_send(&bytes);
        raw
    });
    (open, fat)
}

/// More than a header list may have.
#[test]
fn headers_of_too_many_fields_take_little() {
    beside("32 x 64 open calls, 158 x 64 of 440 fields", |hostile| {
        headers(hostile, 440)
    });
}

#[test]
fn headers_of_many_fields_take_little() {
    beside("32 x 64 open calls, 158 x 64 of 100 fields", |hostile| {
        headers(hostile, 100)
    });
}

#[test]
fn half_sent_bodies_take_little() {
    for (promised, sent) in [(20_000, 10_000), (45_056, 22_528), (LARGE, 100_000)] {
        let load = format!("190 x as allowed that send {sent} of {promised}");
        beside(&load, |hostile| {
            promises(hostile, 190, 64, &begun(promised, sent - 5))
        });
    }
}

#[test]
fn bodies_of_clients_that_acknowledge_nothing_take_little() {
    let body = begun(LARGE, 200_000);
    beside("190 x as allowed with windows of 64 KiB", |hostile| {
        promises_of(Client::deaf, hostile, 190, 64, &body)
    });
}

/// It has not seen them, or so it says.
#[test]
fn half_sent_bodies_of_clients_that_ignore_the_settings_take_little() {
    let mut bytes = opening();
    bytes.extend(odd(64).flat_map(|stream| call(stream, &begun(2_000, 1_000), 0)));
    beside("190 x 64 that send 1,000 of 2,000", |hostile| {
        many(190, || {
            let mut raw = Raw::connect(&hostile.socket());
            raw.try_send(&bytes);
            raw
        })
    });
}

/// On as many streams as they are allowed, `count` connections send their bodies in
/// pieces of 256 bytes with something between, `pieces` of them on each stream.
fn pieces(hostile: &HostileClients, count: usize, pieces: usize, between: &[u8]) -> Vec<Client> {
    many(count, || {
        let mut client = Client::settled(&hostile.socket());
        let streams: Vec<u32> = odd(client.streams.min(64)).collect();
        for &stream in &streams {
            client.begin(stream);
            client.data(stream, &promise(LARGE));
        }
        send_pieces(&mut client, &streams, pieces, between);
        client
    })
}

fn send_pieces(client: &mut Client, streams: &[u32], pieces: usize, between: &[u8]) {
    for piece in 0..pieces {
        for &stream in streams {
            if client.window(stream, 256) == 256 {
                client.data(stream, &[b' '; 256]);
                client.send(between);
            }
            // Or the agent could not write, and would not read.
            if piece % 4 == 0 || between[3] == PING {
                client.round_trip();
            }
        }
    }
}

/// Of no known type.
fn unknown() -> Vec<u8> {
    frame(0xee, 0, 0, &[0; 16_384])
}

#[test]
fn small_pieces_of_bodies_do_not_keep_what_came_between() {
    beside("150 x as allowed, 80 pieces, 16 KiB between", |hostile| {
        pieces(hostile, 150, 80, &unknown())
    });
}

/// Calls in line have taken a window, and are given another.
#[test]
fn all_small_pieces_that_flow_control_allows_do_not_keep_what_came_between() {
    beside("150 x as allowed, 250 pieces, 16 KiB between", |hostile| {
        pieces(hostile, 150, 250, &unknown())
    });
}

/// What h2 answers as it comes.
fn pings() -> Vec<u8> {
    frame(PING, 0, 0, &[7; 8]).repeat(480)
}

#[test]
fn small_pieces_of_bodies_do_not_keep_pings() {
    beside(
        "150 x as allowed, 20 pieces, 480 PINGs between",
        |hostile| pieces(hostile, 150, 20, &pings()),
    );
}

/// A window first, which takes them into the line.
#[test]
fn small_pieces_of_calls_in_line_do_not_keep_pings() {
    beside("8 x as allowed in line, 40 pieces, 480 PINGs", |hostile| {
        let mut crowd = promises(hostile, 8, 64, &begun(LARGE, 22_523));
        for client in &mut crowd {
            let streams: Vec<u32> = client.own.keys().copied().collect();
            send_pieces(client, &streams, 40, &pings());
        }
        crowd
    });
}
