//! What was stored is what arrives: byte for byte, in order.

use std::time::Duration;

use prost::Message;

use crate::support::fixture::Fixture;
use crate::support::samples::{self, Sample};
use crate::support::sender::block_on;
use crate::support::server::MainServer;
use echopost::limits::MESSAGE_MAX;
use echopost::proto::logagent::LogRequest;
use tonic::Code;

/// Some 5 MiB in a debug build.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn every_sample_and_every_odd_value_arrives_byte_for_byte_and_in_order() {
    let mut fixture = Fixture::down();
    let odd = samples::nasty_json().into_iter().map(|(_, json)| Sample {
        json_data: json,
        pipelines: vec!["\"quoted\\\"".into(), "ü\u{2028}\n".into(), String::new()],
        api_key: "key of its own; with = odd ~ signs".into(),
        idempotency_key: None,
    });
    let records: Vec<Sample> = samples::load().into_iter().chain(odd).collect();
    let sender = fixture.sender();
    block_on(async {
        for record in &records {
            let answer = sender.send_sample(record).await.expect("stored");
            assert_eq!((answer.success, answer.message.as_str()), (true, "stored"));
        }
    });
    fixture.server.up();
    fixture.server.wait_delivered(records.len(), DEADLINE);

    let posts = fixture.server.posts();
    assert_eq!(posts.len(), records.len());
    for (at, (post, record)) in posts.iter().zip(&records).enumerate() {
        let pipelines = serde_json::Value::from(record.pipelines.clone()).to_string();
        let expected = [
            br#"{"pipelines":"#,
            pipelines.as_bytes(),
            br#","log_data":"#,
            record.json_data.as_bytes(),
            b"}",
        ]
        .concat();
        // assert_eq would print megabytes.
        assert!(post.body == expected, "body of record {at}");
        assert_eq!(
            post.header("datanadhi-api-key"),
            Some(&*record.api_key),
            "record {at}"
        );
    }
}

#[test]
fn a_message_of_exactly_4_mib_is_taken_and_one_byte_more_is_not() {
    // In standby, so that it does not leave while nothing is stored.
    let fixture = Fixture::standby(MainServer::new_up());
    let request = |length: usize| {
        let mut request = LogRequest {
            json_data: "\"\"".into(),
            pipelines: vec!["p".into()],
            api_key: String::new(),
        };
        // The length of the string takes three bytes more than that of "".
        let filling = length - request.encoded_len() - 3;
        request.json_data = format!("\"{}\"", "x".repeat(filling)).into();
        assert_eq!(request.encoded_len(), length);
        request
    };
    let largest = request(MESSAGE_MAX);
    let sender = fixture.sender();
    block_on(async {
        for over in [1, 2, MESSAGE_MAX] {
            let refused = sender.call(request(MESSAGE_MAX + over), None).await;
            let status = refused.expect_err("over the limit");
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            assert!(status.message().contains("4194304"), "{status:?}");
        }
        sender.call(largest.clone(), None).await.expect("stored");
    });
    fixture.server.wait_delivered(1, DEADLINE);
    let delivered = fixture.server.delivered_json();
    assert!(delivered == [largest.json_data.to_vec()]);
}
