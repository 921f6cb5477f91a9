//! Proxies (spec 6): the real agent, proxy.py, Caddy, a SOCKS5 server, and proxies that
//! break off.
//!
//! The main server is at 0.0.0.0, which leads to 127.0.0.1 and is not exempt as
//! loopback addresses are.

mod forward;
#[cfg(feature = "tls")]
mod https;
mod program;
mod socks;
use crate::support;
use crate::support::fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use fixture::{DEADLINE, Fixture, side_by_side, texts};
use forward::{Proxy, Way};
use support::server::{Answer, MainServer};

const CREDENTIALS: Way = Way::Login("user:s3cr-t");
/// The same in base64.
const ENCODED: &str = "dXNlcjpzM2NyLXQ=";

/// An agent that goes to its server through the proxy that `variable` names.
fn through(server: MainServer, variable: &str, proxy: &str) -> Fixture {
    let url = format!("http://0.0.0.0:{}", server.port());
    Fixture::with(server, |agent| agent.health_url(&url).env(variable, proxy))
}

#[test]
fn records_go_through_a_proxy_that_wants_credentials_which_show_nowhere() {
    side_by_side(["proxy.py", "Caddy"], |name| {
        let server = MainServer::new_up();
        let proxy = Proxy::new(match name {
            "Caddy" => Way::Forward(server.port(), ENCODED),
            _ => CREDENTIALS,
        });
        let mut fixture = through(server, "HTTP_PROXY", &proxy.url("user:s3cr%2Dt@"));
        let records = texts(0..200);
        fixture.store(&records);
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.expect_all(&records);
        let mut connection = 0;
        for request in fixture.server.requests() {
            let header = |name| request.header(name).map(str::to_owned);
            // proxy.py hands on all but a connection's first request as they came.
            if name == "Caddy" || request.connection != connection {
                let via = header("via");
                assert!(via.is_some_and(|via| via.contains(name)), "{request:?}");
                assert_eq!(header("proxy-authorization"), None);
            }
            connection = request.connection;
            let host = format!("0.0.0.0:{}", fixture.server.port());
            assert_eq!(header("host"), Some(host));
            assert!(matches!(request.path.as_str(), "/" | "/log"), "{request:?}");
        }
        let started = &fixture.agent.events_named("agent_started")[0];
        assert_eq!(started["proxy"], proxy.url("***@"));
        assert!(fixture.agent.events_named("main_unreachable").is_empty());
        for secret in ["s3cr", ENCODED.trim_end_matches('=')] {
            assert!(!fixture.agent.stdout().contains(secret));
        }
    });
}

#[test]
fn wrong_credentials_only_delay_the_records() {
    for (way, words) in [(CREDENTIALS, "(407)"), (Way::Refuse(401), "answered 401")] {
        let mut proxy = Proxy::new(way);
        let server = MainServer::new_up();
        let mut fixture = through(server, "http_proxy", &proxy.url("user:wr0ng@"));
        let records = texts(0..20);
        fixture.store(&records);
        fixture.wait_complaint(words);
        let shown = proxy.url("***@");
        fixture.wait_complaint(&format!("through the proxy {shown}: "));
        assert!(fixture.server.requests().is_empty());
        proxy.down();
        proxy.up(Way::Login("user:wr0ng"));
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.expect_all(&records);
        assert!(!fixture.agent.stdout().contains("wr0ng"));
    }
}

/// What a proxy says in its own name is not about the record, although from the
/// main server it would make it a doubtful one: some have 500 for a server that they
/// cannot reach, and 401 for wrong credentials.
#[test]
fn what_the_proxy_says_for_itself_sets_nothing_aside() {
    let cases = [
        ("", Way::Open, Way::Refuse(500), "answered 500"),
        (
            "user:s3cr-t@",
            CREDENTIALS,
            Way::Refuse(401),
            "answered 401",
        ),
        ("", Way::Open, CREDENTIALS, "(407)"),
        (
            "user:s3cr-t@",
            CREDENTIALS,
            Way::Login("user:other"),
            "(407)",
        ),
    ];
    side_by_side(cases, |(credentials, before, meanwhile, words)| {
        let mut proxy = Proxy::new(before);
        let server = MainServer::new_up();
        let url = format!("http://0.0.0.0:{}", server.port());
        // In standby, so that it does not leave while the proxy is not to be had.
        let mut fixture = Fixture::with(server, |agent| {
            let agent = agent.health_url(&url).arg("-standby");
            agent.env("HTTP_PROXY", &proxy.url(credentials))
        });
        let records = texts(0..20);
        fixture.store(&records[..1]);
        // The agent rests: nothing is under way that could fail in another manner.
        fixture.wait_noted(1);
        proxy.down();
        proxy.up(meanwhile);
        fixture.store(&records[1..]);
        fixture.wait_complaint(words);
        fixture.wait_complaint("through the proxy http://");
        // Longer than the patience with a doubtful record.
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(fixture.set_aside().is_empty(), "{words}");
        proxy.down();
        proxy.up(before);
        fixture.stop_after(&records);
        fixture.expect_all(&records);
    });
}

