//! Stores that a real agent has left, and what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use echopost::store::record::StoreName;
use rustix::process::Signal;

use crate::support::agent::Agent;
use crate::support::fixture;
use crate::support::pages::Layout;
use crate::support::rng::Rng;
use crate::support::sender::{Sender, block_on};
use crate::support::server::{Answer, MainServer};
use crate::support::{store, wait};

/// For anything that an agent does on these slow machines.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// How a store came about.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    pub name: &'static str,
    /// Records that came first, and the sizes they have at most.
    pub count: usize,
    pub size: u64,
    /// Of these, so many were delivered and deleted.
    pub delivered: usize,
    /// Records that came after that.
    pub more: usize,
    /// Ended by SIGTERM, not by SIGKILL.
    pub clean: bool,
    /// Garbled at rest, with what says that it may be trusted.
    pub trusted: bool,
}

/// What an agent has left in `lmdb/`.
pub struct Left {
    pub name: &'static str,
    pub data: Vec<u8>,
    /// What says how far it was delivered, where that is known.
    pub delivered: Option<Vec<u8>>,
    /// Numbers of the records that were delivered.
    pub gone: u64,
    /// It is taken for what an agent of this boot has left.
    pub trusted: bool,
    pub layout: Layout,
    /// All that was ever sent, by number.
    pub sent: BTreeMap<u64, String>,
}

impl Left {
    /// Has a store made.
    pub fn make(recipe: &Recipe, rng: &mut Rng) -> Left {
        let folder = crate::support::temp_folder();
        let mut server = MainServer::new_down();
        let mut left = recipe.delivered;
        server.on_post(move |_| match left.checked_sub(1) {
            Some(less) => {
                left = less;
                Answer::ok()
            }
            None => Answer::status(503),
        });
        let mut agent = fixture::start(folder.path(), &server);
        let mut sent = BTreeMap::new();
        send(&agent, &mut sent, recipe.count, recipe.size, rng);
        if recipe.delivered > 0 {
            server.up();
            wait::until(DEADLINE, "the deletes", || {
                fixture::noted(folder.path()) == recipe.delivered as u64
            });
        }
        send(&agent, &mut sent, recipe.more, recipe.size, rng);
        match recipe.clean {
            true => {
                agent.signal(Signal::TERM);
                agent.expect_exit(0, DEADLINE);
            }
            false => agent.sigkill(),
        }
        let delivered = fs::read(folder.path().join("lmdb/delivered")).expect("how far it came");
        let data = fs::read(folder.path().join("lmdb/data.mdb")).unwrap();
        let layout = Layout::of(&data);
        // LMDB itself says the same.
        let records = layout.records.iter();
        let records = records.map(|(key, placed)| (*key, placed.record.clone()));
        assert!(records.eq(store::records(folder.path())));
        let kept = recipe.count + recipe.more - recipe.delivered;
        assert_eq!(layout.records.len(), kept);
        Left {
            name: recipe.name,
            data,
            delivered: (recipe.delivered > 0).then_some(delivered),
            gone: recipe.delivered as u64,
            trusted: recipe.trusted,
            layout,
            sent,
        }
    }

    /// What the server must know a record by.
    pub fn idempotency_key(&self, key: u64) -> String {
        let record = &self.layout.records[&key].record;
        StoreName::new(&self.layout.store_id).idempotency_key(key, Some(record))
    }
}

fn send(agent: &Agent, sent: &mut BTreeMap<u64, String>, count: usize, size: u64, rng: &mut Rng) {
    let sender = Sender::keeping(&agent.socket());
    block_on(async {
        for _ in 0..count {
            let number = sent.len() as u64;
            let size = match rng.below(12) {
                0 => rng.below(size),
                1 => 1900 + rng.below(2500),
                _ => rng.below(500),
            };
            let text = "x".repeat(usize::try_from(size).unwrap());
            let json = format!("{{\"seq\":{number},\"text\":\"{text}\"}}");
            let own = number
                .is_multiple_of(7)
                .then(|| format!("\"own-{number}\""));
            let request = echopost::proto::logagent::LogRequest {
                json_data: json.clone().into(),
                pipelines: vec!["damage".to_owned()],
                api_key: "key".to_owned(),
            };
            let answer = sender.call(request, own.as_deref()).await;
            assert!(answer.expect("an acknowledgement").success);
            sent.insert(number, json);
        }
    });
}
