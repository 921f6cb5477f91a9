//! Waiting, ends, and small readers. The clock is tokio's and stands still but
//! for the waits.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use echopost::ingest::authority::AuthorityAdapter;
use echopost::limits::{HEADER_STALL, READ_TURN};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::authority::server::Scripted;
use crate::support::wire::{DATA, END_HEADERS, HEADERS, frame, opening, plain_authority, request};

const HOUR: Duration = Duration::from_secs(3600);

fn pair() -> (DuplexStream, AuthorityAdapter<DuplexStream>) {
    let (client, server) = duplex(1 << 16);
    (client, AuthorityAdapter::new(server, Arc::default()))
}

/// Reads until the adapter fails, or for an hour.
async fn failure(adapter: &mut AuthorityAdapter<DuplexStream>) -> Option<ErrorKind> {
    let reading = async {
        loop {
            match adapter.read(&mut [0; 1024]).await {
                Ok(0) => panic!("the client is still there"),
                Ok(_) => {}
                Err(error) => break error.kind(),
            }
        }
    };
    timeout(HOUR, reading).await.ok()
}

/// h2 reads a connection as long as there are frames: 150 clients that send frames of no use
/// held up a stop for two seconds.
#[tokio::test(start_paused = true)]
async fn a_client_that_floods_leaves_the_others_their_turn() {
    const AT_ONCE: usize = 1024;
    let (mut client, mut adapter) = pair();
    let flood = [opening(), frame(6, 0, 0, &[0; 8]).repeat(3000)].concat();
    client.write_all(&flood).await.unwrap();
    let turn = poll_fn(|cx| {
        let mut turn = 0;
        loop {
            let mut bytes = [0; AT_ONCE];
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut adapter).poll_read(cx, &mut read) {
                Poll::Ready(result) => result.unwrap(),
                Poll::Pending => return Poll::Ready(turn),
            }
            turn += read.filled().len();
        }
    });
    let turn = turn.await;
    assert!((1..=READ_TURN + AT_ONCE).contains(&turn), "{turn}");
    // Woken, it goes on without any more coming.
    let mut rest: Vec<u8> = Vec::new();
    let reading = async {
        while turn + rest.len() < flood.len() {
            let mut bytes = [0; AT_ONCE];
            let count = adapter.read(&mut bytes).await.unwrap();
            rest.extend(&bytes[..count]);
        }
    };
    timeout(HOUR, reading).await.expect("its next turns");
    assert_eq!(rest, flood[turn..]);
}

#[tokio::test(start_paused = true)]
async fn silence_elsewhere_is_no_stall() {
    let block = frame(HEADERS, END_HEADERS, 1, &request(&plain_authority(b"/a")));
    let data = frame(DATA, 0, 1, &[1; 100]);
    for (case, sent) in [
        ("after the preface", opening()),
        ("after a header block", [opening(), block.clone()].concat()),
        (
            "in a body",
            [opening(), block.clone(), data[..50].to_vec()].concat(),
        ),
        (
            "before a body",
            [opening(), block.clone(), data[..9].to_vec()].concat(),
        ),
    ] {
        let (mut client, mut adapter) = pair();
        client.write_all(&sent).await.unwrap();
        assert_eq!(failure(&mut adapter).await, None, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_block_has_its_own_time() {
    let block = frame(HEADERS, END_HEADERS, 1, &request(&plain_authority(b"/a")));
    let (mut client, mut adapter) = pair();
    let pause = HEADER_STALL - Duration::from_secs(1);
    let writing = async {
        for part in [opening(), block.clone(), block.clone(), block]
            .concat()
            .chunks(10)
        {
            client.write_all(part).await.unwrap();
            // Each part finishes one block or preface at most, and begins another.
            sleep(pause / 4).await;
        }
    };
    let reading = async { timeout(pause * 3, failure(&mut adapter)).await };
    let (failed, ()) = tokio::join!(reading, writing);
    assert!(failed.is_err(), "{failed:?}");
}

#[tokio::test]
async fn the_end_releases_what_is_held() {
    let block = frame(
        HEADERS,
        END_HEADERS,
        1,
        &request(&plain_authority(b"/tmp/a.sock")),
    );
    let bytes = [opening(), block].concat();
    for length in 0..bytes.len() {
        let (client, _answers) = Scripted::new(vec![bytes[..length].to_vec()], true);
        let mut adapter = AuthorityAdapter::new(client, Arc::default());
        let mut out = Vec::new();
        adapter.read_to_end(&mut out).await.unwrap();
        assert!(out == bytes[..length], "after {length} bytes");
        assert_eq!(adapter.read(&mut [0; 9]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn readers_with_little_room_get_everything() {
    let value = |authority: &[u8]| {
        let block = request(&plain_authority(authority));
        [
            opening(),
            frame(HEADERS, END_HEADERS, 1, &block),
            frame(DATA, 0, 1, b"body"),
        ]
        .concat()
    };
    let (bytes, expected) = (value(b"/tmp/a.sock"), value(b"-tmp-a.sock"));
    for room in [1, 2, 3, 8, 9, 10, 25] {
        for part in [1, 5, 1000] {
            let parts = bytes.chunks(part).map(<[u8]>::to_vec).collect();
            let (client, _answers) = Scripted::new(parts, true);
            let mut adapter = AuthorityAdapter::new(client, Arc::default());
            let mut out: Vec<u8> = Vec::new();
            let mut buf = vec![0; room];
            loop {
                let read = adapter.read(&mut buf).await.unwrap();
                if read == 0 {
                    break;
                }
                out.extend(&buf[..read]);
            }
            assert!(out == expected, "room for {room}, parts of {part}");
        }
    }
}

#[tokio::test]
async fn nothing_behind_a_held_block_is_held_with_it() {
    let block = frame(HEADERS, END_HEADERS, 1, &request(&plain_authority(b"/a")));
    let data = frame(DATA, 0, 1, &[1; 4000]);
    let rest = [&block[12..], &data].concat();
    let parts = vec![opening(), block[..12].to_vec(), rest];
    let (client, _answers) = Scripted::new(parts, true);
    let mut adapter = AuthorityAdapter::new(client, Arc::default());
    let mut buf = [0; 8192];
    for expected in [opening().len(), block.len(), data.len(), 0] {
        assert_eq!(adapter.read(&mut buf).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn writes_pass_unchanged() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let vectored = server.is_write_vectored();
    let mut adapter = AuthorityAdapter::new(server, Arc::default());
    assert!(vectored && adapter.is_write_vectored());
    adapter.write_all(b"PRI * one ").await.unwrap();
    let two = [std::io::IoSlice::new(b"tw"), std::io::IoSlice::new(b"o")];
    assert_eq!(adapter.write_vectored(&two).await.unwrap(), 3);
    adapter.flush().await.unwrap();
    adapter.shutdown().await.unwrap();
    let mut out = String::new();
    client.read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "PRI * one two");
}
