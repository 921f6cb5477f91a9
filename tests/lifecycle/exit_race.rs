//! Clients that come just when the agent leaves (spec 5.4): the SDK's own steps,
//! again and again around that moment, and no call may fail or be lost.

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use support::agent::{Agent, names_in};
use support::rng::Rng;
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(20);
/// Applications at a time, each with a folder of its own.
const LANES: u64 = 16;
/// Calls of each.
const ROUNDS: u64 = 5;

/// One application and the agents it has started.
struct Lane<'a> {
    folder: &'a Path,
    url: &'a str,
    agents: Vec<Agent>,
    /// The agent left between the look for the file and the connect.
    missed: usize,
    /// Agents that found the one before them still there, for longer than they wait.
    held_up: usize,
}

impl Lane<'_> {
    /// What the SDK does for a record when the main server does not take it.
    fn log(&mut self, number: u64) {
        let socket = self.folder.join("data-nadhi-agent.sock");
        loop {
            if !socket.exists() {
                // Whatever is there by now is taken for stale.
                let _ = fs::remove_file(&socket);
                let mut agent = Agent::builder(self.folder).health_url(self.url).spawn();
                let there = wait::within(DEADLINE, || socket.exists() || !agent.is_running());
                assert!(there, "no socket");
                if !agent.is_running() && agent.wait_exit(DEADLINE).code() == Some(73) {
                    self.held_up += 1;
                    assert!(self.held_up <= 2, "{}", agent.stderr());
                    continue;
                }
                self.agents.push(agent);
            }
            // No agent can know of a client that has looked for the file and not
            // come yet. Everything else about the connect is its affair.
            match UnixStream::connect(&socket) {
                Ok(stream) => {
                    stream.set_nonblocking(true).expect("non-blocking");
                    break self.call(stream, number);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => self.missed += 1,
                Err(error) => panic!("connect: {error}"),
            }
        }
    }

    fn call(&self, stream: UnixStream, number: u64) {
        let answer = block_on(async {
            let sender = Sender::on(stream).await.expect("a handshake");
            sender.send(&number.to_string(), &[], "").await
        });
        let answer = answer.unwrap_or_else(|status| panic!("record {number}: {status}"));
        assert!(answer.success);
    }

    /// Sleeps so that the next call falls near the agent's leaving.
    fn wait_for_the_exit(&self, rng: &mut Rng) {
        let socket = self.folder.join("data-nadhi-agent.sock");
        match rng.below(3) {
            // By the clock: 2 to 3 s of quiet, and a probe.
            0 => sleep_micros(1_950_000 + rng.below(1_200_000)),
            // Just after the file has gone.
            _ => {
                let end = Instant::now() + DEADLINE;
                while socket.exists() {
                    assert!(Instant::now() < end, "the agent does not leave");
                    sleep_micros(300);
                }
                sleep_micros(rng.below(60_000));
            }
        }
    }
}

fn sleep_micros(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}

#[test]
fn no_call_fails_and_no_record_is_lost_around_the_exit() {
    let server = MainServer::new_up();
    let url = server.url();
    let folders: Vec<_> = (0..LANES).map(|_| temp_folder()).collect();
    let (mut missed, mut agents) = (0, 0);
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (url, folder) = (&url, folders[lane as usize].path());
                scope.spawn(move || live(lane, folder, url))
            })
            .collect();
        for lane in lanes {
            let (lane_missed, lane_agents) = lane.join().expect("a lane");
            missed += lane_missed;
            agents += lane_agents;
        }
    });
    let calls = LANES * ROUNDS;
    println!("{calls} calls, {agents} agents started, {missed} times no agent there any more");
    assert!(agents > calls / 4, "the calls were not near the exits");
    let mut delivered = BTreeSet::new();
    for json in server.delivered_json() {
        let number: u64 = String::from_utf8_lossy(&json).parse().expect("a number");
        assert!(delivered.insert(number), "{number} came twice");
    }
    assert_eq!(delivered, (0..calls).collect());
}

fn live(number: u64, folder: &Path, url: &str) -> (usize, u64) {
    let mut rng = Rng(number);
    let mut lane = Lane {
        folder,
        url,
        agents: Vec::new(),
        missed: 0,
        held_up: 0,
    };
    for round in 0..ROUNDS {
        if round > 0 {
            lane.wait_for_the_exit(&mut rng);
        }
        lane.log(number * ROUNDS + round);
    }
    let started = lane.agents.len() as u64;
    for agent in &mut lane.agents {
        agent.expect_exit(0, DEADLINE);
    }
    let mut names = names_in(folder);
    names.dedup();
    assert_eq!(names, ["session"]);
    (lane.missed, started)
}
