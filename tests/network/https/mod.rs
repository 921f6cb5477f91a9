//! HTTPS (spec 6): the real agent, TLS servers of two makes, and certificates
//! made for the moment.
#![cfg(feature = "tls")]

use crate::certs;
use crate::front;
mod python;
use crate::support;
use crate::support::fixture;

use certs::{Authority, GOOD, Versions};
use fixture::{DEADLINE, Fixture, side_by_side, texts};
use front::{Front, Handshake, Manner};
use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};
use support::agent::Builder;
use support::server::MainServer;

/// An agent that trusts `authority`, with a TLS server in front of its own.
fn trusting(front: &Front, host: &str, authority: &Authority, server: MainServer) -> Fixture {
    Fixture::with(server, |agent| lead(agent, front, host, authority))
}

fn lead(agent: Builder, front: &Front, host: &str, authority: &Authority) -> Builder {
    agent
        .health_url(&front.url(host))
        .env("SSL_CERT_FILE", &authority.file())
}

fn delivered(fixture: &Fixture) -> Vec<String> {
    let records = fixture.server.delivered_json().into_iter();
    let text = |json| String::from_utf8(json).expect("UTF-8");
    records.map(text).collect()
}

/// The reason in the event that says that the agent buffers.
fn complaint(fixture: &Fixture) -> String {
    let event = fixture
        .agent
        .wait_event("main_unhealthy_accepting_logs", DEADLINE);
    event["error"].as_str().expect("a reason").to_owned()
}

#[test]
fn records_go_over_one_connection_of_each_version_to_names_and_addresses() {
    let authority = Authority::new("Test Authority");
    let identity = authority.identity(&["localhost", "127.0.0.1"], GOOD);
    let cases = [
        (Versions::Only12, "localhost", TLSv1_2),
        (Versions::Only12, "127.0.0.1", TLSv1_2),
        (Versions::Only13, "localhost", TLSv1_3),
        (Versions::Only13, "127.0.0.1", TLSv1_3),
        (Versions::Both, "LOCALHOST", TLSv1_3),
    ];
    side_by_side(cases, |(versions, host, version)| {
        let mut server = MainServer::new_down();
        let front = Front::new(server.port(), Manner::Serve(identity.server(versions)));
        server.up();
        server.set_health(503);
        let mut fixture = trusting(&front, host, &authority, server);
        let mut records = texts(0..200);
        // More than TLS, and then the kernel, take at once.
        records[50] = format!("{:?}", "x".repeat(3_000_000));
        fixture.store(&records);
        fixture.server.set_health(200);
        fixture.agent.expect_exit(0, DEADLINE);
        assert_eq!(delivered(&fixture), records);
        let host = host.to_lowercase();
        let handshake = Handshake {
            version: Some(version),
            resumed: false,
            // RFC 6066, 3: no literal addresses.
            name: (host == "localhost").then_some(host),
            protocol: Some(b"http/1.1".to_vec()),
        };
        assert_eq!(front.handshakes(), [handshake], "{versions:?}");
        let url = fixture.agent.events_named("agent_started")[0]["health_url"].clone();
        assert!(url.as_str().is_some_and(|url| url.starts_with("https://")));
    });
}

#[test]
fn each_bad_certificate_is_named_in_plain_words_and_only_delays_the_records() {
    let known = Authority::new("Test Authority");
    let unknown = Authority::new("Another Authority");
    let same_name = Authority::new("Test Authority");
    let good = known.identity(&["localhost"], GOOD);
    let cases = [
        (
            unknown.identity(&["localhost"], GOOD),
            "TLS: invalid peer certificate: UnknownIssuer",
        ),
        (
            known.identity(&["localhost"], (2020, 2021)),
            "TLS: invalid peer certificate: certificate expired: ",
        ),
        (
            known.identity(&["localhost"], (2110, 2120)),
            "TLS: invalid peer certificate: certificate not valid yet: ",
        ),
        (
            known.identity(&["elsewhere.test", "127.0.0.1"], GOOD),
            "TLS: invalid peer certificate: certificate not valid for name \"localhost\"",
        ),
        (
            same_name.identity(&["localhost"], GOOD),
            "TLS: invalid peer certificate: BadSignature",
        ),
        (
            known.own_identity(),
            "TLS: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
        ),
    ];
    side_by_side(cases, |(bad, words)| {
        let server = MainServer::new_up();
        let front = Front::new(server.port(), Manner::Serve(bad.server(Versions::Both)));
        let mut fixture = trusting(&front, "localhost", &known, server);
        let records = texts(0..3);
        fixture.store(&records);
        let said = complaint(&fixture);
        assert!(said.starts_with(words), "{said}");
        assert_eq!(fixture.server.requests().len(), 0);
        front.change(Manner::Serve(good.server(Versions::Both)));
        fixture.agent.expect_exit(0, DEADLINE);
        assert_eq!(delivered(&fixture), records);
        assert!(fixture.set_aside().is_empty());
    });
}

