//! Clients with many connections: idle ones, more than there are descriptors,
//! and a new one for each call (spec 3).

use crate::support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::hostile_clients::HostileClients;
use support::raw::{Got, Raw, call, whole_call};
use support::rng::rounds;
use support::sender::{Sender, block_on};
use support::wait;
use support::wire::{GOAWAY, HEADERS, opening};
use tokio::sync::oneshot;

/// Every waiting client is served by then: an idle connection is spared for
/// IDLE_GRACE and cut CLOSE_GRACE later, a dozen at a time.
const DEADLINE: Duration = Duration::from_secs(30);
const PROMPT: Duration = Duration::from_secs(15);
/// Of one core, while nothing is to be done; a late look may see the end of a crowd.
/// A loop without a pause takes all that it gets.
const CPU_SHARE_MAX: f64 = 0.2;

fn idle(socket: &Path, count: usize) -> Vec<Raw> {
    (0..count).map(|_| Raw::open(socket)).collect()
}

/// Clients in the middle of a call each. It comes with the connection: a silent
/// client may have to go.
fn calling(socket: &Path, count: usize) -> Vec<Raw> {
    let mut raws: Vec<Raw> = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::connect(socket);
        raw.send(&[opening(), call(1, b"", 0)].concat());
        raws.push(raw);
    }
    raws
}

/// The share of a core that the agent takes over some seconds.
fn cpu_share(hostile: &HostileClients, seconds: u64) -> Option<f64> {
    let before = hostile.agent.cpu_time()?;
    let start = Instant::now();
    // Time is what is measured here.
    std::thread::sleep(Duration::from_secs(seconds));
    let spent = hostile.agent.cpu_time()? - before;
    Some(spent.as_secs_f64() / start.elapsed().as_secs_f64())
}

#[test]
fn idle_connections_make_room_when_descriptors_run_out() {
    let hostile = HostileClients::with_descriptors(32);
    let socket = hostile.socket();
    // A client whose channel is idle when the crowd comes, and lives all along.
    let (first, sent) = oneshot::channel();
    let (go_on, again) = oneshot::channel::<()>();
    let path = socket.clone();
    let keeping = std::thread::spawn(move || {
        block_on(async {
            let sender = Sender::keeping(&path);
            assert!(sender.send("1", &["p"], "k").await.expect("stored").success);
            first.send(()).expect("the test");
            again.await.expect("the test");
            let second = tokio::time::timeout(DEADLINE, sender.send("2", &["p"], "k"));
            assert!(second.await.expect("in time").expect("stored").success);
        });
    });
    sent.blocking_recv().expect("the first call");
    let mut crowd = idle(&socket, 200);
    let served = hostile.well_behaved(DEADLINE);
    println!("served after {served:?}");
    for raw in crowd.iter_mut().take(100) {
        let mut told = false;
        let closed = raw.until_closed(PROMPT, |frame| told |= frame.kind == GOAWAY);
        assert!(told && closed.is_some(), "not evicted in order: {closed:?}");
    }
    go_on.send(()).expect("the client");
    keeping.join().expect("the client");
    // Some of the crowd still have their place, which costs nothing.
    let share = cpu_share(&hostile, 3);
    println!("{share:?} of a core");
    assert!(share.is_none_or(|share| share < CPU_SHARE_MAX), "{share:?}");
    hostile.well_behaved(DEADLINE);
    drop(crowd);
    assert_eq!(hostile.stop(), 5);
}

/// As processes are that get no CPU time: to their clients a connection that was
/// closed is a call that failed.
#[test]
fn clients_that_are_held_up_for_a_moment_are_served() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let mut silent: Vec<Raw> = (0..80).map(|_| Raw::connect(&socket)).collect();
    let mut idle = idle(&socket, 80);
    // The length is what counts: more than what others are spared for.
    std::thread::sleep(Duration::from_secs(1));
    for raw in &mut silent {
        raw.send(&opening());
    }
    for raw in silent.iter_mut().chain(&mut idle) {
        raw.send(&whole_call(1, "{}"));
    }
    for raw in silent.iter_mut().chain(&mut idle) {
        raw.wait_frame(HEADERS, PROMPT);
    }
    assert_eq!(hostile.stop(), 1 + 160);
}

#[test]
fn calls_without_end_make_room_for_others() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    // More than CONNECTIONS_MAX, each in the middle of a call.
    let mut crowd = calling(&socket, 250);
    // The first have their place, with SETTINGS for an answer; the last wait.
    assert!(matches!(crowd[0].next(PROMPT), Got::Frame(_)));
    assert!(matches!(crowd[249].next(PROMPT / 10), Got::Nothing));
    let share = cpu_share(&hostile, 2);
    println!("{share:?} of a core");
    assert!(share.is_none_or(|share| share < CPU_SHARE_MAX), "{share:?}");
    let served = hostile.well_behaved(DEADLINE);
    println!("served after {served:?}");
    hostile.well_behaved(PROMPT);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs /proc")]
