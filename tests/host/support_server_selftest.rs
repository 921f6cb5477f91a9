//! Tests of the main server that the tests play. The client is a raw socket, so
//! that the tool is not measured with itself.

use crate::support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::server::{Answer, Ending, MainServer, body_parts};
use support::{samples, wait};

const DEADLINE: Duration = Duration::from_secs(10);

fn connect(server: &MainServer) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port())).expect("connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
}

fn send_post(mut stream: &TcpStream, body: &[u8]) {
    let head = format!(
        "POST /log HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    // At once: two small writes would wait for each other's ACK.
    let request = [head.as_bytes(), body].concat();
    stream.write_all(&request).expect("send the request");
}

/// Reads one answer whose body is `{"ok":true}`.
fn expect_ok(stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("the status line");
    assert!(line.starts_with("HTTP/1.1 200 "), "{line:?}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).expect("a header");
    }
    let mut body = [0; 11];
    reader.read_exact(&mut body).expect("the body");
    assert_eq!(&body, br#"{"ok":true}"#);
    assert!(reader.buffer().is_empty(), "more than one answer");
}

#[test]
fn the_server_keeps_its_port_and_refuses_while_it_is_down() {
    let mut server = MainServer::new_down();
    for _ in 0..20 {
        let refused = TcpStream::connect(("127.0.0.1", server.port()));
        assert_eq!(
            refused.map_err(|e| e.kind()).err(),
            Some(ErrorKind::ConnectionRefused)
        );
        server.up();
        let stream = connect(&server);
        send_post(&stream, b"x");
        expect_ok(&stream);
        server.down();
        let end = (&stream).read(&mut [0]);
        assert!(!matches!(end, Ok(1..)), "open after the server went down");
    }
    assert_eq!(server.posts().len(), 20);
    assert_eq!(server.connections(), 20);
    assert_eq!(server.open_connections(), 0);
}

#[test]
fn a_connection_serves_many_requests() {
    let server = MainServer::new_up();
    let stream = connect(&server);
    for number in 0..100 {
        send_post(&stream, format!("body {number}").as_bytes());
        expect_ok(&stream);
    }
    let posts = server.posts();
    assert_eq!(server.connections(), 1);
    assert_eq!(server.most_in_flight(), 1);
    assert_eq!(posts[99].body, b"body 99");
    assert_eq!(posts[99].connection, 1);
    assert_eq!(posts[99].status, Some(200));
    assert!(posts.windows(2).all(|two| two[0].at <= two[1].at));
}

#[test]
fn requests_in_work_at_the_same_time_are_counted() {
    let server = MainServer::new_up();
    server.on_post(|_| Answer::ok().then(Ending::Never));
    let streams = [connect(&server), connect(&server)];
    for stream in &streams {
        send_post(stream, b"x");
    }
    wait::until(DEADLINE, "two at once", || server.most_in_flight() == 2);
}

#[test]
fn endings_reach_the_client_as_planned() {
    let whole = Answer::ok().bytes();
    let cases = [
        (Ending::ThenClose, Some(200), Ok(whole.clone())),
        (Ending::Close, None, Ok(vec![])),
        (
            Ending::ResetAfter(0),
            Some(200),
            Err(ErrorKind::ConnectionReset),
        ),
        (
            Ending::ResetAfter(20),
            Some(200),
            Err(ErrorKind::ConnectionReset),
        ),
    ];
    for (ending, status, expected) in cases {
        let server = MainServer::new_up();
        server.on_post(move |_| Answer::ok().then(ending));
        let mut stream = connect(&server);
        send_post(&stream, b"x");
        let mut got = Vec::new();
        let end = stream.read_to_end(&mut got).map_err(|error| error.kind());
        assert_eq!(end.map(|_| got.clone()), expected, "{ending:?}");
        if expected.is_err() {
            assert!(whole.starts_with(&got), "{ending:?}: {got:?}");
        }
        assert_eq!(server.posts()[0].status, status, "{ending:?}");
        assert_eq!(server.delivered().len(), usize::from(status.is_some()));
    }
}

#[test]
fn an_answer_that_never_comes_leaves_the_connection_open_until_the_server_is_down() {
    let mut server = MainServer::new_up();
    for plan in [
        Answer::ok().then(Ending::Never),
        Answer::ok().after(Duration::from_secs(3600)),
    ] {
        server.up();
        server.on_post(move |_| plan.clone());
        let mut stream = connect(&server);
        let before = server.posts().len();
        send_post(&stream, b"x");
        wait::until(DEADLINE, "the request", || server.posts().len() > before);
        assert_eq!(server.open_connections(), 1);
        let timeout = Some(Duration::from_millis(50));
        stream.set_read_timeout(timeout).expect("a short deadline");
        let nothing = stream.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(nothing, Err(ErrorKind::WouldBlock));

        server.down();
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a long deadline");
        assert_eq!(stream.read(&mut [0]).expect("a clean end"), 0);
    }
}

#[test]
fn plans_decide_by_path_and_body() {
    let server = MainServer::new_up();
    server.set_health(503);
    server.on_post(|message| match message.body.as_slice() {
        b"bad" => Answer::raw(400, b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"),
        _ => Answer::status(204).header("Retry-After", "7"),
    });
    let ask = |request: &str| {
        let mut stream = connect(&server);
        stream.write_all(request.as_bytes()).expect("send");
        let mut head = String::new();
        let mut reader = BufReader::new(stream);
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).expect("a line"), 0);
        }
        head
    };
    let get = ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(get.starts_with("HTTP/1.1 503 "), "{get}");
    let bad = ask("POST /a/log HTTP/1.1\r\ncontent-length: 3\r\n\r\nbad");
    assert_eq!(bad, "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n");
    let good = ask(
        "POST /log HTTP/1.1\r\nX-A:  b \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\na\r\n0123456789\r\n0\r\n\r\n",
    );
    assert_eq!(good, "HTTP/1.1 204 As Planned\r\nRetry-After: 7\r\n\r\n");
    let lost = ask("POST /elsewhere HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert!(lost.starts_with("HTTP/1.1 404 "), "{lost}");

    let statuses: Vec<_> = server.requests().iter().map(|r| r.status).collect();
    assert_eq!(statuses, [Some(503), Some(400), Some(204), Some(404)]);
    let delivered = server.delivered();
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0].body, b"ab0123456789");
    assert_eq!(delivered[0].header("x-a"), Some("b"));
    assert_eq!(server.gets().len(), 1);
}

#[test]
fn records_are_cut_out_of_the_body_byte_for_byte() {
    for (what, json) in samples::nasty_json() {
        let body = format!(r#"{{"pipelines":["a","],\"log_data\":"],"log_data":{json}}}"#);
        let (pipelines, log_data) = body_parts(body.as_bytes()).expect(what);
        assert_eq!(pipelines, ["a", "],\"log_data\":"], "{what}");
        assert!(log_data == json.as_bytes(), "{what}");
    }
    for body in [
        r#"{"pipelines": [],"log_data":1}"#,
        r#"{"pipelines":[],"log_data":1"#,
        r#"{"pipelines":[], "log_data":1}"#,
        r#"{"pipelines":[1],"log_data":1}"#,
        r#"{"log_data":1,"pipelines":[]}"#,
        "",
    ] {
        assert_eq!(body_parts(body.as_bytes()), None, "{body}");
    }
}