#[test]
fn a_handshake_that_comes_to_nothing_only_delays_the_records() {
    let authority = Authority::new("Test Authority");
    let good = authority.identity(&["localhost"], GOOD);
    let cases = [
        (Manner::Close, "TLS: tls handshake eof"),
        (Manner::Plain, "it does not speak TLS"),
        // The 5 s of a connection hold for the handshake, too.
        (
            Manner::Hang,
            "timed out after 5s while agreeing on keys (TLS)",
        ),
    ];
    side_by_side(cases, |(manner, words)| {
        let server = MainServer::new_up();
        let front = Front::new(server.port(), manner);
        let mut fixture = trusting(&front, "localhost", &authority, server);
        let records = texts(0..3);
        fixture.store(&records);
        assert_eq!(complaint(&fixture), words);
        front.change(Manner::Serve(good.server(Versions::Both)));
        fixture.agent.expect_exit(0, DEADLINE);
        assert_eq!(delivered(&fixture), records);
    });
}

#[test]
fn a_session_is_resumed_and_a_new_certificate_is_taken() {
    let authority = Authority::new("Test Authority");
    side_by_side([Versions::Only12, Versions::Only13], |versions| {
        let certificate = |names: &[&str]| authority.identity(names, GOOD).server(versions);
        let server = MainServer::new_up();
        let front = Front::new(server.port(), Manner::Serve(certificate(&["localhost"])));
        // In standby, so that it does not leave between two records.
        let fixture = Fixture::with(server, |agent| {
            agent
                .health_url(&front.url("localhost"))
                .env("SSL_CERT_FILE", &authority.file())
                .arg("-standby")
        });
        fixture.store(&texts(["first"]));
        fixture.wait_noted(1);
        // The server closes an idle connection: reopened without a back-off.
        front.cut();
        fixture.store(&texts(["second"]));
        fixture.wait_noted(2);
        // The first one is new, and those after it go on with its session: one for
        // the record, and another where the agent had gone to rest meanwhile.
        let goes_on = |from: usize| {
            let handshakes = front.handshakes().split_off(from);
            let (first, again) = handshakes.split_first().expect("a handshake");
            assert!(!first.resumed, "{versions:?}");
            assert!(again.iter().all(|one| one.resumed), "{versions:?}");
            handshakes.len()
        };
        let before = goes_on(0);
        assert!(before > 1, "{versions:?}");
        // Another key and another certificate, which knows of no session.
        front.change(Manner::Serve(certificate(&["localhost"])));
        fixture.store(&texts(["third"]));
        fixture.wait_noted(3);
        goes_on(before);
        assert_eq!(delivered(&fixture), texts(["first", "second", "third"]));
        assert!(fixture.agent.events_named("main_unreachable").is_empty());
        // A session that was resumed does not outlive a certificate that went bad.
        front.change(Manner::Serve(certificate(&["elsewhere.test"])));
        fixture.store(&texts(["fourth"]));
        fixture.until("complaint", |fixture| {
            fixture
                .agent
                .stdout()
                .contains("certificate not valid for name")
        });
        front.change(Manner::Serve(certificate(&["localhost"])));
        fixture.wait_for("\"fourth\"");
    });
}

