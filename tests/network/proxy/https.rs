//! Tunnels to a server that speaks TLS, and proxies that speak it.

use crate::certs;
use crate::front;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use certs::{Authority, GOOD, Versions};
use front::{Front, Manner};

use crate::proxy::CREDENTIALS;
use crate::proxy::forward::{Proxy, Way};
use crate::proxy::socks::Socks;
use crate::support::agent::Builder;
use crate::support::fixture::{DEADLINE, Fixture, hold, side_by_side, texts};
use crate::support::server::{Answer, MainServer};

/// TLS for the main server, and the authority to trust.
struct Secure {
    authority: Authority,
    manner: Manner,
}

impl Secure {
    fn new() -> Secure {
        let authority = Authority::new("Test Authority");
        let names = ["0.0.0.0", "localhost"];
        let identity = authority.identity(&names, GOOD);
        let manner = Manner::Serve(identity.server(Versions::Both));
        Secure { authority, manner }
    }

    /// In front of a port.
    fn front(&self, port: u16) -> Front {
        Front::new(port, self.manner.clone())
    }

    fn fixture(&self, server: MainServer, front: &Front, variable: &str, proxy: &str) -> Fixture {
        Fixture::with(server, |agent| self.lead(agent, front, variable, proxy))
    }

    fn lead(&self, agent: Builder, front: &Front, variable: &str, proxy: &str) -> Builder {
        agent
            .health_url(&front.url("0.0.0.0"))
            .env("SSL_CERT_FILE", &self.authority.file())
            .env(variable, proxy)
    }
}

#[test]
fn one_tunnel_carries_all_records() {
    let secure = Secure::new();
    let proxy = Proxy::new(CREDENTIALS);
    let server = MainServer::new_up();
    let front = secure.front(server.port());
    let url = proxy.url("user:s3cr%2Dt@");
    let mut fixture = secure.fixture(server, &front, "HTTPS_PROXY", &url);
    let mut records = texts(0..200);
    records[100] = format!("{:?}", "x".repeat(3_000_000));
    fixture.store(&records);
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
    assert_eq!(front.handshakes().len(), 1);
    let started = &fixture.agent.events_named("agent_started")[0];
    assert_eq!(started["proxy"], proxy.url("***@"));
    assert!(!fixture.agent.stdout().contains("s3cr"));
}

#[test]
fn one_tunnel_through_socks5_does_so_too() {
    let secure = Secure::new();
    let proxy = Socks::new(Some(("user", "s3cr-t")));
    let server = MainServer::new_up();
    let front = secure.front(server.port());
    let url = proxy.url("socks5", "user:s3cr-t@");
    let mut fixture = secure.fixture(server, &front, "HTTPS_PROXY", &url);
    let records = texts(0..200);
    fixture.store(&records);
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
    assert_eq!(front.handshakes().len(), 1);
    let started = &fixture.agent.events_named("agent_started")[0];
    assert_eq!(started["proxy"], proxy.url("socks5", "***@"));
}

#[test]
fn a_proxy_that_refuses_the_tunnel_only_delays_the_records() {
    let secure = Secure::new();
    let cases = [
        (
            "",
            Way::Refuse(403),
            Way::Open,
            "no tunnel: it answered 403",
        ),
        (
            "user:wr0ng@",
            Way::Refuse(401),
            Way::Login("user:wr0ng"),
            "no tunnel: it wants other credentials (401)",
        ),
        (
            "user:wr0ng@",
            CREDENTIALS,
            Way::Login("user:wr0ng"),
            "no tunnel: it wants other credentials (407)",
        ),
        (
            "",
            CREDENTIALS,
            Way::Open,
            "no tunnel: it wants other credentials (407)",
        ),
    ];
    side_by_side(cases, |(credentials, refusing, mended, words)| {
        let mut proxy = Proxy::new(refusing);
        let server = MainServer::new_up();
        let front = secure.front(server.port());
        let url = proxy.url(credentials);
        let mut fixture = secure.fixture(server, &front, "https_proxy", &url);
        let records = texts(0..20);
        fixture.store(&records);
        let shown = proxy.url(if credentials.is_empty() { "" } else { "***@" });
        fixture.wait_complaint(&format!("through the proxy {shown}: {words}"));
        assert!(fixture.server.requests().is_empty());
        proxy.down();
        proxy.up(mended);
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.expect_all(&records);
        assert!(!fixture.agent.stdout().contains("wr0ng"));
    });
}

