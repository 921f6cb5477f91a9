//! What a client is told to do, and what it tells.

use serde_json::{Value, json};

/// What a client is told to send, with a pipeline and a key of one byte each.
pub fn record(json: &str) -> Value {
    json!({ "json_data": json, "pipelines": ["p"], "api_key": "k" })
}

/// The order to do so.
pub fn send(json: &str) -> Value {
    json!({ "send": record(json) })
}

/// Fails the test unless a call has stored its record.
#[track_caller]
pub fn expect_stored(told: &Value, case: &str) {
    let stored = told["code"] == "OK" && told["success"] == true && told["message"] == "stored";
    assert!(stored, "{case}: {told}");
}
