//! An agent in a folder of its own, with a main server.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::agent::{Agent, Builder, session_file};
use super::http1::Message;
use super::sender::{Sender, block_on};
use super::server::{Answer, MainServer, Request, body_parts};
use super::{store, temp_folder, wait};

/// For what takes a moment on an idle machine.
pub const DEADLINE: Duration = Duration::from_secs(40);
/// What clients send beside the JSON where it does not matter.
pub const PIPELINES: [&str; 1] = ["p"];

/// A main server, and an agent that answers in a folder.
pub struct Fixture {
    pub server: MainServer,
    pub agent: Agent,
    pub folder: TempDir,
}

impl Fixture {
    /// Starts an agent for `server`.
    pub fn new(server: MainServer) -> Fixture {
        Fixture::with(server, |builder| builder)
    }

    /// The same, with more flags.
    pub fn with(server: MainServer, flags: impl FnOnce(Builder) -> Builder) -> Fixture {
        let folder = temp_folder();
        let builder = Agent::builder(folder.path()).health_url(&server.url());
        let mut agent = flags(builder).spawn();
        agent.wait_socket();
        Fixture {
            server,
            agent,
            folder,
        }
    }

    /// With a server that is down.
    pub fn down() -> Fixture {
        Fixture::new(MainServer::new_down())
    }

    /// With a server that is up.
    pub fn up() -> Fixture {
        Fixture::new(MainServer::new_up())
    }

    /// In standby: it does not leave while there is nothing to deliver.
    pub fn standby(server: MainServer) -> Fixture {
        Fixture::with(server, |agent| agent.arg("-standby"))
    }

    /// For a test that goes its own way with each.
    pub fn parts(self) -> (TempDir, MainServer, Agent) {
        (self.folder, self.server, self.agent)
    }

    /// Starts another agent in the folder of one that has ended.
    pub fn restart(&mut self) {
        self.agent = start(self.folder.path(), &self.server);
    }

    /// Stops the agent, with all data safe on disk.
    pub fn stop(&mut self) {
        self.agent.signal(Signal::TERM);
        self.agent.expect_exit(0, DEADLINE);
        assert_eq!(self.agent.stderr(), "", "a panic, or worse");
    }

    /// Stops the agent; the payloads that it has stored, in their order.
    pub fn stored(mut self) -> Vec<String> {
        self.stop();
        let records = store::records(self.folder.path()).into_iter();
        let text = |json: &[u8]| String::from_utf8(json.to_vec()).expect("UTF-8");
        records.map(|(_, record)| text(&record.json_data)).collect()
    }

    pub fn sender(&self) -> Sender {
        Sender::keeping(&self.agent.socket())
    }

    /// Stores records one after the other; each has to be acknowledged.
    pub fn store(&self, records: &[String]) {
        let sender = self.sender();
        block_on(async {
            for json in records {
                let stored = sender.send(json, &PIPELINES, "").await;
                assert!(stored.is_ok_and(|answer| answer.success), "{json:.80}");
            }
        });
    }

    /// Waits until `done` holds.
    pub fn until(&self, what: &str, mut done: impl FnMut(&Fixture) -> bool) {
        let there = wait::within(DEADLINE, || done(self));
        assert!(there, "no {what}; agent's stdout: {}", self.agent.stdout());
    }

    /// Waits until the server has given a 2xx to this record.
    pub fn wait_for(&self, json: &str) {
        self.until(&format!("delivery of {json:.80}"), |fixture| {
            let tries = fixture.tries_of(json);
            tries.iter().any(|request| delivered(request))
        });
    }

    /// Waits until the agent, too, has noted so many deliveries: nothing is under
    /// way then that a cut could make it send again.
    pub fn wait_noted(&self, count: u64) {
        self.until(&format!("note of {count} deliveries"), |fixture| {
            noted(fixture.folder.path()) >= count
        });
    }

    /// How often the agent has told of an outage's begin.
    pub fn outages(&self) -> usize {
        self.agent
            .events_named("main_unhealthy_accepting_logs")
            .len()
    }

    /// Waits for an event that complains of this.
    pub fn wait_complaint(&self, words: &str) {
        self.until(words, |fixture| {
            let mut events = fixture.agent.events().into_iter();
            events.any(|event| {
                let why = event["error"].as_str();
                why.is_some_and(|why| why.contains(words))
            })
        });
    }

    /// Ends an agent in standby once all these records have been delivered.
    pub fn stop_after(&mut self, records: &[String]) {
        self.until("all delivered", |fixture| {
            first_deliveries(&fixture.server).0.len() == records.len()
        });
        self.agent.signal(Signal::TERM);
        self.agent.expect_exit(0, DEADLINE);
    }

