//! Records that are too large for the server: it answers before it has read them,
//! and may close at once.

use std::thread::scope;

use serde_json::{Value, json};

use crate::servers::caddy::{Caddy, Settings};
use crate::servers::harness::Harness;
use crate::servers::python::Python;

const LIMIT: usize = 50_000;

/// Which server finds it too large, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Refusal {
    /// Caddy, once it has passed so much of it on to gunicorn.
    Midway,
    /// Caddy, by its length; it closes a moment later, or reads the rest.
    Unread,
    /// gunicorn, by its length; it resets the connection while the record is still on
    /// its way.
    Reset,
}

#[test]
fn a_record_that_the_server_finds_too_large_is_set_aside_at_the_first_try() {
    scope(|scope| {
        for refusal in [Refusal::Midway, Refusal::Unread, Refusal::Reset] {
            scope.spawn(move || too_large(refusal));
        }
    });
}

/// Starts the server of this case.
fn server(harness: &Harness, refusal: Refusal) -> (Python, Option<Caddy>) {
    let site = match refusal {
        Refusal::Midway => format!("request_body {{\n max_size {LIMIT}\n }}"),
        Refusal::Unread => format!(
            "@large expression `int({{header.Content-Length}}) > {LIMIT}`
             error @large 413"
        ),
        Refusal::Reset => {
            let limit = format!("LIMIT={LIMIT}");
            return (Python::gunicorn(harness, &["--env", &limit]), None);
        }
    };
    let app = Python::gunicorn_behind(harness, &[]);
    (app, Some(Caddy::start(harness, &Settings::site(&site))))
}

fn too_large(refusal: Refusal) {
    let sizes = [
        100, 200_000, 100, 3_000_000, 100, 1_000_000, 100_000, 400_000, 100,
    ];
    let records: Vec<Value> = (0..)
        .zip(sizes)
        .map(|(n, size)| json!({ "n": n, "pad": "x".repeat(size) }))
        .collect();
    let too_large: Vec<_> = (0u64..)
        .zip(sizes)
        .filter(|(_, size)| *size > LIMIT)
        .collect();
    let mut harness = Harness::new();
    harness.store(&records);
    let (_app, caddy) = server(&harness, refusal);
    let fine = records.len() - too_large.len();
    harness.finish(fine as u64, too_large.len() as u64);

    assert_eq!(harness.seen().len(), fine, "{refusal:?}");
    // The answer may be lost to the reset that follows it.
    if let Some(caddy) = caddy {
        let refused = caddy.posts(413).len();
        assert_eq!(refused, too_large.len(), "{refusal:?}: each once");
        let events = harness.agent.events_named("main_unreachable");
        assert_eq!(events, Vec::<Value>::new(), "{refusal:?}");
    }
    for (line, (n, _)) in harness.set_aside().iter().zip(too_large) {
        assert_eq!(line["status"], 413, "{refusal:?}");
        assert!(
            line["answer"]
                .as_str()
                .is_some_and(|text| text.contains("413 Request Entity"))
        );
        let json = line["json_data"].as_str().expect("a text");
        assert!(json.starts_with(&format!(r#"{{"n":{n},"#)), "{json:.80}");
    }
}
