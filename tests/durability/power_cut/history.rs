//! What a test knows of its records: when each was acknowledged and delivered,
//! in marks of the recording.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::power_cut::recording::{Mark, Recorder};
use crate::support::rng::Rng;
use crate::support::samples::number_of;
use crate::support::sender::{Sender, block_on};
use crate::support::server::{Answer, MainServer, body_parts};

/// Calls in flight at once. Those of one lane follow each other.
pub const LANES: u64 = 4;

/// Whether the server refuses a record for good.
pub fn is_refused(number: u64) -> bool {
    number % 16 == 5
}

/// One record's life.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    pub json: String,
    pub acknowledged: Option<Mark>,
    /// When it was first answered with 200.
    pub delivered: Option<Mark>,
}

/// All records, by number.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<BTreeMap<u64, Fate>>>);

impl History {
    pub fn fates(&self) -> BTreeMap<u64, Fate> {
        self.locked().clone()
    }

    pub fn delivered(&self) -> usize {
        let fates = self.locked();
        let delivered = fates.values().filter(|fate| fate.delivered.is_some());
        delivered.count()
    }

    /// Sends a record to an agent that may be about to die.
    pub fn try_one(&self, socket: &Path, recorder: &Recorder) {
        let number = self.locked().len() as u64;
        let fate = Fate {
            json: format!("{{\"seq\":{number},\"tried\":true}}"),
            ..Fate::default()
        };
        self.locked().insert(number, fate.clone());
        let sender = Sender::keeping(socket);
        if block_on(sender.send(&fate.json, &[], "key")).is_ok_and(|answer| answer.success) {
            let mark = recorder.marker()();
            self.change(number, |fate| fate.acknowledged = Some(mark));
        }
    }

    /// Sends `count` more records of mixed sizes and has every one acknowledged.
    pub fn send(&self, socket: &Path, count: u64, recorder: &Recorder, rng: &mut Rng) {
        let first = self.locked().len() as u64;
        for number in first..first + count {
            let size = match rng.below(20) {
                0 => rng.below(60_000),
                1..=3 => 1900 + rng.below(3000),
                _ => rng.below(700),
            };
            let json = format!(
                "{{\"seq\":{number},\"text\":\"{}\"}}",
                "x".repeat(usize::try_from(size).unwrap())
            );
            let fate = Fate {
                json,
                ..Fate::default()
            };
            self.locked().insert(number, fate);
        }
        let (sender, marker) = (Sender::keeping(socket), recorder.marker());
        let lane = async |lane: u64| {
            for number in (first..first + count).filter(|number| number % LANES == lane) {
                let json = self.locked()[&number].json.clone();
                let answer = sender.send(&json, &["power"], "key").await;
                let mark = marker();
                assert!(answer.expect("an acknowledgement").success);
                self.change(number, |fate| fate.acknowledged = Some(mark));
            }
        };
        block_on(async { tokio::join!(lane(0), lane(1), lane(2), lane(3)) });
    }

    /// From now on the server takes `count` more records, and no others.
    pub fn deliver(&self, server: &MainServer, count: usize, recorder: &Recorder) {
        let (history, marker) = (self.clone(), recorder.marker());
        let end = self.delivered() + count;
        server.on_post(move |message| {
            if history.delivered() >= end {
                return Answer::status(503);
            }
            let mark = marker();
            let (_, json) = body_parts(&message.body).expect("a record in its envelope");
            let number = number_of(json).expect("a record of ours");
            if is_refused(number) {
                return Answer::status(400);
            }
            history.change(number, |fate| {
                assert_eq!(fate.json.as_bytes(), json);
                fate.delivered.get_or_insert(mark);
            });
            Answer::ok()
        });
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Fate)) {
        change(self.locked().get_mut(&number).expect("a record of ours"));
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Fate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
