//! The HTTP client and a proxy that passes requests on: what goes over the wire,
//! and whose answer it is.

use crate::canned;

use canned::{OK, Peer, Server, post, status};
use echopost::replay::http::{Client, Probe, Timeouts};
use echopost::replay::proxy;
use echopost::replay::route::Route;
use echopost::replay::server::ServerUrl;

/// A client of a main server that no name server knows.
fn client(proxy: &Server, credentials: &str) -> Client {
    let server = ServerUrl::parse("http://main:pass@main.test:81/base").unwrap();
    let url = format!("{credentials}127.0.0.1:{}", proxy.port);
    let variable = |name: &str| (name == "HTTP_PROXY").then(|| url.clone().into());
    let proxy = proxy::of_environment(&server, variable).unwrap();
    Client::new(Route::new(server, proxy), Timeouts::default())
}

/// A proxy with one answer to GET and one to POST.
async fn proxy(get: u16, post: u16) -> Server {
    let answer = |status| format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
    let (get, post) = (answer(get), answer(post));
    Server::start(move |_, mut peer: Peer| {
        let (get, post) = (get.clone(), post.clone());
        async move {
            while let Some(request) = peer.request().await {
                let answer = if request.starts_with(b"GET ") {
                    &get
                } else {
                    &post
                };
                peer.send(answer.as_bytes()).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn requests_name_the_whole_url_and_carry_both_credentials() {
    let server = Server::answering(OK).await;
    let mut client = client(&server, "user:p%40ss@");
    assert_eq!(client.probe().await, Probe::Healthy);
    assert_eq!(status(&mut client).await, Ok(200));
    let expected = |line: &str| {
        format!(
            "{line} HTTP/1.1\r\n\
             Host: main.test:81\r\n\
             User-Agent: echopost/{}\r\n\
             Accept: */*\r\n\
             Authorization: Basic bWFpbjpwYXNz\r\n\
             Proxy-Authorization: Basic dXNlcjpwQHNz\r\n",
            env!("CARGO_PKG_VERSION")
        )
    };
    let requests = server.requests();
    let get = expected("GET http://main.test:81/base/") + "\r\n";
    assert_eq!(requests[0], get);
    let post = expected("POST http://main.test:81/base/log");
    assert!(requests[1].starts_with(&post), "{}", requests[1]);
    assert_eq!(server.accepts(), 1);
}

/// A record may be set aside for such an answer, so that it must be the main
/// server's own.
#[tokio::test]
async fn an_answer_counts_only_if_the_main_server_is_there_to_give_it() {
    for (get, answer, expected) in [
        (200, 200, Ok(200)),
        (503, 200, Ok(200)),
        (200, 500, Ok(500)),
        (200, 422, Ok(422)),
        (200, 403, Ok(403)),
        (503, 503, Ok(503)),
        (
            500,
            500,
            Err("answered 500, and the probe after it: answered 500"),
        ),
        (
            503,
            400,
            Err("answered 400, and the probe after it: answered 503"),
        ),
        (
            401,
            401,
            Err("answered 401, and the probe after it: answered 401"),
        ),
        (200, 407, Err("it wants other credentials (407)")),
        (407, 407, Err("it wants other credentials (407)")),
    ] {
        let server = proxy(get, answer).await;
        let shown = format!("through the proxy http://***@127.0.0.1:{}: ", server.port);
        let expected = expected.map_err(|why| shown.clone() + why);
        let mut client = client(&server, "user:s3cr3t@");
        assert_eq!(status(&mut client).await, expected, "{get} {answer}");
        let probe = client.probe().await;
        match get {
            200 => assert_eq!(probe, Probe::Healthy),
            407 => {
                let why = "it wants other credentials (407)";
                assert_eq!(probe, Probe::Unhealthy(shown + why));
            }
            other => assert_eq!(
                probe,
                Probe::Unhealthy(shown + &format!("answered {other}"))
            ),
        }
    }
}

#[tokio::test]
async fn without_a_proxy_every_answer_is_the_main_servers() {
    for answer in [400, 407, 500] {
        let server = proxy(503, answer).await;
        let mut client = server.client();
        assert_eq!(status(&mut client).await, Ok(answer));
        // No probe in between.
        assert_eq!(server.request_lines(), ["POST /log HTTP/1.1"]);
    }
}

#[tokio::test]
async fn a_proxy_that_breaks_off_is_named() {
    for (answer, why) in [
        (&b""[..], "connection closed before message completed"),
        (
            b"HTTP/1.1 500 x\r\nContent-Length: 9\r\n\r\nhalf",
            "answered 500, and the probe after it: answered 500",
        ),
        (
            b"SSH-2.0-OpenSSH\r\n\r\n",
            "the answer is no valid HTTP/1.1 ",
        ),
    ] {
        let server = Server::answering_once(answer).await;
        let mut client = client(&server, "user:s3cr3t@");
        let failure = post(&mut client).await.unwrap_err().to_string();
        let port = server.port;
        let expected = format!("through the proxy http://***@127.0.0.1:{port}: {why}");
        assert!(failure.starts_with(&expected), "{failure}");
    }
}
