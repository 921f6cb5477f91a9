//! What a request says about its record: headers and the Idempotency-Key.

use std::collections::HashSet;

use crate::support::fixture::{DEADLINE, Fixture, first_deliveries, key_of, on_try, texts};
use crate::support::sender::block_on;
use crate::support::server::{Answer, MainServer, Request};
use echopost::proto::logagent::LogRequest;

fn headers(request: &Request) -> Vec<(&str, &str)> {
    let mut headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    headers.sort_unstable();
    headers
}

#[test]
fn a_request_has_these_headers_and_no_others() {
    type Flags = (Option<&'static str>, Option<&'static str>);
    // Flag, variable; what a record without a key of its own is sent with.
    let table: [(Flags, &str); 3] = [
        ((Some("flag key"), Some("variable key")), "flag key"),
        ((None, Some("variable key")), "variable key"),
        ((None, None), ""),
    ];
    for ((flag, variable), default) in table {
        let server = MainServer::new_up();
        let fixture = Fixture::with(server, |mut builder| {
            if let Some(key) = flag {
                builder = builder.api_key(key);
            }
            if let Some(key) = variable {
                builder = builder.env("DATANADHI_API_KEY", key);
            }
            builder
        });
        block_on(async {
            let sender = fixture.sender();
            let without = sender.send("[1, 2]", &["a", "ü\""], "").await;
            let own = sender.send("{}", &[], "its own").await;
            assert!(without.is_ok() && own.is_ok());
        });
        fixture.server.wait_delivered(2, DEADLINE);
        let posts = fixture.server.posts();
        let bodies: Vec<_> = posts
            .iter()
            .map(|post| String::from_utf8_lossy(&post.body).into_owned())
            .collect();
        assert_eq!(
            bodies,
            [
                r#"{"pipelines":["a","ü\""],"log_data":[1, 2]}"#,
                r#"{"pipelines":[],"log_data":{}}"#
            ]
        );
        let host = format!("127.0.0.1:{}", fixture.server.port());
        let agent = concat!("echopost/", env!("CARGO_PKG_VERSION"));
        for (post, key) in posts.iter().zip([default, "its own"]) {
            assert_eq!(post.path, "/log");
            let length = post.body.len().to_string();
            // HTTP does not mind the case of names; Go's client writes them so.
            let expected = [
                ("Accept", "*/*"),
                ("Content-Length", length.as_str()),
                ("Content-Type", "application/json"),
                ("Datanadhi-Api-Key", key),
                ("Host", &host),
                ("Idempotency-Key", &key_of(post)),
                ("User-Agent", agent),
            ];
            assert_eq!(headers(post), expected);
        }
        for probe in fixture.server.gets() {
            let expected = [("Accept", "*/*"), ("Host", &host), ("User-Agent", agent)];
            assert_eq!(headers(&probe), expected);
        }
    }
}

/// The store's part of `"<store id>-<key>"`, whose form is checked.
fn store_id(key: &str) -> String {
    let inner = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    let (id, place) = inner.and_then(|key| key.split_once('-')).expect(key);
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{key}"
    );
    assert!(place.parse::<u64>().is_ok(), "{key}");
    id.to_owned()
}

#[test]
fn a_record_keeps_its_key_over_attempts_and_crashes_and_no_key_is_used_twice() {
    let server = MainServer::new_up();
    on_try(&server, |_| Answer::status(503));
    let mut fixture = Fixture::new(server);
    let records = texts(["a", "b", "c"]);
    fixture.store(&records);
    for life in 1..=3 {
        let before = fixture.server.posts().len();
        fixture.until("attempts", |fixture| {
            fixture.server.posts().len() >= before + 2
        });
        if life < 3 {
            fixture.agent.sigkill();
            fixture.restart();
        }
    }
    on_try(&fixture.server, |_| Answer::ok());
    fixture.wait_for(&records[2]);
    fixture.agent.expect_exit(0, DEADLINE);

    let keys_of = |fixture: &Fixture, json: &str| -> HashSet<String> {
        let tries = fixture.tries_of(json);
        tries.iter().map(|request| key_of(request)).collect()
    };
    assert!(fixture.tries_of(&records[0]).len() > 6);
    let mut keys = HashSet::new();
    for json in &records {
        let of_one = keys_of(&fixture, json);
        assert_eq!(of_one.len(), 1, "{json}: {of_one:?}");
        keys.extend(of_one);
    }
    assert_eq!(keys.len(), records.len(), "{keys:?}");
    let ids: HashSet<_> = keys.iter().map(|key| store_id(key)).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");

    // The store was emptied and removed: what comes now is of another one.
    fixture.restart();
    let later = texts(["d"]);
    fixture.store(&later);
    fixture.wait_for(&later[0]);
    let key = keys_of(&fixture, &later[0])
        .into_iter()
        .next()
        .expect("a key");
    assert!(!ids.contains(&store_id(&key)), "{key}");
}

#[test]
fn a_key_that_the_client_gives_is_the_one_that_is_sent() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.number {
        1 => Answer::status(503),
        _ => Answer::ok(),
    });
    let mut fixture = Fixture::new(server);
    let keys = ["\"an-old-one-7\"", "bare key", "\"ends\""];
    block_on(async {
        let sender = fixture.sender();
        for key in keys {
            let request = LogRequest {
                json_data: "{}".into(),
                ..LogRequest::default()
            };
            sender.call(request, Some(key)).await.expect("stored");
        }
    });
    fixture.until("first attempt", |fixture| {
        !fixture.server.posts().is_empty()
    });
    fixture.agent.sigkill();
    fixture.restart();
    // Those that were delivered just before the kill come twice.
    fixture.until("all of them", |fixture| {
        first_deliveries(&fixture.server).0.len() >= keys.len()
    });
    let sent: HashSet<_> = fixture
        .server
        .posts()
        .iter()
        .map(|post| key_of(post))
        .collect();
    assert_eq!(sent, keys.map(str::to_owned).into());
}

#[test]
fn a_store_that_was_emptied_has_another_id_in_the_next_life() {
    let mut fixture = Fixture::up();
    fixture.store(&texts(["a"]));
    // Its line is written once the delete is on disk.
    fixture.wait_noted(1);
    fixture.agent.sigkill();
    fixture.restart();
    fixture.store(&texts(["b"]));
    fixture.wait_for("\"b\"");
    let posts = fixture.server.posts();
    let ids: HashSet<_> = posts.iter().map(|post| store_id(&key_of(post))).collect();
    assert_eq!((posts.len(), ids.len()), (2, 2), "{ids:?}");
}
