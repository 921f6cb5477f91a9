//! What must come of records whatever happens: a main server with moods, and the
//! count of all that may have caused a duplicate.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use echopost::limits::SAVE_RECORDS_MAX;
use serde_json::Value;

use super::http1::{Answer, Ending, Message};
use super::ledger::Ledger;
use super::rng::Rng;
use super::samples::number_of;
use super::server::{MainServer, body_parts};

/// Follows the records of one ledger from the application to the main server.
pub struct Model {
    pub ledger: Arc<Ledger>,
    shared: Arc<Shared>,
    /// The first key that a record of this ledger may have: what was stored before
    /// may still come again.
    first_key: u64,
}

struct Shared {
    /// Of a hundred records, so many are answered oddly, once each.
    oddness: AtomicU64,
    /// Times at which an answer of 2xx may not have arrived.
    unsure: AtomicUsize,
    /// The last record that was answered oddly.
    odd: Mutex<(Option<usize>, Rng)>,
}

/// Whether the main server refuses a record for good.
pub fn is_refused(number: usize) -> bool {
    number % 97 == 13
}

impl Model {
    pub fn new(count: usize, seed: u64) -> Model {
        let now = UNIX_EPOCH.elapsed().expect("a clock after 1970");
        Model {
            first_key: u64::try_from(now.as_nanos()).expect("a clock before 2554"),
            ledger: Arc::new(Ledger::new(count)),
            shared: Arc::new(Shared {
                oddness: AtomicU64::new(0),
                unsure: AtomicUsize::new(0),
                odd: Mutex::new((None, Rng(seed))),
            }),
        }
    }

    /// Has the server take the records.
    pub fn attach(&self, server: &MainServer) {
        let (ledger, shared) = (Arc::clone(&self.ledger), Arc::clone(&self.shared));
        let first_key = self.first_key;
        server.forget_requests();
        server.on_post(move |message| match key_of(message) {
            Some(key) if key < first_key => Answer::ok(),
            _ => shared.answer(&ledger, message),
        });
    }

    /// The numbers of the ledger's records that were set aside since the last call.
    pub fn set_aside(&self, logs: &mut FailureLogs, folder: &Path) -> BTreeSet<usize> {
        logs.more(folder, self.first_key)
    }

    /// From now on, of a hundred records so many are answered oddly.
    pub fn set_oddness(&self, percent: u64) {
        self.shared.oddness.store(percent, Relaxed);
    }

    /// The agent was killed: what was delivered and not deleted comes again.
    pub fn killed(&self) {
        self.shared.unsure.fetch_add(SAVE_RECORDS_MAX + 1, Relaxed);
    }

    /// The server went away, or the agent was stopped: the request in flight may
    /// come again.
    pub fn interrupted(&self) {
        self.shared.unsure.fetch_add(1, Relaxed);
    }

    /// Whether every record is acknowledged, and delivered or refused.
    pub fn is_settled(&self, aside: &BTreeSet<usize>) -> bool {
        let totals = self.ledger.totals();
        totals.acknowledged == self.ledger.count()
            && totals.delivered + aside.len() >= self.ledger.count()
    }

    /// What is wrong with what has come of the records; `aside` are those in the
    /// failure logs.
    pub fn faults(&self, aside: &BTreeSet<usize>) -> Vec<String> {
        let totals = self.ledger.totals();
        let refused: BTreeSet<usize> = (0..self.ledger.count())
            .filter(|n| is_refused(*n))
            .collect();
        let unsure = self.shared.unsure.load(Relaxed);
        let unanswered = totals.calls - totals.acknowledged;
        let mut faults = Vec::new();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                faults.push(what);
            }
        };
        expect(
            *aside == refused,
            format!("set aside {aside:?} instead of {refused:?}"),
        );
        let lost = self.ledger.lost();
        expect(
            lost == refused.len(),
            format!("{lost} lost, {} refused", refused.len()),
        );
        let out_of_order = self.ledger.out_of_order();
        expect(out_of_order == 0, format!("{out_of_order} out of order"));
        expect(totals.altered == 0, format!("{} altered", totals.altered));
        let again = totals.duplicates;
        expect(
            again <= unsure,
            format!("{again} came twice instead of {unsure} at most"),
        );
        // A record may be stored by a call that got no answer.
        let twice = totals.stored_twice;
        expect(
            twice <= unanswered,
            format!("{twice} stored twice, {unanswered} not answered"),
        );
        faults
    }
}

/// The place in the agent's store, which the agent's own Idempotency-Key ends in.
fn key_of(message: &Message) -> Option<u64> {
    let key = message.header("idempotency-key")?.trim_matches('"');
    key.rsplit_once('-')?.1.parse().ok()
}

impl Shared {
    fn answer(&self, ledger: &Ledger, message: &Message) -> Answer {
        let number = body_parts(&message.body).and_then(|(_, json)| number_of(json));
        let number = number.and_then(|number| usize::try_from(number).ok());
        if number.is_some_and(is_refused) {
            return Answer::status(400).body(b"no");
        }
        let mut odd = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, rng) = &mut *odd;
        // At most once each: no patience runs out, no back-off grows.
        let oddly = *last != number && rng.chance(self.oddness.load(Relaxed), 100);
        if !oddly {
            ledger.delivered(message);
            return Answer::ok();
        }
        *last = number;
        match rng.below(10) {
            0 => Answer::status(503),
            1 => Answer::status(500).body(b"oops"),
            2 => Answer::status(429).header("Retry-After", "0"),
            3 => Answer::status(302).header("Location", "http://elsewhere/"),
            4 => Answer::status(403),
            5 => Answer::status(200).then(Ending::Close),
            // Taken, but the agent will not know.
            6 => self.taken(ledger, message, Answer::ok().then(Ending::ResetAfter(9))),
            7 => self.taken(ledger, message, Answer::ok().then(Ending::Close)),
            8 => {
                ledger.delivered(message);
                Answer::status(204).then(Ending::ThenClose)
            }
            _ => {
                ledger.delivered(message);
                Answer::ok().after(Duration::from_millis(20))
            }
        }
    }

    fn taken(&self, ledger: &Ledger, message: &Message, answer: Answer) -> Answer {
        self.unsure.fetch_add(1, Relaxed);
        ledger.delivered(message);
        answer
    }
}

/// Reads what is appended to the failure logs of a folder.
#[derive(Default)]
pub struct FailureLogs(HashMap<PathBuf, usize>);

impl FailureLogs {
    /// The numbers of the records set aside since the last call, with a key from
    /// `first_key` on.
    fn more(&mut self, folder: &Path, first_key: u64) -> BTreeSet<usize> {
        let mut numbers = BTreeSet::new();
        for entry in fs::read_dir(folder).expect("the base folder").flatten() {
            let path = entry.path().join("agent-failure.log");
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let read = self.0.entry(path).or_default();
            let end = text.rfind('\n').map_or(0, |at| at + 1);
            for line in text[*read..end].lines() {
                let line: Value = serde_json::from_str(line).expect("a line of the failure log");
                assert_eq!(line["intact"], true, "{line}");
                if line["key"].as_u64().expect("a key") < first_key {
                    continue;
                }
                let json = line["json_data"].as_str().expect("the record");
                let number = number_of(json.as_bytes()).expect("a record of ours");
                numbers.insert(usize::try_from(number).unwrap());
            }
            *read = end;
        }
        numbers
    }
}
