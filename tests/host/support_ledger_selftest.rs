//! Tests of the ledger that judges an outage: it must find what it looks for.

use crate::support;

use support::http1::Message;
use support::ledger::Ledger;
use support::samples::Generator;

/// What the agent would post for record `number` of a generator.
fn posted(number: u64, key: &str) -> Vec<u8> {
    let record = Generator::new().record(number);
    let pipelines = serde_json::to_string(&record.pipelines).expect("JSON");
    let body = format!(
        "{{\"pipelines\":{pipelines},\"log_data\":{}}}",
        record.json_data
    );
    format!(
        "POST /log HTTP/1.1\r\nDATANADHI-API-KEY: {}\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
        record.api_key,
        body.len()
    )
    .into_bytes()
}

fn message(bytes: &[u8]) -> Message {
    let message = Message::read(&mut &*bytes).expect("HTTP");
    message.expect("a message")
}

/// Numbers of records and their Idempotency-Keys.
type Arrivals = &'static [(u64, &'static str)];

#[test]
fn the_ledger_finds_what_is_lost_late_double_and_altered() {
    // What arrives, in that order, of the records 0..4, sent one after another,
    // the last of them not acknowledged; then: lost, out of order, duplicates,
    // stored twice.
    let cases: [(Arrivals, [usize; 4]); 9] = [
        (&[(0, "a"), (1, "b"), (2, "c"), (3, "d")], [0, 0, 0, 0]),
        (&[(0, "a"), (1, "b"), (2, "c")], [0, 0, 0, 0]),
        (&[], [3, 0, 0, 0]),
        (&[(0, "a"), (2, "c")], [1, 0, 0, 0]),
        (&[(1, "b"), (0, "a"), (2, "c")], [0, 1, 0, 0]),
        (&[(2, "c"), (0, "a"), (1, "b")], [0, 2, 0, 0]),
        (
            &[(0, "a"), (1, "b"), (0, "a"), (1, "b"), (2, "c")],
            [0, 0, 2, 0],
        ),
        (&[(0, "a"), (1, "b"), (2, "c"), (2, "e")], [0, 0, 0, 1]),
        (&[(0, "a"), (1, "a"), (2, "c")], [1, 0, 1, 0]),
    ];
    for (arrivals, expected) in cases {
        let ledger = Ledger::new(4);
        for number in 0..4 {
            ledger.calling(number);
            if number < 3 {
                ledger.acknowledged(number);
            }
        }
        for &(number, key) in arrivals {
            ledger.delivered(&message(&posted(number, key)));
        }
        let totals = ledger.totals();
        let found = [
            ledger.lost(),
            ledger.out_of_order(),
            totals.duplicates,
            totals.stored_twice,
        ];
        assert_eq!(found, expected, "{arrivals:?}");
        assert_eq!(totals.altered, 0, "{arrivals:?}");
        assert_eq!((totals.sent, totals.acknowledged), (4, 3));
    }
}

#[test]
fn the_ledger_sets_no_order_between_calls_that_overlap() {
    let ledger = Ledger::new(3);
    ledger.calling(0);
    ledger.calling(1);
    ledger.acknowledged(0);
    ledger.calling(2);
    ledger.acknowledged(1);
    ledger.acknowledged(2);
    for number in [1, 2, 0] {
        ledger.delivered(&message(&posted(number, &number.to_string())));
    }
    // 0 was acknowledged before 2 was sent, and came after it.
    assert_eq!(ledger.out_of_order(), 1);
}

#[test]
fn the_ledger_takes_no_altered_record() {
    let good = String::from_utf8(posted(0, "a")).expect("UTF-8");
    for (from, to) in [
        ("\"seq\":0", "\"seq\":9"),
        ("\"seq\":0", "\"seq\": "),
        ("message", "massage"),
        ("log_data", "log-data"),
        ("\"orders\"", "\"Orders\""),
        ("sample-api-key", "another-api-ke"),
    ] {
        let altered = good.replacen(from, to, 1);
        assert_ne!(altered, good, "{from}");
        let ledger = Ledger::new(1);
        ledger.delivered(&message(altered.as_bytes()));
        let totals = ledger.totals();
        assert_eq!((totals.altered, totals.delivered), (1, 0), "{from}");
    }
}