/// What proxy.py never sends: an answer before the answer, and lines that end
/// without a carriage return.
#[test]
fn a_proxy_may_say_more_before_it_answers_and_end_its_lines_in_its_own_way() {
    let secure = Secure::new();
    let server = MainServer::new_up();
    let front = secure.front(server.port());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let port = front.port;
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("a client");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).expect("a request");
                head.extend(byte);
            }
            let server = TcpStream::connect(("127.0.0.1", port)).expect("the server");
            let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\n\n";
            client.write_all(answer).expect("write");
            for (mut from, mut to) in [
                (
                    client.try_clone().expect("clone"),
                    server.try_clone().expect("clone"),
                ),
                (server, client),
            ] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    let mut fixture = secure.fixture(server, &front, "HTTPS_PROXY", &url);
    let records = texts(0..3);
    fixture.store(&records);
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
}

#[test]
fn a_proxy_that_breaks_off_is_named_with_the_reason() {
    let secure = Secure::new();
    let slow = "timed out after 5s while asking for a tunnel";
    let cases = [
        ("http", Manner::Close, "no tunnel: "),
        ("http", Manner::Plain, "no tunnel: it answered 400"),
        ("http", Manner::Hang, slow),
        ("socks5", Manner::Close, "no tunnel: "),
        (
            "socks5",
            Manner::Plain,
            "no tunnel: SOCKS error: failed parsing server response",
        ),
        ("socks5", Manner::Hang, slow),
    ];
    side_by_side(cases, |(scheme, manner, words)| {
        let proxy = Front::new(0, manner);
        let server = MainServer::new_up();
        let front = secure.front(server.port());
        let url = format!("{scheme}://127.0.0.1:{}", proxy.port);
        let fixture = secure.fixture(server, &front, "HTTPS_PROXY", &url);
        fixture.wait_complaint(&format!("through the proxy {url}: {words}"));
    });
}

#[test]
fn a_proxy_that_is_killed_with_the_tunnel_loses_nothing() {
    let secure = Secure::new();
    let mut proxy = Proxy::new(Way::Open);
    let server = MainServer::new_up();
    server.set_health(503);
    let go = hold(&server, &[100], |_| Answer::ok());
    let front = secure.front(server.port());
    let mut fixture = secure.fixture(server, &front, "HTTPS_PROXY", &proxy.url(""));
    let records = texts(0..400);
    fixture.store(&records);
    fixture.server.set_health(200);
    fixture.server.wait_delivered(50, DEADLINE);
    proxy.down();
    let shown = proxy.url("");
    fixture.wait_complaint(&format!("through the proxy {shown}: cannot connect"));
    go.send(()).expect("a server that waits");
    proxy.up(Way::Open);
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
}

/// TLS to the proxy, and for an https server another TLS inside.
#[test]
fn the_proxy_itself_may_speak_tls() {
    let secure = Secure::new();
    let records = texts(0..50);
    for scheme in ["http", "https"] {
        let proxy = Proxy::new(CREDENTIALS);
        let proxy_front = secure.front(proxy.port());
        let url = format!("https://user:s3cr-t@localhost:{}", proxy_front.port);
        let server = MainServer::new_up();
        let front = secure.front(server.port());
        let main = match scheme {
            "http" => format!("http://0.0.0.0:{}", server.port()),
            _ => front.url("0.0.0.0"),
        };
        let mut fixture = Fixture::with(server, |agent| {
            agent
                .health_url(&main)
                .env("SSL_CERT_FILE", &secure.authority.file())
                .env(&format!("{}_PROXY", scheme.to_uppercase()), &url)
        });
        fixture.store(&records);
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.expect_all(&records);
        assert_ne!(proxy_front.handshakes(), []);
        assert_eq!(front.handshakes().is_empty(), scheme == "http");
        let first = &fixture.server.requests()[0];
        assert_eq!(first.header("via").is_some(), scheme == "http");
    }
}

#[test]
fn sessions_with_the_proxy_and_the_server_are_both_resumed() {
    let secure = Secure::new();
    let proxy = Proxy::new(Way::Open);
    let proxy_front = secure.front(proxy.port());
    let url = format!("https://localhost:{}", proxy_front.port);
    let server = MainServer::new_up();
    let front = secure.front(server.port());
    // In standby, so that it does not leave between the two.
    let fixture = Fixture::with(server, |agent| {
        secure
            .lead(agent, &front, "HTTPS_PROXY", &url)
            .arg("-standby")
    });
    fixture.store(&texts(["first"]));
    fixture.wait_noted(1);
    proxy_front.cut();
    fixture.store(&texts(["second"]));
    fixture.wait_for("\"second\"");
    for front in [&proxy_front, &front] {
        let handshakes = front.handshakes();
        let (first, again) = handshakes.split_first().expect("handshakes");
        assert!(!first.resumed && !again.is_empty(), "{handshakes:?}");
        assert!(again.iter().all(|each| each.resumed), "{handshakes:?}");
    }
}