#[test]
fn the_variables_of_openssl_and_python_say_together_what_to_trust() {
    const FILE: &str = "SSL_CERT_FILE";
    const DIR: &str = "SSL_CERT_DIR";
    const REQUESTS: &str = "REQUESTS_CA_BUNDLE";
    const CURL: &str = "CURL_CA_BUNDLE";
    let known = Authority::new("Test Authority");
    let unknown = Authority::new("Another Authority");
    let with_another_key = Authority::new("Test Authority");
    let both = known.pem() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let folder = support::temp_folder();
    let bundle = folder.path().join("bundle.pem");
    std::fs::write(&bundle, unknown.pem() + &both).expect("write");
    let bundle = bundle.to_str().expect("UTF-8");
    let list = format!("/nonexistent:{}:{}", unknown.folder(), known.folder());
    let untrusted = Some("TLS: invalid peer certificate: UnknownIssuer");
    let (known_file, unknown_file) = (&*known.file(), &*unknown.file());
    let another_key_file = &*with_another_key.file();
    let identity = known.identity(&["localhost"], GOOD);
    let cases = [
        (&[(FILE, known_file)][..], None),
        (&[(FILE, bundle)], None),
        (&[(FILE, known.folder())], None),
        (&[(DIR, known.folder())], None),
        (&[(DIR, &list)], None),
        (&[(FILE, unknown_file), (DIR, known.folder())], None),
        (&[(FILE, another_key_file), (DIR, known.folder())], None),
        (&[(REQUESTS, bundle)], None),
        (&[(REQUESTS, known.folder())], None),
        (&[(CURL, known_file)], None),
        (&[(CURL, known.folder())], None),
        (&[(REQUESTS, unknown_file), (CURL, bundle)], None),
        (&[(FILE, another_key_file), (CURL, known_file)], None),
        (&[(FILE, "/nonexistent"), (REQUESTS, known.folder())], None),
        (
            &[(FILE, ""), (DIR, ""), (REQUESTS, bundle), (CURL, "")],
            None,
        ),
        // The system's own authorities do not count beside them, and sign no
        // certificate of a test anyway.
        (
            &[(FILE, ""), (DIR, ""), (REQUESTS, ""), (CURL, "")],
            untrusted,
        ),
        (&[(FILE, unknown_file)], untrusted),
        (&[(DIR, unknown.folder())], untrusted),
        (
            &[(REQUESTS, unknown_file), (CURL, "/nonexistent")],
            untrusted,
        ),
        (
            &[(FILE, "/nonexistent")],
            Some("no certificate found through SSL_CERT_FILE"),
        ),
        (
            &[(FILE, "/dev/null"), (DIR, "/nonexistent"), (REQUESTS, "")],
            Some("no certificate found through SSL_CERT_FILE and SSL_CERT_DIR"),
        ),
        (
            &[(REQUESTS, "/nonexistent"), (CURL, "/")],
            Some("no certificate found through REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE"),
        ),
    ];
    side_by_side(cases, |(environment, complaint_of)| {
        let server = MainServer::new_up();
        let front = Front::new(
            server.port(),
            Manner::Serve(identity.server(Versions::Both)),
        );
        let mut fixture = Fixture::with(server, |mut agent| {
            for (name, value) in environment {
                agent = agent.env(name, value);
            }
            agent.health_url(&front.url("localhost"))
        });
        fixture.store(&texts(["record"]));
        match complaint_of {
            None => fixture.agent.expect_exit(0, DEADLINE),
            Some(words) => assert_eq!(complaint(&fixture), words, "{environment:?}"),
        }
    });
}

#[test]
fn a_server_that_dies_and_comes_back_loses_nothing() {
    let authority = Authority::new("Test Authority");
    let identity = authority.identity(&["localhost"], GOOD);
    let server = MainServer::new_up();
    let front = Front::new(
        server.port(),
        Manner::Serve(identity.server(Versions::Both)),
    );
    // In standby, so that it does not leave when the client is held up.
    let mut fixture = Fixture::with(server, |agent| {
        lead(agent, &front, "localhost", &authority).arg("-standby")
    });
    let records = texts(0..800);
    std::thread::scope(|scope| {
        let storing = scope.spawn(|| fixture.store(&records));
        for count in [100, 200, 400, 600] {
            fixture.server.wait_delivered(count, DEADLINE);
            front.cut();
        }
        storing.join().expect("all acknowledged");
    });
    fixture.stop_after(&records);
    let (first, again) = fixture::first_deliveries(&fixture.server);
    let first: Vec<_> = first.iter().map(|request| request.log_data()).collect();
    let expected: Vec<_> = records.iter().map(String::as_bytes).collect();
    assert_eq!(first, expected);
    // At most the one in flight at each cut.
    assert!(again <= 4, "{again}");
}

#[test]
fn a_server_on_openssl_that_says_no_goodbye_gets_every_record_once() {
    let authority = Authority::new("Test Authority");
    let identity = authority.identity(&["localhost", "127.0.0.1"], GOOD);
    for (version, host) in [
        ("TLSv1_2", "localhost"),
        ("TLSv1_2", "127.0.0.1"),
        ("TLSv1_3", "localhost"),
    ] {
        let python = python::Server::new(&identity, version);
        let url = format!("https://{host}:{}", python.port);
        let mut fixture = Fixture::with(MainServer::new_down(), |agent| {
            agent
                .health_url(&url)
                .env("SSL_CERT_FILE", &authority.file())
        });
        let records = texts(0..20);
        fixture.store(&records);
        fixture.agent.expect_exit(0, DEADLINE);
        assert_eq!(python.records(), records, "{version}");
        assert!(fixture.agent.events_named("main_unreachable").is_empty());
    }
}
