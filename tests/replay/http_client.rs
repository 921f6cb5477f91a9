//! The HTTP client against servers that behave, and what they see of it.

use crate::canned;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use bytes::Bytes;
use canned::{OK, Server, impatient, post, post_body, record, status};
use echopost::limits::{ANSWER_BODY_KEPT, ANSWER_BODY_MAX, LOCATION_KEPT};
use echopost::replay::body::body;
use echopost::replay::http::{Client, Delivery, Failure, Probe, Timeouts};
use echopost::replay::server::ServerUrl;
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn a_record_goes_out_byte_for_byte() {
    let server = Server::answering(OK).await;
    let url = format!("http://user:pass%20word@127.0.0.1:{}/base/", server.port);
    let mut client = Client::new(ServerUrl::parse(&url).unwrap(), Timeouts::default());
    let json = r#" {"n":9007199254740993, "u":"\u00e9é"}"#;
    let body = body(
        &["p1".into(), "p\"2".into()],
        Bytes::from_static(json.as_bytes()),
    );
    let delivery = Delivery {
        api_key: "dn_Key",
        own_api_key: "",
        idempotency_key: "\"0f1e-42\"",
        body: &body,
    };
    let answer = client.post(delivery).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body_start, r#"{"ok":true}"#);
    assert_eq!((answer.retry_after, answer.location), (None, None));
    assert_eq!(client.probe().await, Probe::Healthy);
    let sent = format!(r#"{{"pipelines":["p1","p\"2"],"log_data":{json}}}"#);
    let common = format!(
        "Host: 127.0.0.1:{}\r\n\
         User-Agent: echopost/{}\r\n\
         Accept: */*\r\n\
         Authorization: Basic dXNlcjpwYXNzIHdvcmQ=\r\n",
        server.port,
        env!("CARGO_PKG_VERSION")
    );
    let post = format!(
        "POST /base/log HTTP/1.1\r\n{common}\
         Content-Type: application/json\r\n\
         Datanadhi-Api-Key: dn_Key\r\n\
         Idempotency-Key: \"0f1e-42\"\r\n\
         Content-Length: {}\r\n\r\n{sent}",
        sent.len()
    );
    let probe = format!("GET /base/ HTTP/1.1\r\n{common}\r\n");
    assert_eq!(server.requests(), [post, probe]);
    assert_eq!(server.accepts(), 1);
}

#[tokio::test]
async fn a_thousand_records_use_one_connection() {
    let answers: [&[u8]; 5] = [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.1 201 Yes\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nT: u\r\n\r\n",
    ];
    let server = Server::start(move |_, mut peer| async move {
        for answer in answers.into_iter().cycle() {
            if peer.request().await.is_none() {
                break;
            }
            peer.send(answer).await;
        }
    })
    .await;
    let mut client = server.client();
    for n in 0..1_000 {
        let answer = post_body(&mut client, &record(n)).await.unwrap();
        let expected = match n % 5 {
            0 => (200, r#"{"ok":true}"#),
            1 => (204, ""),
            2 => (200, ""),
            3 => (200, "abcde"),
            _ => (201, "a"),
        };
        assert_eq!((answer.status, &*answer.body_start), expected);
    }
    assert_eq!(server.accepts(), 1);
    assert_eq!(server.requests().len(), 1_000);
}

/// The server may not have read it.
#[tokio::test]
async fn a_record_that_is_not_taken_costs_the_connection() {
    for (answer, accepts) in [
        (OK, 1),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 3),
    ] {
        let server = Server::answering(answer).await;
        let mut client = server.client();
        for _ in 0..3 {
            post(&mut client).await.unwrap();
        }
        assert_eq!(server.accepts(), accepts);
    }
}

#[tokio::test]
async fn statuses_and_interim_answers() {
    for (answer, expected) in [
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n",
            201,
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n",
            202,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            101,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
            304,
        ),
        ("HTTP/1.1 429 \r\nContent-Length: 0\r\n\r\n", 429),
        ("HTTP/1.1 507\r\nContent-Length: 0\r\n\r\n", 507),
        ("HTTP/1.1 599 x\r\nContent-Length: 0\r\n\r\n", 599),
        ("HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n", 999),
    ] {
        let server = Server::answering(answer).await;
        let mut client = server.client();
        // The second one shows that what follows is in step.
        assert_eq!(status(&mut client).await, Ok(expected), "{answer}");
        assert_eq!(status(&mut client).await, Ok(expected), "{answer}");
    }
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_costs_no_failure() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ] {
        let server = Server::answering_once(answer).await;
        let mut client = server.client();
        for _ in 0..5 {
            let answer = post(&mut client).await.unwrap();
            assert_eq!((answer.status, answer.body_start), (200, "ok".to_owned()));
        }
        assert_eq!(server.accepts(), 5);
        assert_eq!(server.requests().len(), 5);
    }
}

