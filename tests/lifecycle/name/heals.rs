//! A killed agent heals: its name is gone with it, and the next one delivers.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::name::{DEADLINE, link};
use crate::support::agent::{Agent, names_in};
use crate::support::fixture::{self, Fixture};
use crate::support::rng::{Rng, rounds};
use crate::support::sender::{Sender, block_on};
use crate::support::server::MainServer;
use crate::support::{temp_folder, wait};

#[test]
fn the_name_is_gone_with_the_agent_and_the_next_one_delivers_what_it_left() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let start = || fixture::start(folder.path(), &server);
    let mut first = start();
    for number in 0..136 {
        first.send(&number.to_string());
    }
    let stale = link(folder.path()).expect("a link");
    assert_eq!(stale.0, first.pid());
    first.sigkill();
    assert!(!first.socket().exists());
    assert!(first.socket().is_symlink());

    let mut second = start();
    let fresh = link(folder.path()).expect("a link");
    assert!(fresh.0 == second.pid() && fresh.1 != stale.1);
    second.send("136");
    server.up();
    second.expect_exit(0, DEADLINE);
    let expected: Vec<Vec<u8>> = (0..=136).map(|n: u32| n.to_string().into_bytes()).collect();
    assert_eq!(server.delivered_json(), expected);
    let mut names = names_in(folder.path());
    names.dedup();
    assert_eq!(names, ["session"]);
}

/// An application whose agents are killed.
struct Application<'a> {
    folder: &'a Path,
    url: &'a str,
    agents: Mutex<Vec<Agent>>,
    /// Odd while an agent is being killed.
    kills: AtomicUsize,
    over: AtomicBool,
    acknowledged: AtomicUsize,
}

impl Application<'_> {
    /// The SDK's steps for one record: an agent is started where the name does not
    /// exist, and one call is made on a fresh channel.
    fn step(&self, number: usize) -> Result<(), String> {
        let socket = self.folder.join("data-nadhi-agent.sock");
        if !socket.exists() {
            let agent = Agent::builder(self.folder).health_url(self.url).spawn();
            self.agents.lock().expect("the agents").push(agent);
            let kills = self.kills.load(SeqCst);
            let killed = || self.kills.load(SeqCst) != kills;
            // The SDK's 2 s, for a machine under tests.
            if !wait::within(DEADLINE, || socket.exists() || killed()) || !socket.exists() {
                return Err("no socket".into());
            }
        }
        let call = async {
            let sender = Sender::reconnecting(&socket);
            tokio::time::timeout(DEADLINE, sender.send(&number.to_string(), &[], "")).await
        };
        let answer = block_on(call).map_err(|_| "no answer".to_owned())?;
        let answer = answer.map_err(|status| status.to_string())?;
        assert!(answer.success);
        Ok(())
    }

    /// Steps until it is over; the records that were acknowledged.
    fn log(&self, numbers: impl Iterator<Item = usize>) -> BTreeSet<usize> {
        let mut acknowledged = BTreeSet::new();
        for number in numbers.take_while(|_| !self.over.load(SeqCst)) {
            let before = self.kills.load(SeqCst);
            match self.step(number) {
                Ok(()) => {
                    acknowledged.insert(number);
                    self.acknowledged.fetch_add(1, SeqCst);
                }
                Err(why) => {
                    let undisturbed = before.is_multiple_of(2) && self.kills.load(SeqCst) == before;
                    assert!(!undisturbed, "record {number}: {why}");
                }
            }
        }
        acknowledged
    }

    fn kill_one(&self) {
        let mut agents = self.agents.lock().expect("the agents");
        let serving = agents
            .iter_mut()
            .filter_map(|agent| agent.is_running().then_some(agent));
        for agent in serving {
            self.kills.fetch_add(1, SeqCst);
            agent.sigkill();
            self.kills.fetch_add(1, SeqCst);
        }
    }
}

#[test]
fn no_step_of_the_sdk_fails_that_began_after_a_death() {
    let folder = temp_folder();
    let mut server = MainServer::new_down();
    let url = server.url();
    let application = Application {
        folder: folder.path(),
        url: &url,
        agents: Mutex::default(),
        kills: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        acknowledged: AtomicUsize::new(0),
    };
    // On a busy machine agents are killed before they have done much.
    let enough = || {
        let kills = application.kills.load(SeqCst) / 2;
        kills >= rounds(12) && application.acknowledged.load(SeqCst) > 50
    };
    let begun = Instant::now();
    let mut rng = Rng::seeded();
    let acknowledged = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..2)
            .map(|lane| {
                scope.spawn({
                    let application = &application;
                    move || application.log((lane..).step_by(2))
                })
            })
            .collect();
        let mut moments = 0;
        while moments < rounds(25) || (!enough() && begun.elapsed() < DEADLINE) {
            moments += 1;
            let wanted = Instant::now() + Duration::from_micros(rng.below(60_000));
            wait::until(DEADLINE, "a moment", || Instant::now() >= wanted);
            application.kill_one();
        }
        application.over.store(true, SeqCst);
        let mut all = BTreeSet::new();
        for lane in lanes {
            all.append(&mut lane.join().expect("no step failed"));
        }
        all
    });
    let kills = application.kills.load(SeqCst) / 2;
    let count = acknowledged.len();
    assert!(
        enough(),
        "{kills} agents killed, {count} records acknowledged"
    );
    // The last agent was killed; the application logs once more.
    let last = usize::MAX;
    application.step(last).expect("acknowledged");
    server.up();
    let agents = &mut *application.agents.lock().expect("the agents");
    for agent in agents.iter_mut().filter(|agent| agent.rss_kib().is_some()) {
        agent.expect_exit(0, 2 * DEADLINE);
    }
    let delivered = server.delivered_json();
    let delivered: BTreeSet<usize> = delivered
        .iter()
        .map(|json| String::from_utf8_lossy(json).parse().expect("a number"))
        .collect();
    let lost: Vec<_> = acknowledged.difference(&delivered).collect();
    assert!(lost.is_empty() && delivered.contains(&last), "{lost:?}");
    let mut names = names_in(folder.path());
    names.dedup();
    assert_eq!(names, ["session"]);
}

/// Containers give each agent the same pid, and so the same descriptor number.
#[test]
#[ignore = "needs root: a PID namespace"]
fn the_same_pid_and_descriptor_never_lead_to_a_dead_socket() {
    let folder = temp_folder();
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/lifecycle/name/same_pid.py"
    );
    let server = MainServer::new_down();
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "python3", script])
        .arg(Agent::executable())
        .arg(folder.path())
        .arg(server.url())
        .arg(rounds(20).to_string())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{wrong}");
    println!("{said}");
}

#[test]
fn a_signal_takes_the_name_and_its_folder_away() {
    let (folder, _server, mut agent) = Fixture::down().parts();
    agent.send("1");
    agent.signal(Signal::TERM);
    agent.expect_exit(0, DEADLINE);
    assert_eq!(names_in(folder.path()), ["lmdb", "session"]);
}
