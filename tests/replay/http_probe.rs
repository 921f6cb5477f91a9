//! The probe: what is healthy, and which redirects it follows.

use crate::canned;

use canned::{OK, Server, impatient, status};
use echopost::replay::http::Probe;

fn unhealthy(why: &str) -> Probe {
    Probe::Unhealthy(why.to_owned())
}

#[tokio::test]
async fn any_2xx_is_healthy_and_nothing_else() {
    for (head, expected) in [
        ("200 OK", Probe::Healthy),
        ("201 Created", Probe::Healthy),
        ("204 No Content", Probe::Healthy),
        ("299 x", Probe::Healthy),
        ("200 OK\r\nLocation: /elsewhere", Probe::Healthy),
        ("300 x\r\nLocation: /elsewhere", unhealthy("answered 300")),
        ("304 Not Modified\r\nLocation: /", unhealthy("answered 304")),
        ("301 Moved", unhealthy("answered 301")),
        ("404 Not Found", unhealthy("answered 404")),
        ("500 x\r\nLocation: /", unhealthy("answered 500")),
        ("503 x", unhealthy("answered 503")),
    ] {
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
        let server = Server::answering(answer).await;
        assert_eq!(server.client().probe().await, expected, "{head}");
        assert_eq!(server.request_lines(), ["GET / HTTP/1.1"], "{head}");
    }
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed_on_the_same_connection() {
    for (status, relative) in [
        (301, true),
        (302, false),
        (303, true),
        (307, false),
        (308, true),
    ] {
        let server = Server::start(move |_, mut peer| async move {
            let port = peer.stream.local_addr().unwrap().port();
            let base = if relative { String::new() } else { format!("http://127.0.0.1:{port}") };
            for target in ["/a", "/a/b?c=d", "/e"] {
                peer.request().await.unwrap();
                let answer = format!(
                    "HTTP/1.1 {status} x\r\nLocation: {base}{target}\r\nContent-Length: 3\r\n\r\nabc"
                );
                peer.send(answer.as_bytes()).await;
            }
            while peer.request().await.is_some() {
                peer.send(OK).await;
            }
        })
        .await;
        let mut client = server.client();
        assert_eq!(client.probe().await, Probe::Healthy, "{status}");
        let lines = [
            "GET / HTTP/1.1",
            "GET /a HTTP/1.1",
            "GET /a/b?c=d HTTP/1.1",
            "GET /e HTTP/1.1",
        ];
        assert_eq!(server.request_lines(), lines, "{status}");
        // The probe's connection serves the records.
        assert_eq!(self::status(&mut client).await, Ok(200));
        assert_eq!(server.accepts(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_loop_of_redirects_ends() {
    let answer = "HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    let server = Server::answering(answer).await;
    let expected = unhealthy("more than 3 redirects");
    assert_eq!(server.client().probe().await, expected);
    assert_eq!(server.request_lines().len(), 4);
}

#[tokio::test]
async fn redirects_elsewhere_are_named_without_credentials_and_not_followed() {
    let elsewhere = Server::answering(OK).await;
    let port = elsewhere.port;
    for (target, shown) in [
        (
            format!("http://127.0.0.1:{port}/"),
            format!("http://127.0.0.1:{port}/"),
        ),
        (
            format!("http://u:p@127.0.0.1:{port}/"),
            format!("http://***@127.0.0.1:{port}/"),
        ),
        (
            format!("//127.0.0.1:{port}/"),
            format!("//127.0.0.1:{port}/"),
        ),
        (
            "https://u@127.0.0.1/".to_owned(),
            "https://***@127.0.0.1/".to_owned(),
        ),
    ] {
        let answer = format!("HTTP/1.1 301 x\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        let server = Server::answering(answer).await;
        let why = format!("answered 301 to another server, not followed: {shown}");
        assert_eq!(server.client().probe().await, Probe::Unhealthy(why));
        assert_eq!(server.request_lines(), ["GET / HTTP/1.1"]);
    }
    assert_eq!(elsewhere.accepts(), 0);
}

#[tokio::test]
async fn the_whole_probe_has_one_time_limit() {
    // Each answer comes well within the limit, all of them together do not.
    let server = Server::start(|_, mut peer| async move {
        while peer.request().await.is_some() {
            tokio::time::sleep(impatient().probe / 2).await;
            peer.send(b"HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let mut client = server.client_within(impatient());
    let expected = unhealthy("timed out after 300ms while waiting for the answer");
    assert_eq!(client.probe().await, expected);
    assert!(server.request_lines().len() < 4);
}