/// The test's own server in the proxy's place sees what goes over the wire.
#[test]
fn requests_name_the_whole_url_and_carry_both_credentials() {
    let server = MainServer::new_up();
    let proxy = server.url().replace("://", "://user:p%40ss@");
    let fixture = Fixture::with(server, |agent| {
        let agent = agent.health_url("http://main:pass@main.test:81/base");
        agent.env("HTTP_PROXY", &proxy)
    });
    fixture.store(&texts(["a"]));
    fixture.wait_for("\"a\"");
    let requests = fixture.server.requests();
    let line = |at: usize| format!("{} {}", requests[at].method, requests[at].path);
    assert_eq!(line(0), "GET http://main.test:81/base/");
    assert_eq!(line(1), "POST http://main.test:81/base/log");
    for request in &requests {
        assert_eq!(request.header("host"), Some("main.test:81"));
        assert_eq!(request.header("authorization"), Some("Basic bWFpbjpwYXNz"));
        assert_eq!(
            request.header("proxy-authorization"),
            Some("Basic dXNlcjpwQHNz")
        );
    }
    assert_eq!(fixture.server.connections(), 1);
}

/// A record may be set aside for such an answer, so that it must be the main server's own.
#[test]
fn an_answer_counts_only_if_the_main_server_is_there_to_give_it() {
    let cases = [
        (
            500,
            500,
            "answered 500, and the probe after it: answered 500",
        ),
        (
            503,
            400,
            "answered 400, and the probe after it: answered 503",
        ),
        (
            401,
            401,
            "answered 401, and the probe after it: answered 401",
        ),
        (200, 407, "it wants other credentials (407)"),
    ];
    side_by_side(cases, |(get, post, why)| {
        let server = MainServer::new_up();
        let sick = Arc::new(AtomicBool::new(true));
        let (probed, refused) = (Arc::clone(&sick), Arc::clone(&sick));
        let mut first = true;
        server.on_get(
            move |_| match std::mem::take(&mut first) || !probed.load(Relaxed) {
                true => Answer::status(200),
                false => Answer::status(get),
            },
        );
        server.on_post(move |_| match refused.load(Relaxed) {
            true => Answer::status(post),
            false => Answer::ok(),
        });
        let proxy = server.url();
        let fixture = Fixture::with(server, |agent| {
            let agent = agent.health_url("http://main.test:81").api_key("key");
            agent.env("HTTP_PROXY", &proxy.replace("://", "://user:s3cr3t@"))
        });
        fixture.store(&texts(["a"]));
        let shown = proxy.replace("://", "://***@");
        fixture.wait_complaint(&format!("through the proxy {shown}: {why}"));
        sick.store(false, Relaxed);
        fixture.wait_for("\"a\"");
        assert!(fixture.set_aside().is_empty(), "{get} {post}");
    });
}

#[test]
fn what_the_server_itself_refuses_is_set_aside_behind_a_proxy_too() {
    let proxy = Proxy::new(Way::Open);
    let server = MainServer::new_up();
    fixture::on_try(&server, |attempt| match attempt.record {
        "1" => Answer::status(422),
        _ => Answer::ok(),
    });
    let mut fixture = through(server, "HTTP_PROXY", &proxy.url(""));
    fixture.store(&texts(0..3));
    fixture.agent.expect_exit(0, DEADLINE);
    assert_eq!(fixture.set_aside().len(), 1);
    assert_eq!(fixture.set_aside()[0]["status"], 422);
    assert_eq!(fixture.server.delivered().len(), 2);
}

