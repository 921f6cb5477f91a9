//! The HTTP client against servers that fail.

use crate::canned;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use canned::{OK, Server, impatient, post, post_body, record, status};
use echopost::replay::http::{Client, Probe, Timeouts};
use echopost::replay::server::ServerUrl;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;

/// How a server ends a connection that the client means to use again.
#[derive(Debug, Clone, Copy)]
enum End {
    /// FIN right after the answer.
    Idle,
    /// RST right after the answer.
    IdleReset,
    /// A farewell that nobody asked for, as some proxies send it, then FIN.
    Farewell,
    /// FIN when the next request is there.
    OnRequest,
    /// RST when the next request is there.
    OnRequestReset,
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_opened_again_at_once() {
    for end in [
        End::Idle,
        End::IdleReset,
        End::Farewell,
        End::OnRequest,
        End::OnRequestReset,
    ] {
        let server = Server::start(move |number, mut peer| async move {
            peer.request().await.unwrap();
            peer.send(OK).await;
            if number > 0 {
                while peer.request().await.is_some() {
                    peer.send(OK).await;
                }
                return;
            }
            match end {
                End::Idle => {}
                End::IdleReset => peer.reset(),
                End::Farewell => {
                    let farewell = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n";
                    peer.send(farewell).await;
                }
                End::OnRequest => {
                    peer.request().await.unwrap();
                }
                End::OnRequestReset => {
                    peer.request().await.unwrap();
                    peer.reset();
                }
            }
        })
        .await;
        let mut client = server.client();
        for n in 0..4 {
            assert_eq!(status(&mut client).await, Ok(200), "{end:?}, record {n}");
        }
        assert_eq!(client.probe().await, Probe::Healthy);
        assert_eq!(server.accepts(), 2, "{end:?}");
        let resent = matches!(end, End::OnRequest | End::OnRequestReset);
        let requests = 5 + usize::from(resent);
        assert_eq!(server.requests().len(), requests, "{end:?}");
    }
}

#[tokio::test]
async fn a_request_is_sent_again_exactly_once() {
    // The first connection serves one request, all else is closed unanswered.
    let server = Server::start(|number, mut peer| async move {
        peer.request().await.unwrap();
        if number == 0 {
            peer.send(OK).await;
            peer.request().await.unwrap();
        }
    })
    .await;
    let mut client = server.client();
    assert_eq!(status(&mut client).await, Ok(200));
    let why = "connection closed before message completed".to_owned();
    assert_eq!(status(&mut client).await, Err(why.clone()));
    assert_eq!((server.accepts(), server.requests().len()), (2, 3));
    // A fresh connection that closes is a failure at once.
    assert_eq!(status(&mut client).await, Err(why));
    assert_eq!((server.accepts(), server.requests().len()), (3, 4));
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    for begun in ["H", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let server = Server::start(move |_, mut peer| async move {
            peer.request().await.unwrap();
            peer.send(OK).await;
            peer.request().await.unwrap();
            peer.send(begun.as_bytes()).await;
        })
        .await;
        let mut client = server.client();
        assert_eq!(status(&mut client).await, Ok(200));
        assert!(status(&mut client).await.is_err(), "{begun}");
        assert_eq!((server.accepts(), server.requests().len()), (1, 2));
    }
}

#[tokio::test]
async fn unreadable_answers_are_failures_even_with_a_status() {
    let flood = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(256 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
    for (answer, why) in [
        ("", "connection closed before message completed"),
        (
            "HTTP/1.1 200 OK\r\n",
            "connection closed before message completed",
        ),
        (
            "SSH-2.0-OpenSSH_9.6\r\n",
            "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: invalid HTTP version parsed",
        ),
        (
            "<html>hello</html>\r\n\r\n",
            "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: invalid HTTP version parsed",
        ),
        (
            "HTTP/1.1 20 OK\r\n\r\n",
            "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: invalid HTTP status-code parsed",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: invalid content-length parsed",
        ),
        (
            &flood,
            "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: ",
        ),
        (
            &many,
            "the answer is no valid HTTP/1.1 with a head of 64 KiB and 100 lines at most: ",
        ),
    ] {
        let server = Server::answering_once(answer).await;
        let shown: String = answer.chars().take(60).collect();
        let said = match status(&mut server.client()).await {
            Ok(status) => panic!("{shown}: read as {status}"),
            Err(said) => said,
        };
        assert!(said.starts_with(why), "{shown}: {said}");
        assert!(!said.contains('\n'), "{shown}: {said}");
        assert_eq!(server.accepts(), 1, "{shown}");
    }
    // What comes close to the limits is read.
    let large = "x".repeat(60 << 10);
    let many = "X: y\r\n".repeat(99);
    for headers in [format!("X: {large}\r\n"), many] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{headers}\r\n");
        let server = Server::answering(answer).await;
        assert_eq!(status(&mut server.client()).await, Ok(200));
    }
}

/// A body that is not whole says so, beside a status that counts.
#[tokio::test]
async fn a_status_counts_whatever_becomes_of_the_body() {
    for body in [
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        for status in [200, 400, 503] {
            let answer = format!("HTTP/1.1 {status} Text\r\n{body}");
            let server = Server::answering_once(answer).await;
            let mut client = server.client();
            let answer = post(&mut client).await.unwrap();
            assert_eq!(answer.status, status);
            let why = answer.broken.unwrap();
            assert!(why.starts_with("error reading a body"), "{body:?}: {why}");
            // The connection does not serve again.
            assert_eq!(post(&mut client).await.unwrap().status, status);
            assert_eq!(server.accepts(), 2, "{body:?}");
        }
    }
}

/// Lines that other clients take or skip. What follows them on the connection might be
/// read as another answer.
#[tokio::test]
async fn lines_that_not_every_client_reads_alike_cost_the_connection_alone() {
    for lines in [
        "X-Folded: a\r\n b\r\n",
        "X-Blank : a\r\n",
        "no header at all\r\n",
        "X-Control: \x01\r\n",
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\n{{}}");
        let server = Server::answering(head).await;
        let mut client = server.client();
        for connection in 1..=3 {
            let answer = post(&mut client).await.unwrap();
            assert_eq!((answer.status, answer.broken), (200, None), "{lines:?}");
            assert_eq!(answer.body_start, "{}");
            assert_eq!(server.accepts(), connection, "{lines:?}");
        }
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_an_answer_is_a_failure() {
    for begun in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        // Without a length only FIN ends it.
        "HTTP/1.1 200 OK\r\n\r\nhalf",
    ] {
        let seen = Arc::new(Notify::new());
        let server = Server::start({
            let seen = Arc::clone(&seen);
            move |_, mut peer| {
                let seen = Arc::clone(&seen);
                async move {
                    peer.request().await.unwrap();
                    peer.send(begun.as_bytes()).await;
                    seen.notified().await;
                    peer.reset();
                }
            }
        })
        .await;
        let mut client = server.client();
        let (result, ()) = tokio::join!(post(&mut client), async { seen.notify_one() });
        // Once the head is through, the body's alone.
        let why = match (result, begun.contains("half")) {
            (Ok(answer), true) => answer.broken.unwrap(),
            (Err(failure), false) => failure.to_string(),
            (result, _) => panic!("{begun:?}: {result:?}"),
        };
        assert!(why.contains("Connection reset by peer"), "{begun:?}: {why}");
        assert!(!why.contains('\n'));
    }
}

#[tokio::test]
async fn silence_is_a_timeout_and_costs_the_connection() {
    for begun in ["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
        let closed = Arc::new(Notify::new());
        let server = Server::start({
            let closed = Arc::clone(&closed);
            move |_, mut peer| {
                let closed = Arc::clone(&closed);
                async move {
                    peer.request().await.unwrap();
                    peer.send(begun.as_bytes()).await;
                    peer.closed().await;
                    closed.notify_one();
                }
            }
        })
        .await;
        let mut client = server.client_within(impatient());
        let start = Instant::now();
        let why = status(&mut client).await.unwrap_err();
        assert_eq!(why, "timed out after 300ms while waiting for the answer");
        assert!(start.elapsed() >= impatient().answer);
        closed.notified().await;
        assert_eq!(server.accepts(), 1);
    }
}

#[tokio::test]
async fn a_body_that_trickles_in_does_not_stretch_the_time() {
    let server = Server::start(|_, mut peer| async move {
        peer.request().await.unwrap();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            .await;
        for _ in 0..1_000 {
            peer.send(b"x").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let start = Instant::now();
    let answer = post(&mut server.client()).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.broken.unwrap(), "not through after 2s");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_upload_that_comes_to_a_stand_is_given_up_with_what_is_left_of_it() {
    const LENGTH: usize = 32 << 20;
    // Longer than a busy machine stands still.
    const PATIENCE: Duration = Duration::from_secs(3);
    let given_up = Arc::new(Notify::new());
    let (report, rest) = tokio::sync::oneshot::channel();
    let report = Arc::new(Mutex::new(Some(report)));
    let server = Server::start({
        let given_up = Arc::clone(&given_up);
        move |_, mut peer| {
            let given_up = Arc::clone(&given_up);
            let report = report.lock().unwrap().take().unwrap();
            async move {
                // Moves for longer than the client's timeout, then stops.
                let start = Instant::now();
                while start.elapsed() < PATIENCE * 2 + Duration::from_millis(500) {
                    peer.stream.read_exact(&mut [0; 32 << 10]).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                given_up.notified().await;
                report.send(peer.closed().await).unwrap();
            }
        }
    })
    .await;
    let mut client = server.client_within(Timeouts {
        answer: PATIENCE,
        ..Timeouts::default()
    });
    let start = Instant::now();
    let failure = post_body(&mut client, &record(LENGTH)).await.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "timed out after 3s while waiting for the answer"
    );
    assert!(start.elapsed() > PATIENCE * 2);
    given_up.notify_one();
    let rest = rest.await.unwrap();
    assert!(rest < LENGTH / 4, "{rest} bytes were sent all the same");
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_no_answer_behind() {
    let arrived = Arc::new(Notify::new());
    let server = Server::start({
        let arrived = Arc::clone(&arrived);
        move |number, mut peer| {
            let arrived = Arc::clone(&arrived);
            async move {
                while peer.request().await.is_some() {
                    if number == 0 {
                        arrived.notify_one();
                        peer.closed().await;
                        return;
                    }
                    peer.send(OK).await;
                }
            }
        }
    })
    .await;
    let mut client = server.client();
    tokio::select! {
        answer = post(&mut client) => panic!("{answer:?}"),
        () = arrived.notified() => {}
    }
    assert_eq!(status(&mut client).await, Ok(200));
    assert_eq!(server.accepts(), 2);
}

#[tokio::test]
async fn no_connection_says_why() {
    // Bound, so that it is nobody else's, and never listening.
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = reserved.local_addr().unwrap().port();
    for (url, expected) in [
        (
            format!("http://user:s3cr3t@127.0.0.1:{port}"),
            "cannot connect: Connection refused",
        ),
        ("http://a..b:1".to_owned(), "cannot resolve its name: "),
    ] {
        let mut client = Client::new(ServerUrl::parse(&url).unwrap(), Timeouts::default());
        let why = status(&mut client).await.unwrap_err();
        assert!(why.starts_with(expected), "{why}");
        assert!(!why.contains("s3cr3t"), "{why}");
        assert_eq!(client.probe().await, Probe::Unhealthy(why));
    }
    let url = format!("http://127.0.0.1:{port}");
    let timeouts = Timeouts {
        connect: Duration::ZERO,
        ..Timeouts::default()
    };
    let mut client = Client::new(ServerUrl::parse(&url).unwrap(), timeouts);
    let why = status(&mut client).await.unwrap_err();
    assert!(why.starts_with("cannot connect: ") || why.starts_with("timed out after 0ns"));
}
