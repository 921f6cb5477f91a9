//! Which record was where, and when: what was sent, acknowledged and delivered.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::http1::Message;
use super::samples::{Generator, Sample, number_of};
use super::server::body_parts;

/// Follows the records `0..count` of a [`Generator`].
pub struct Ledger {
    generator: Generator,
    entries: Mutex<Entries>,
}

struct Entries {
    records: Vec<Record>,
    /// The numbers of the records, in the order they first arrived.
    arrivals: Vec<usize>,
    keys: HashSet<String>,
    totals: Totals,
}

#[derive(Clone, Default)]
struct Record {
    /// The start of the first call, which may have been stored without an answer.
    sent: Option<Instant>,
    acknowledged: Option<Instant>,
    delivered: bool,
}

/// The sums so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub sent: usize,
    pub calls: usize,
    pub acknowledged: usize,
    pub delivered: usize,
    /// Requests whose Idempotency-Key had been there before.
    pub duplicates: usize,
    /// Records that came again under another Idempotency-Key: stored without an
    /// answer, and sent again by the application.
    pub stored_twice: usize,
    /// Requests that held no record of ours, byte for byte.
    pub altered: usize,
}

impl Ledger {
    pub fn new(count: usize) -> Ledger {
        Ledger::of(Generator::new(), count)
    }

    pub fn of(generator: Generator, count: usize) -> Ledger {
        Ledger {
            generator,
            entries: Mutex::new(Entries {
                records: vec![Record::default(); count],
                arrivals: Vec::with_capacity(count),
                keys: HashSet::new(),
                totals: Totals::default(),
            }),
        }
    }

    pub fn count(&self) -> usize {
        self.entries().records.len()
    }

    pub fn record(&self, number: usize) -> Sample {
        self.generator.record(number as u64)
    }

    pub fn calling(&self, number: usize) {
        let mut entries = self.entries();
        entries.totals.calls += 1;
        if entries.records[number].sent.is_none() {
            entries.records[number].sent = Some(Instant::now());
            entries.totals.sent += 1;
        }
    }

    pub fn acknowledged(&self, number: usize) {
        let mut entries = self.entries();
        entries.records[number].acknowledged = Some(Instant::now());
        entries.totals.acknowledged += 1;
    }

    /// The agent said that it has not stored the record: its place in the order
    /// is that of a later call.
    pub fn refused(&self, number: usize) {
        let mut entries = self.entries();
        if entries.records[number].sent.take().is_some() {
            entries.totals.sent -= 1;
        }
    }

    /// A `POST` that the main server is about to answer with 2xx.
    pub fn delivered(&self, message: &Message) {
        let number = self.known(message);
        let mut entries = self.entries();
        let Some(number) = number.filter(|&number| number < entries.records.len()) else {
            entries.totals.altered += 1;
            return;
        };
        let key = message.header("idempotency-key").unwrap_or_default();
        if !entries.keys.insert(key.to_owned()) {
            entries.totals.duplicates += 1;
        } else if entries.records[number].delivered {
            entries.totals.stored_twice += 1;
        } else {
            entries.records[number].delivered = true;
            entries.arrivals.push(number);
            entries.totals.delivered += 1;
        }
    }

    pub fn totals(&self) -> Totals {
        self.entries().totals
    }

    /// Records that were acknowledged and never arrived.
    pub fn lost(&self) -> usize {
        let lost = |record: &&Record| record.acknowledged.is_some() && !record.delivered;
        self.entries().records.iter().filter(lost).count()
    }

    /// Records that arrived after one which was sent only when they had been
    /// acknowledged already. Between calls that overlap there is no order.
    pub fn out_of_order(&self) -> usize {
        let entries = self.entries();
        let mut last_sent = None;
        let mut count = 0;
        for record in entries.arrivals.iter().map(|&at| &entries.records[at]) {
            if record.acknowledged.is_some() && record.acknowledged < last_sent {
                count += 1;
            }
            last_sent = last_sent.max(record.sent);
        }
        count
    }

    /// The number of the record that the request holds unchanged.
    fn known(&self, message: &Message) -> Option<usize> {
        let (pipelines, json) = body_parts(&message.body)?;
        let number = number_of(json)?;
        let record = self.generator.record(number);
        let same = json == record.json_data.as_bytes()
            && pipelines == record.pipelines
            && message.header("datanadhi-api-key") == Some(&record.api_key);
        usize::try_from(number).ok().filter(|_| same)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Counting goes on after a panic elsewhere.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