#[test]
fn a_server_that_is_down_behind_a_proxy_only_delays_the_records() {
    let proxy = Proxy::new(Way::Open);
    let server = MainServer::new_down();
    let mut fixture = through(server, "HTTP_PROXY", &proxy.url(""));
    let records = texts(0..20);
    fixture.store(&records);
    let shown = proxy.url("");
    fixture.wait_complaint(&format!("through the proxy {shown}: answered 502"));
    fixture.server.up();
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
    assert!(fixture.set_aside().is_empty());
}

#[test]
fn a_proxy_that_is_killed_in_the_middle_loses_nothing() {
    let mut proxy = Proxy::new(Way::Open);
    let server = MainServer::new_up();
    server.set_health(503);
    let go = fixture::hold(&server, &[100, 400], |_| Answer::ok());
    let mut fixture = through(server, "HTTP_PROXY", &proxy.url(""));
    let records = texts(0..600);
    fixture.store(&records);
    fixture.server.set_health(200);
    for count in [50, 300] {
        fixture.server.wait_delivered(count, DEADLINE);
        let outages = fixture.outages();
        proxy.down();
        fixture.until("outage", |fixture| fixture.outages() > outages);
        go.send(()).expect("a server that waits");
        proxy.up(Way::Open);
    }
    fixture.agent.expect_exit(0, DEADLINE);
    let broken = fixture.agent.events_named("main_unreachable");
    let shown = format!("through the proxy {}: ", proxy.url(""));
    let named =
        |event: &serde_json::Value| event["error"].as_str().unwrap_or("").starts_with(&shown);
    assert!(!broken.is_empty() && broken.iter().all(named), "{broken:?}");
    fixture.expect_all(&records);
}

#[test]
fn a_server_that_needs_no_proxy_is_reached_without() {
    // Nothing listens there.
    let nowhere = "http://127.0.0.1:1";
    for (host, no_proxy) in [
        ("127.0.0.1", ""),
        ("localhost", ""),
        ("0.0.0.0", "0.0.0.0/8"),
        ("0.0.0.0", "*"),
    ] {
        let server = MainServer::new_up();
        let url = format!("http://{host}:{}", server.port());
        let mut fixture = Fixture::with(server, |agent| {
            agent
                .health_url(&url)
                .env("HTTP_PROXY", nowhere)
                .env("no_proxy", no_proxy)
        });
        fixture.store(&texts(0..3));
        fixture.agent.expect_exit(0, DEADLINE);
        let started = &fixture.agent.events_named("agent_started")[0];
        assert_eq!(started.get("proxy"), None, "{host} {no_proxy}");
    }
}

/// As Go's client does: not to buffer because of it would be loss.
#[test]
fn a_proxy_that_cannot_be_used_is_left_out_and_its_variable_named() {
    let kind = "names a proxy that is neither http, https nor socks5";
    let port = "names no proxy: its port is no number from 1 to 65535";
    let cases = [
        ("HTTP_PROXY", "socks4://user:s3cr3t@proxy.test", kind),
        ("http_proxy", "user:s3cr3t@proxy.test:none", port),
        #[cfg(not(feature = "tls"))]
        (
            "HTTP_PROXY",
            "https://user:s3cr3t@proxy.test",
            "names no proxy: https needs the feature tls, which this build lacks",
        ),
    ];
    side_by_side(cases, |(variable, value, why)| {
        let mut fixture = through(MainServer::new_up(), variable, value);
        let records = texts(0..3);
        fixture.store(&records);
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.expect_all(&records);
        let events = fixture.agent.events();
        assert_eq!(events[0]["event"], "agent_started");
        assert_eq!(events[0].get("proxy"), None);
        assert_eq!(events[1]["event"], "proxy_ignored");
        assert_eq!(events[1]["variable"], variable);
        assert_eq!(events[1]["error"], why);
        assert_eq!(fixture.agent.events_named("proxy_ignored").len(), 1);
        let said = fixture.agent.stdout() + &fixture.agent.stderr();
        for part in ["s3cr3t", "user", "proxy.test"] {
            assert!(!said.contains(part), "{said}");
        }
        assert_eq!(fixture.agent.stderr(), "");
    });
}
