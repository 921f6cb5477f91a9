//! What a request says about its record: headers and the Idempotency-Key.

use std::collections::HashSet;

use crate::stage::{DEADLINE, Stage, key_of, on_try, texts};
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
        let stage = Stage::with(server, |mut builder| {
            if let Some(key) = flag {
                builder = builder.api_key(key);
            }
            if let Some(key) = variable {
                builder = builder.env("DATANADHI_API_KEY", key);
            }
            builder
        });
        block_on(async {
            let sender = stage.sender();
            let without = sender.send("[1, 2]", &["a", "ü\""], "").await;
            let own = sender.send("{}", &[], "its own").await;
            assert!(without.is_ok() && own.is_ok());
        });
        stage.server.wait_delivered(2, DEADLINE);
        let posts = stage.server.posts();
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
        for (post, key) in posts.iter().zip([default, "its own"]) {
            assert_eq!(post.path, "/log");
            let host = format!("127.0.0.1:{}", stage.server.port());
            let length = post.body.len().to_string();
            // HTTP does not mind the case of names; Go's client writes them so.
            let expected = [
                ("Accept", "*/*"),
                ("Content-Length", length.as_str()),
                ("Content-Type", "application/json"),
                ("Datanadhi-Api-Key", key),
                ("Host", &host),
                ("Idempotency-Key", &key_of(post)),
                (
                    "User-Agent",
                    concat!("echopost/", env!("CARGO_PKG_VERSION")),
                ),
            ];
            assert_eq!(headers(post), expected);
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
    let mut stage = Stage::new(server);
    let records = texts(["a", "b", "c"]);
    stage.store(&records);
    for life in 1..=3 {
        let before = stage.server.posts().len();
        stage.until("attempts", |stage| stage.server.posts().len() >= before + 2);
        if life < 3 {
            stage.agent.sigkill();
            stage.restart();
        }
    }
    on_try(&stage.server, |_| Answer::ok());
    stage.wait_for(&records[2]);
    stage.agent.expect_exit(0, DEADLINE);

    let keys_of = |stage: &Stage, json: &str| -> HashSet<String> {
        let tries = stage.tries_of(json);
        tries.iter().map(|request| key_of(request)).collect()
    };
    assert!(stage.tries_of(&records[0]).len() > 6);
    let mut keys = HashSet::new();
    for json in &records {
        let of_one = keys_of(&stage, json);
        assert_eq!(of_one.len(), 1, "{json}: {of_one:?}");
        keys.extend(of_one);
    }
    assert_eq!(keys.len(), records.len(), "{keys:?}");
    let ids: HashSet<_> = keys.iter().map(|key| store_id(key)).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");

    // The store was emptied and removed: what comes now is of another one.
    stage.restart();
    let later = texts(["d"]);
    stage.store(&later);
    stage.wait_for(&later[0]);
    let key = keys_of(&stage, &later[0])
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
    let mut stage = Stage::new(server);
    let keys = ["\"an-old-one-7\"", "bare key", "\"ends\""];
    block_on(async {
        let sender = stage.sender();
        for key in keys {
            let request = LogRequest {
                json_data: "{}".into(),
                ..LogRequest::default()
            };
            sender.call(request, Some(key)).await.expect("stored");
        }
    });
    stage.until("first attempt", |stage| !stage.server.posts().is_empty());
    stage.agent.sigkill();
    stage.restart();
    stage.server.wait_delivered(keys.len(), DEADLINE);
    let sent: HashSet<_> = stage
        .server
        .posts()
        .iter()
        .map(|post| key_of(post))
        .collect();
    assert_eq!(sent, keys.map(str::to_owned).into());
}

#[test]
fn a_store_that_was_emptied_has_another_id_in_the_next_life() {
    let mut stage = Stage::new(MainServer::new_up());
    stage.store(&texts(["a"]));
    // Its line is written once the delete is on disk.
    stage.wait_noted(1);
    stage.agent.sigkill();
    stage.restart();
    stage.store(&texts(["b"]));
    stage.wait_for("\"b\"");
    let posts = stage.server.posts();
    let ids: HashSet<_> = posts.iter().map(|post| store_id(&key_of(post))).collect();
    assert_eq!((posts.len(), ids.len()), (2, 2), "{ids:?}");
}
