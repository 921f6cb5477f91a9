//! SOCKS5 proxies, which Go's default client would go through, too.

use std::process::Command;

use tempfile::TempDir;

use crate::proxy::program::Program;
use crate::proxy::through;
use crate::support::fixture::{DEADLINE, first_deliveries, hold, side_by_side, texts};
use crate::support::server::{Answer, MainServer};
use crate::support::temp_folder;
use crate::venv::python;

/// A SOCKS5 proxy on a port of its own.
pub struct Socks {
    program: Program,
    folder: TempDir,
}

impl Socks {
    /// One that is up, and wants this user and password if there are any.
    pub fn new(login: Option<(&str, &str)>) -> Socks {
        let mut proxy = Socks {
            program: Program::new(),
            folder: temp_folder(),
        };
        proxy.up(login);
        proxy
    }

    /// What the variable names.
    pub fn url(&self, scheme: &str, credentials: &str) -> String {
        format!("{scheme}://{credentials}127.0.0.1:{}", self.program.port)
    }

    fn up(&mut self, login: Option<(&str, &str)>) {
        let users: serde_json::Map<_, _> = login
            .map(|(user, password)| (user.into(), password.into()))
            .into_iter()
            .collect();
        let configuration = serde_json::json!({
            "LISTEN_HOST": "127.0.0.1",
            "LISTEN_PORT": self.program.port,
            // RFC 1928, 3: none; user and password.
            "AUTH_METHOD": if login.is_none() { 0 } else { 2 },
            "USERS": users,
            "STRICT": true,
        });
        let file = self.folder.path().join("socks.json");
        std::fs::write(&file, configuration.to_string()).expect("write the configuration");
        let mut command = Command::new(python());
        let module = ["-m", "asyncio_socks_server", "--config"];
        self.program.up(command.args(module).arg(&file));
    }
}

#[test]
fn records_go_through_it_with_and_without_credentials_which_show_nowhere() {
    let secret = Some(("user", "s3cr-t"));
    let cases = [
        ("socks5", "", None),
        ("socks5h", "", None),
        ("socks5", "user:s3cr%2Dt@", secret),
        ("SOCKS5", "user:s3cr-t@", secret),
    ];
    side_by_side(cases, |(scheme, credentials, login)| {
        let proxy = Socks::new(login);
        let url = proxy.url(scheme, credentials);
        let mut fixture = through(MainServer::new_up(), "HTTP_PROXY", &url);
        let records = texts(0..50);
        fixture.store(&records);
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.expect_all(&records);
        // As to the main server itself: it is at the tunnel's other end.
        for request in fixture.server.requests() {
            assert!(matches!(request.path.as_str(), "/" | "/log"), "{request:?}");
            assert_eq!(request.header("proxy-authorization"), None);
        }
        let started = &fixture.agent.events_named("agent_started")[0];
        let mask = if credentials.is_empty() { "" } else { "***@" };
        assert_eq!(started["proxy"], proxy.url(&scheme.to_lowercase(), mask));
        assert!(!fixture.agent.stdout().contains("s3cr"));
    });
}

#[test]
fn what_it_refuses_only_delays_the_records() {
    let wanted = Some(("user", "s3cr-t"));
    let cases = [
        (
            "",
            wanted,
            None,
            "SOCKS error: server does not support user/pass authentication",
        ),
        (
            "user:wr0ng@",
            wanted,
            Some(("user", "wr0ng")),
            "SOCKS error: credentials not accepted",
        ),
    ];
    side_by_side(cases, |(credentials, before, after, words)| {
        let mut proxy = Socks::new(before);
        let url = proxy.url("socks5", credentials);
        let mut fixture = through(MainServer::new_up(), "http_proxy", &url);
        let records = texts(0..20);
        fixture.store(&records);
        let mask = if credentials.is_empty() { "" } else { "***@" };
        let shown = proxy.url("socks5", mask);
        fixture.wait_complaint(&format!("through the proxy {shown}: no tunnel: {words}"));
        assert!(fixture.server.requests().is_empty());
        proxy.program.down();
        proxy.up(after);
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.expect_all(&records);
        assert!(!fixture.agent.stdout().contains("wr0ng"));
    });
}

#[test]
fn a_server_that_is_down_behind_it_only_delays_the_records() {
    let proxy = Socks::new(None);
    let server = MainServer::new_down();
    let mut fixture = through(server, "HTTP_PROXY", &proxy.url("socks5", ""));
    let records = texts(0..20);
    fixture.store(&records);
    let shown = proxy.url("socks5", "");
    fixture.wait_complaint(&format!(
        "through the proxy {shown}: no tunnel: SOCKS error: "
    ));
    fixture.server.up();
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
    assert!(fixture.set_aside().is_empty());
}

#[test]
fn it_may_be_killed_in_the_middle_and_what_the_server_refuses_is_set_aside() {
    let mut proxy = Socks::new(None);
    let server = MainServer::new_up();
    let go = hold(&server, &[100, 450], |message| {
        match message.body.ends_with(br#""400"}"#) {
            true => Answer::status(422),
            false => Answer::ok(),
        }
    });
    server.set_health(503);
    let mut fixture = through(server, "HTTP_PROXY", &proxy.url("socks5", ""));
    let records = texts(0..600);
    fixture.store(&records);
    fixture.server.set_health(200);
    for count in [50, 420] {
        fixture.server.wait_delivered(count, DEADLINE);
        let outages = fixture.outages();
        proxy.program.down();
        fixture.until("outage", |fixture| fixture.outages() > outages);
        go.send(()).expect("a server that waits");
        proxy.up(None);
    }
    fixture.agent.expect_exit(0, DEADLINE);
    // One whose answer the kill took comes again, under the same key.
    let (first, _) = first_deliveries(&fixture.server);
    let first: Vec<_> = first.iter().map(|request| request.log_data()).collect();
    let mut expected = records;
    expected.remove(400);
    let expected: Vec<_> = expected.iter().map(String::as_bytes).collect();
    assert_eq!(first, expected);
    assert_eq!(fixture.set_aside().len(), 1);
}