#[tokio::test]
async fn headers_for_the_back_off_and_for_events() {
    let server = Server::answering(
        "HTTP/1.1 302 Found\r\nretry-after:  Sun, 06 Nov 1994 08:49:37 GMT \r\n\
         LOCATION: http://user:pass@elsewhere/login?x=y\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let answer = post(&mut server.client()).await.unwrap();
    assert_eq!(answer.status, 302);
    let date = b"Sun, 06 Nov 1994 08:49:37 GMT".to_vec();
    assert_eq!(answer.retry_after, Some(date));
    let masked = "http://***@elsewhere/login?x=y".to_owned();
    assert_eq!(answer.location, Some(masked));
    assert_eq!(server.request_lines(), ["POST /log HTTP/1.1"]);

    let long = format!("http://h/{}", "é".repeat(LOCATION_KEPT));
    let server = Server::answering(format!(
        "HTTP/1.1 302 Found\r\nLocation: {long}\r\nContent-Length: 0\r\n\r\n"
    ))
    .await;
    let location = post(&mut server.client()).await.unwrap().location.unwrap();
    assert!(long.starts_with(&location));
    assert_eq!(location.len(), LOCATION_KEPT - 1);
}

#[tokio::test]
async fn long_bodies_are_cut_and_only_too_long_ones_cost_the_connection() {
    for (length, accepts) in [
        (ANSWER_BODY_KEPT, 1),
        (ANSWER_BODY_MAX, 1),
        (ANSWER_BODY_MAX + 1, 2),
        (10_000_000, 2),
    ] {
        let body: Vec<u8> = (0..length).map(|place| b'a' + (place % 23) as u8).collect();
        let chunks: Vec<u8> = body
            .chunks(1_000)
            .flat_map(|chunk| {
                let head = format!("{:x}\r\n", chunk.len()).into_bytes();
                [&head, chunk, b"\r\n"].concat()
            })
            .collect();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let plain = [head.as_bytes(), &body].concat();
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let chunked = [head, chunks, b"0\r\n\r\n".to_vec()].concat();
        for answer in [plain, chunked] {
            let server = Server::answering(answer).await;
            let mut client = server.client();
            for _ in 0..2 {
                let answer = post(&mut client).await.unwrap();
                assert_eq!(answer.status, 200);
                assert_eq!(answer.body_start.as_bytes(), &body[..ANSWER_BODY_KEPT]);
            }
            assert_eq!(server.accepts(), accepts, "{length}");
        }
    }
}

#[tokio::test]
async fn keys_that_no_header_can_hold_are_told_apart() {
    let server = Server::answering(OK).await;
    let mut client = server.client();
    assert_eq!(status(&mut client).await, Ok(200));
    let body = record(1);
    for (api_key, idempotency_key, name) in [
        ("a\nb", "\"k\"", "api_key"),
        ("a\r\nX-Injected: 1", "\"k\"", "api_key"),
        ("\0", "\"k\"", "api_key"),
        ("key", "\"k\"\r\n", "idempotency key"),
    ] {
        let delivery = Delivery {
            api_key,
            own_api_key: "",
            idempotency_key,
            body: &body,
        };
        let why = format!("no HTTP header can hold its {name}");
        let answer = client.post(delivery).await;
        assert_eq!(answer, Err(Failure::Unsendable(why)));
    }
    // Empty ones, and other letters than ASCII, can be sent.
    for api_key in ["", "schlüssel"] {
        let delivery = Delivery {
            api_key,
            own_api_key: "",
            idempotency_key: "",
            body: &body,
        };
        assert_eq!(client.post(delivery).await.unwrap().status, 200);
    }
    assert_eq!(server.accepts(), 1);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn a_slow_upload_that_moves_is_not_a_timeout() {
    const LENGTH: usize = 16 << 20;
    // Longer than a busy machine stands still.
    const PATIENCE: Duration = Duration::from_secs(3);
    let server = Server::start(|_, mut peer| async move {
        use tokio::io::AsyncReadExt as _;
        let mut left = LENGTH + r#"{"pipelines":[],"log_data":}"#.len();
        peer.head().await.unwrap();
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            left -= peer.stream.read(&mut buffer).await.unwrap();
            // The pace of a thin line: several of the client's timeouts in all.
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        peer.send(OK).await;
        peer.closed().await;
    })
    .await;
    let start = std::time::Instant::now();
    let mut client = server.client_within(Timeouts {
        answer: PATIENCE,
        ..Timeouts::default()
    });
    let answer = post_body(&mut client, &record(LENGTH)).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(start.elapsed() > PATIENCE * 2);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_counts() {
    let server = Server::start(|number, mut peer| async move {
        if number == 0 {
            // Reads no byte of the body, and stays.
            peer.head().await.unwrap();
            peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                .await;
            std::future::pending::<()>().await;
        }
        while peer.request().await.is_some() {
            peer.send(OK).await;
        }
    })
    .await;
    let mut client = server.client();
    let answer = post_body(&mut client, &record(32 << 20)).await.unwrap();
    assert_eq!(answer.status, 413);
    assert_eq!(status(&mut client).await, Ok(200));
    assert_eq!(server.accepts(), 2);
}

#[tokio::test]
async fn a_name_is_resolved() {
    let server = Server::answering(OK).await;
    let url = format!("http://localhost:{}", server.port);
    let mut client = Client::new(ServerUrl::parse(&url).unwrap(), Timeouts::default());
    assert_eq!(status(&mut client).await, Ok(200));
    let host = format!("\r\nHost: localhost:{}\r\n", server.port);
    assert!(server.requests()[0].contains(&host));
}

#[tokio::test]
async fn answers_before_the_answer_have_an_end() {
    let server = Server::start(|_, mut peer| async move {
        peer.request().await.unwrap();
        let hint = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(100);
        while peer.stream.write_all(&hint).await.is_ok() {}
    })
    .await;
    let why = status(&mut server.client_within(impatient())).await;
    let why = why.unwrap_err();
    assert!(why.contains("while waiting for the answer"), "{why}");
}

/// It stands in the socket already when the next record is sent, but nobody has
/// looked at the sockets since: this test holds up its own runtime, as a flush does.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_none_to_the_next_record() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (send_it, wanted) = std::sync::mpsc::channel();
    let (sent, is_there) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        read_record(&mut first);
        first.write_all(OK).unwrap();
        wanted.recv().unwrap();
        first.write_all(OK).unwrap();
        sent.send(()).unwrap();
        let (mut second, _) = listener.accept().unwrap();
        read_record(&mut second);
        let created = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
        second.write_all(created).unwrap();
    });
    let mut client = Client::new(ServerUrl::parse(&url).unwrap(), Timeouts::default());
    assert_eq!(status(&mut client).await, Ok(200));
    send_it.send(()).unwrap();
    is_there.recv().unwrap();
    assert_eq!(status(&mut client).await, Ok(201));
}

fn read_record(stream: &mut std::net::TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
}