    /// Everything arrived once or more, in order, and nothing was given up.
    pub fn expect_all(&self, records: &[String]) {
        let (first, _) = first_deliveries(&self.server);
        let first: Vec<_> = first.iter().map(|request| request.log_data()).collect();
        let expected: Vec<_> = records.iter().map(String::as_bytes).collect();
        assert_eq!(first, expected);
        assert!(self.set_aside().is_empty());
    }

    /// All attempts with this record.
    pub fn tries_of(&self, json: &str) -> Vec<Arc<Request>> {
        let mut posts = self.server.posts();
        posts.retain(|request| request.log_data() == json.as_bytes());
        posts
    }

    /// The lines of the only session's `agent-failure.log`.
    pub fn set_aside(&self) -> Vec<serde_json::Value> {
        lines(&session_file(self.folder.path(), "agent-failure.log").unwrap_or_default())
    }
}

/// Starts an agent on `folder` and waits until it answers.
pub fn start(folder: &Path, server: &MainServer) -> Agent {
    let mut agent = spawn(folder, server);
    agent.wait_answering();
    agent
}

/// Starts one, and does not wait.
pub fn spawn(folder: &Path, server: &MainServer) -> Agent {
    Agent::builder(folder).health_url(&server.url()).spawn()
}

/// Every case in a thread of its own: most of the time they wait.
pub fn side_by_side<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| test(case));
        }
    });
}

/// The lines of that log of all sessions.
pub fn logged(folder: &Path, name: &str) -> Vec<serde_json::Value> {
    let entries = std::fs::read_dir(folder).expect("the folder").flatten();
    let logs = entries.map(|entry| entry.path().join(name));
    let texts = logs.filter_map(|log| std::fs::read_to_string(log).ok());
    texts.flat_map(|text| lines(&text)).collect()
}

/// Deliveries that the success logs tell of: they are deleted, too.
pub fn noted(folder: &Path) -> u64 {
    let lines = logged(folder, "agent-success.log").into_iter();
    lines
        .map(|line| line["count"].as_u64().expect("a count"))
        .sum()
}

/// The whole lines of a log of JSON objects.
pub fn lines(text: &str) -> Vec<serde_json::Value> {
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// Texts as JSON strings.
pub fn texts<T: ToString>(texts: impl IntoIterator<Item = T>) -> Vec<String> {
    let json = |text: T| format!("{:?}", text.to_string());
    texts.into_iter().map(json).collect()
}

pub fn delivered(request: &Request) -> bool {
    matches!(request.status, Some(200..=299))
}

/// The Idempotency-Key of a request.
pub fn key_of(request: &Request) -> String {
    let key = request.header("idempotency-key");
    key.expect("an Idempotency-Key").to_owned()
}

/// The place that the agent gave the record: the number in its own key.
pub fn place_of(request: &Request) -> u64 {
    let key = key_of(request);
    let (_, place) = key.trim_matches('"').split_once('-').expect("id-key");
    place.parse().expect("a number")
}

/// First deliveries, in order; and how many came on top of them.
pub fn first_deliveries(server: &MainServer) -> (Vec<Arc<Request>>, usize) {
    let mut keys = HashSet::new();
    let all = server.delivered();
    let count = all.len();
    let first: Vec<_> = all
        .into_iter()
        .filter(|request| keys.insert(key_of(request)))
        .collect();
    let again = count - first.len();
    (first, again)
}

/// Has the server keep its answer to these `POST`s, counted from 1, until the test
/// says so for each: what it does meanwhile is in the middle of the replay.
pub fn hold(
    server: &MainServer,
    held: &'static [usize],
    mut plan: impl FnMut(&Message) -> Answer + Send + 'static,
) -> mpsc::Sender<()> {
    let (go, gate) = mpsc::channel();
    let mut count = 0;
    server.on_post(move |message| {
        count += 1;
        if held.contains(&count) {
            let _ = gate.recv_timeout(DEADLINE);
        }
        plan(message)
    });
    go
}

/// An attempt with a record, as the server sees it.
pub struct Try<'a> {
    /// The record; a JSON string without its quotes.
    pub record: &'a str,
    /// Counted from 1.
    pub number: u32,
    /// Since the first attempt.
    pub age: Duration,
}

/// What the server does with each attempt.
pub fn on_try(server: &MainServer, mut plan: impl FnMut(&Try) -> Answer + Send + 'static) {
    let mut seen: HashMap<String, (u32, Instant)> = HashMap::new();
    server.on_post(move |message| {
        let key = message.header("idempotency-key").unwrap_or_default();
        let entry = seen.entry(key.to_owned()).or_insert((0, Instant::now()));
        entry.0 += 1;
        let (_, json) = body_parts(&message.body).expect("a body");
        let record = std::str::from_utf8(json).expect("UTF-8");
        plan(&Try {
            record: record.trim_matches('"'),
            number: entry.0,
            age: entry.1.elapsed(),
        })
    });
}
