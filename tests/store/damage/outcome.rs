//! What an agent made of a store, and whether it is what it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::damage::cases::{Case, Data};
use crate::damage::store::DEADLINE;
use crate::support::agent::names_in;
use crate::support::fixture;
use crate::support::samples::number_of;
use crate::support::sender::{Sender, block_on};
use crate::support::server::MainServer;

/// The record that is sent to the agent meanwhile.
const NEW: u64 = 1_000_000;

/// What was seen of one life.
pub struct Outcome {
    what: String,
    /// Number, JSON and Idempotency-Key of what was delivered, in order, without
    /// the new record.
    pub delivered: Vec<(u64, Vec<u8>, String)>,
    /// The lines of the failure log.
    pub set_aside: Vec<Value>,
    /// The event `store_corrupt`.
    pub corrupt: Option<Value>,
    damaged: Vec<PathBuf>,
    /// Agents that died of the store.
    pub crashes: usize,
}

/// Starts an agent on `base`: it must take a new record, and with a server that is
/// healthy from then on drain and leave. An agent that dies of the store is started again.
pub fn serve(base: &Path, what: &str) -> Outcome {
    let mut server = MainServer::new_down();
    let mut crashes = 0;
    let mut is_stored = false;
    let agent = loop {
        let mut agent = fixture::spawn(base, &server);
        // Not the socket's file: there may be a stale one.
        agent.wait_event("agent_started", DEADLINE);
        if !is_stored {
            let sender = Sender::reconnecting(&agent.socket());
            let json = format!("{{\"seq\":{NEW},\"new\":true}}");
            let answer = block_on(async {
                let call = sender.send(&json, &["damage"], "key");
                tokio::time::timeout(DEADLINE, call).await
            });
            let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer within {DEADLINE:?}"));
            match answer {
                Ok(answer) => assert!(answer.success),
                Err(status) if crashes == 0 => {
                    let ended = agent.wait_exit(DEADLINE);
                    assert!(ended.signal().is_some(), "{what}: {status}, {ended}");
                    crashes += 1;
                    continue;
                }
                Err(status) => panic!("{what}: {status}\n{}", agent.stderr()),
            }
            is_stored = true;
        }
        server.up();
        let status = agent.wait_exit(DEADLINE + Duration::from_secs(30));
        let said = format!("{}{}", agent.stdout(), agent.stderr());
        if status.signal().is_some() && crashes == 0 {
            crashes += 1;
            continue;
        }
        assert_eq!(status.code(), Some(0), "{what}: {status}\n{said}");
        break agent;
    };
    let mut delivered: Vec<_> = server
        .delivered()
        .iter()
        .map(|request| {
            let json = request.log_data().to_vec();
            let key = request.header("idempotency-key").expect("its key");
            let number = number_of(&json).unwrap_or_else(|| panic!("{what}: a strange record"));
            (number, json, key.to_owned())
        })
        .collect();
    if crashes > 0 {
        // As after a SIGKILL, some come twice.
        let all = delivered.len();
        let mut known = BTreeSet::new();
        delivered.retain(|(number, ..)| known.insert(*number));
        let repeated = all - delivered.len();
        assert!(repeated <= 64, "{what}: {repeated} repeated");
    }
    let last = delivered.pop().map(|(number, ..)| number);
    assert_eq!(last, Some(NEW), "{what}: the new record comes last");
    let damaged = files(&base.join("lmdb"), "data.mdb.damaged-");
    let mut names = names_in(base);
    names.retain(|name| name != "session" && (name != "lmdb" || damaged.is_empty()));
    assert!(names.is_empty(), "{what}: left {names:?}");
    if !damaged.is_empty() {
        let left = names_in(&base.join("lmdb"));
        assert!(left.len() == damaged.len(), "{what}: left {left:?}");
    }
    Outcome {
        what: what.to_owned(),
        delivered,
        set_aside: fixture::logged(base, "agent-failure.log"),
        corrupt: agent.events_named("store_corrupt").pop(),
        damaged,
        crashes,
    }
}

impl Outcome {
    pub fn idempotency_keys(&self) -> Vec<String> {
        self.delivered.iter().map(|(.., key)| key.clone()).collect()
    }

