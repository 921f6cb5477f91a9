//! Records that are too large for the server: it answers before it has read them,
//! and may close at once.

use std::thread::scope;

use serde_json::{Value, json};

use crate::nginx::Nginx;
use crate::python::Python;
use crate::stage::Stage;

#[test]
fn a_record_that_the_server_finds_too_large_is_set_aside_at_the_first_try() {
    // Without the linger nginx resets the connection while the record is still
    // on its way.
    scope(|scope| {
        for linger in ["on", "off", "always"] {
            scope.spawn(move || too_large(linger));
        }
    });
}

fn too_large(linger: &str) {
    let sizes = [
        100, 200_000, 100, 3_000_000, 100, 1_000_000, 100_000, 400_000, 100,
    ];
    let records: Vec<Value> = (0..)
        .zip(sizes)
        .map(|(n, size)| json!({ "n": n, "pad": "x".repeat(size) }))
        .collect();
    let too_large: Vec<_> = (0u64..)
        .zip(sizes)
        .filter(|(_, size)| *size > 50_000)
        .collect();
    let mut stage = Stage::new();
    stage.store(&records);
    let _app = Python::gunicorn_behind(&stage, &[]);
    let limits = format!("client_max_body_size 50k; lingering_close {linger};");
    let nginx = Nginx::start(&stage, &limits);
    let fine = records.len() - too_large.len();
    stage.finish(fine as u64, too_large.len() as u64);

    assert_eq!(stage.seen().len(), fine, "{linger}");
    let refused = nginx.posts(413).len();
    // Without lingering the answer may be lost to the reset that follows it.
    if linger == "off" {
        assert!(refused >= too_large.len(), "{refused}");
    } else {
        assert_eq!(refused, too_large.len(), "{linger}: each once");
        let events = stage.agent.events_named("main_unreachable");
        assert_eq!(events, Vec::<Value>::new(), "{linger}");
    }
    for (line, (n, _)) in stage.set_aside().iter().zip(too_large) {
        assert_eq!(line["status"], 413, "{linger}");
        assert!(
            line["answer"]
                .as_str()
                .is_some_and(|text| text.contains("413 Request Entity"))
        );
        let json = line["json_data"].as_str().expect("a text");
        assert!(json.starts_with(&format!(r#"{{"n":{n},"#)), "{json:.80}");
    }
}