fn a_backlog_that_goes_with_its_socket_is_not_taken_all_at_once() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let open = hostile.agent.descriptors().expect("/proc");
    // These hold all places …
    let mut crowd = calling(&socket, 200);
    assert!(matches!(crowd[0].next(PROMPT), Got::Frame(_)));
    // … and these wait.
    crowd.extend(idle(&socket, 600));
    std::fs::remove_file(&socket).expect("remove the socket");
    hostile.agent.wait_event("socket_bound_again", PROMPT);
    // Told once they were taken; no client has had to go yet.
    let taken = hostile.agent.descriptors().expect("as before") - open;
    assert!((190..=250).contains(&taken), "{taken} taken at once");
    hostile.well_behaved(DEADLINE);
    drop(crowd);
    let gone = || hostile.agent.descriptors().is_some_and(|now| now <= open);
    wait::until(DEADLINE, "nothing left behind", gone);
    // One at the start, too.
    assert_eq!(hostile.stop(), 2);
}

/// Leaves the running agent so many descriptors.
#[cfg(target_os = "linux")]
fn limit(hostile: &HostileClients, descriptors: usize) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    let agent = Pid::from_raw(hostile.agent.pid().cast_signed());
    let few = Rlimit {
        current: Some(descriptors as u64),
        maximum: Some(descriptors as u64),
    };
    prlimit(agent, Resource::Nofile, few).expect("limit the agent");
}

#[cfg(not(target_os = "linux"))]
fn limit(_: &HostileClients, _: usize) {
    unreachable!("there is no /proc that tells how many it has");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs /proc")]
fn an_agent_out_of_descriptors_serves_the_clients_that_it_can() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let open = hostile.agent.descriptors().expect("/proc");
    limit(&hostile, open + 4);
    // Calls that are answered, on connections that then stay.
    let mut crowd = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(&socket);
        raw.send(&[opening(), whole_call(1, "{}")].concat());
        raw.wait_frame(HEADERS, PROMPT);
        crowd.push(raw);
    }
    crowd.extend(idle(&socket, 37));
    hostile.agent.wait_event("accept_failed", PROMPT);
    for _ in 0..3 {
        let served = hostile.well_behaved(DEADLINE);
        println!("served after {served:?}");
    }
    let share = cpu_share(&hostile, 2);
    println!("{share:?} of a core");
    assert!(share.is_none_or(|share| share < CPU_SHARE_MAX), "{share:?}");
    let failures = hostile.agent.events_named("accept_failed").len();
    assert!(failures < 60, "{failures} events");
    drop(crowd);
    hostile.well_behaved(DEADLINE);
    assert_eq!(hostile.stop(), 8);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs /proc")]
fn an_agent_out_of_descriptors_ends_calls_without_end() {
    let hostile = HostileClients::start();
    let socket = hostile.socket();
    let open = hostile.agent.descriptors().expect("/proc");
    limit(&hostile, open + 4);
    let _crowd = calling(&socket, 10);
    hostile.agent.wait_event("accept_failed", PROMPT);
    // For some seconds there is nothing to be done.
    let share = cpu_share(&hostile, 2);
    println!("{share:?} of a core");
    assert!(share.is_none_or(|share| share < CPU_SHARE_MAX), "{share:?}");
    let served = hostile.well_behaved(DEADLINE);
    println!("served after {served:?}");
}

#[test]
fn a_connection_for_each_call_leaves_nothing_behind() {
    let hostile = HostileClients::start();
    let sender = Sender::reconnecting(&hostile.socket());
    let look = || (hostile.agent.rss_kib(), hostile.agent.descriptors());
    let (mut early, mut sent) = ((None, None), 0);
    block_on(async {
        for n in 0..rounds(2_500) {
            let answer = sender.send(r#"{"level":"info"}"#, &["p"], "k").await;
            assert!(answer.expect("stored").success);
            sent += 1;
            if n == 500 {
                early = look();
            }
        }
    });
    let settled = || match (look(), early) {
        ((Some(rss), Some(open)), (Some(rss_then), Some(open_then))) => {
            rss < rss_then + 1024 && open <= open_then + 2
        }
        _ => true,
    };
    wait::within(PROMPT, settled);
    println!("{early:?} after 500 calls, {:?} after {sent}", look());
    assert!(settled(), "{early:?} after 500 calls, {:?} now", look());
    assert_eq!(hostile.stop(), sent + 1);
}