    /// All that is promised of this case.
    pub fn check(&self, case: &Case) {
        self.check_records(case);
        let known = matches!(case.data, Data::Bytes(_)) && case.left.delivered.is_some();
        if known && self.crashes == 0 {
            let gone = self
                .delivered
                .iter()
                .find(|(number, ..)| *number < case.left.gone);
            assert!(gone.is_none(), "{}: {gone:?} is back", self.what);
        }
        match (&self.corrupt, &case.data) {
            (Some(event), _) => self.check_event(case, event),
            (None, Data::Bytes(_)) => self.check_sound(case),
            (None, _) => self.check_aside(case),
        }
    }

    /// Nothing readable is lost, nothing is out of order, nothing made up.
    pub fn check_records(&self, case: &Case) {
        let what = &self.what;
        for pair in self.delivered.windows(2) {
            assert!(
                pair[0].0 < pair[1].0,
                "{what}: {} after {}",
                pair[1].0,
                pair[0].0
            );
        }
        for (number, json, _) in &self.delivered {
            let sent = case.left.sent.get(number).map(String::as_bytes);
            assert!(sent == Some(json), "{what}: record {number} is another one");
        }
        let by_number: BTreeMap<u64, &str> = (self.delivered.iter())
            .map(|(number, _, key)| (*number, key.as_str()))
            .collect();
        for key in case.readable() {
            let json = &case.left.layout.records[&key].record.json_data;
            let number = number_of(json).unwrap();
            let came = by_number.get(&number);
            let came = came.unwrap_or_else(|| panic!("{what}: record {number} is lost"));
            if case.has_id() {
                assert_eq!(*came, case.left.idempotency_key(key), "{what}: {number}");
            }
        }
    }

    /// The damaged store is there, byte for byte.
    pub fn check_aside(&self, case: &Case) {
        let what = &self.what;
        let [aside] = &self.damaged[..] else {
            panic!("{what}: set aside as {:?}", self.damaged);
        };
        match &case.data {
            // LMDB may have written to a trusted one.
            Data::Bytes(_) if case.left.trusted => {}
            Data::Bytes(bytes) => assert!(fs::read(aside).unwrap() == *bytes, "{what}: changed"),
            Data::Folder => assert!(aside.is_dir(), "{what}"),
            Data::Link => assert!(aside.is_symlink(), "{what}"),
        }
    }

    fn check_event(&self, case: &Case, event: &Value) {
        let what = &self.what;
        self.check_aside(case);
        assert_eq!(
            event["set_aside"].as_str(),
            self.damaged[0].to_str(),
            "{what}"
        );
        let saved = usize::try_from(event["saved"].as_u64().expect("saved")).unwrap();
        assert_eq!(event["whole"], true, "{what}: {event}");
        assert_eq!(
            event["may_repeat"],
            case.left.delivered.is_none(),
            "{what}: {event}"
        );
        if !case.left.trusted {
            assert_eq!(saved, self.delivered.len(), "{what}: {event}");
            if let Some(expected) = event["expected"].as_u64() {
                let layout = &case.left.layout;
                assert_eq!(expected, layout.records.len() as u64, "{what}: {event}");
            }
        }
    }

    /// Nothing that matters was damaged: all the records are there, or kept.
    fn check_sound(&self, case: &Case) {
        let what = &self.what;
        assert!(self.damaged.is_empty(), "{what}: {:?}", self.damaged);
        let empty = matches!(&case.data, Data::Bytes(bytes) if bytes.is_empty());
        let expected = match empty {
            true => 0,
            false => case.left.layout.records.len(),
        };
        let came = self.delivered.len() + self.set_aside.len();
        assert_eq!(came, expected, "{what}");
        for line in &self.set_aside {
            assert_eq!(line["intact"], false, "{what}");
        }
        let numbers: BTreeSet<u64> = self.delivered.iter().map(|(n, ..)| *n).collect();
        assert_eq!(numbers.len(), self.delivered.len());
    }
}

fn files(base: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(base).into_iter().flatten();
    let paths = entries.map(|entry| entry.expect("a folder entry").path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with(prefix)
    };
    paths.filter(fits).collect()
}
