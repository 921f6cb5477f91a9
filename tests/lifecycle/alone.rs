//! Of the agents in a folder one serves (spec 5.1), also where the last one is
//! about to end.

use crate::support;

use std::fs::File;
use std::time::{Duration, Instant};

use crate::support::fixture;
use rustix::process::Signal;
use support::agent::{Agent, names_in};
use support::sender::send;
use support::server::MainServer;
use support::{temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(20);

#[test]
fn of_agents_that_start_together_one_serves_and_the_others_leave() {
    let server = MainServer::new_down();
    let mut held_up = 0;
    for round in 0..10 {
        let folder = temp_folder();
        let builder = || Agent::builder(folder.path()).health_url(&server.url());
        let mut agents: Vec<Agent> = (0..3).map(|_| builder().spawn()).collect();
        wait::until(DEADLINE, "all but one gone", || {
            let running = agents
                .iter_mut()
                .filter_map(|agent| agent.is_running().then_some(()));
            running.count() <= 1
        });
        let mut serving = 0;
        for agent in &mut agents {
            if agent.is_running() {
                serving += 1;
                continue;
            }
            // The one that serves may have stood still for longer than it is waited for.
            if agent.wait_exit(DEADLINE).code() == Some(73) {
                assert!(agent.stderr().contains("locked by another process"));
                held_up += 1;
                continue;
            }
            agent.expect_exit(0, DEADLINE);
            assert_eq!(agent.events_named("another_agent_serves").len(), 1);
            assert_eq!(agent.events().len(), 1);
        }
        assert!(held_up <= 4, "{held_up} found no agent");
        assert_eq!(serving, 1, "round {round}");
        send(&folder.path().join("data-nadhi-agent.sock"), "1");
        assert_eq!(
            names_in(folder.path())
                .iter()
                .filter(|name| *name == "session")
                .count(),
            1
        );
    }
}

#[test]
fn a_lock_without_a_serving_agent_is_waited_for_and_then_refused() {
    let server = MainServer::new_down();
    let folder = temp_folder();
    let lock = File::open(folder.path()).expect("the folder");
    lock.lock().expect("flock");
    let started = Instant::now();
    let mut agent = fixture::spawn(folder.path(), &server);
    agent.expect_exit(73, DEADLINE);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1400), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let stderr = agent.stderr();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("locked by another process"), "{stderr}");
    assert!(stderr.contains("fuser"), "no remedy: {stderr}");
    // The reason, and nothing else.
    assert_eq!(names_in(folder.path()), ["session"]);

    // One that is given up in that time is taken over. The test itself may be late.
    let taken_over = (0..5).any(|_| {
        lock.lock().expect("flock");
        let mut agent = fixture::spawn(folder.path(), &server);
        wait::within(Duration::from_millis(300), || !agent.is_running());
        lock.unlock().expect("unlock");
        wait::until(DEADLINE, "a socket or an end", || {
            agent.socket().exists() || !agent.is_running()
        });
        let serves = agent.is_running();
        if serves {
            agent.send("1");
        }
        serves
    });
    assert!(taken_over);
}

/// Its lock and its socket outlive a killed agent by a moment.
#[test]
fn the_next_agent_does_not_take_one_that_was_killed_for_living() {
    let server = MainServer::new_down();
    // An end that takes longer than 300 ms has lived on for the next agent, and rightly.
    let mut held_up = 0;
    for signal in [Signal::KILL, Signal::TERM] {
        for _ in 0..5 {
            let folder = temp_folder();
            let agent = || Agent::builder(folder.path()).health_url(&server.url());
            let mut first = agent().spawn();
            first.wait_answering();
            // With a store already, so that no flush is under way.
            first.send("1");
            first.signal(signal);
            let mut second = agent().spawn();
            first.wait_exit(DEADLINE);
            wait::until(DEADLINE, "a start or an end", || {
                !second.events_named("agent_started").is_empty() || !second.is_running()
            });
            if second.is_running() {
                second.wait_answering();
                second.send("2");
            } else {
                held_up += 1;
            }
        }
    }
    assert!(held_up <= 3, "{held_up} of 10 were taken for living");
}
