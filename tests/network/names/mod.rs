//! The main server's name: one that cannot be resolved, that takes for ever, that
//! changes, and that has several addresses.
#![cfg(target_os = "linux")]

mod service;
use crate::support;
use crate::support::fixture;

use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::time::Duration;

use fixture::{DEADLINE, Fixture, texts};
use rustix::process::Signal;
use service::Names;
use support::sender::block_on;
use support::server::MainServer;
use support::wait;

fn with_names(server: MainServer, names: &Names) -> Fixture {
    let url = format!("http://main.test:{}", server.port());
    Fixture::with(server, |agent| names.under(agent.health_url(&url)))
}

#[test]
fn a_name_that_cannot_be_resolved_only_delays_the_records() {
    let names = Names::new("fail");
    let mut fixture = with_names(MainServer::new_up(), &names);
    let records = texts(0..20);
    fixture.store(&records);
    fixture.wait_complaint("cannot resolve its name: ");
    // An address without a server: the outage goes on.
    let lookups = names.lookups();
    names.set("127.0.0.2");
    fixture.until("lookups", |_| names.lookups() > lookups + 1);
    assert!(fixture.server.requests().is_empty());
    names.set("127.0.0.1");
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
}

#[test]
fn a_name_is_looked_up_at_each_connection() {
    let names = Names::new("127.0.0.1");
    let mut fixture = with_names(MainServer::new_up(), &names);
    fixture.store(&texts(["first"]));
    fixture.wait_noted(1);
    let lookups = names.lookups();
    assert_eq!(lookups, 1);
    // The server moves while the agent has a connection to it.
    fixture.server.down();
    names.set("127.0.0.2");
    fixture.store(&texts(["second"]));
    fixture.until("lookups", |_| names.lookups() > lookups);
    fixture.server.up();
    names.set("127.0.0.1");
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&texts(["first", "second"]));
}

#[test]
fn a_lookup_that_hangs_is_waited_for_and_no_other_queues_behind_it() {
    let names = Names::new("hang");
    let mut fixture = with_names(MainServer::new_up(), &names);
    let records = texts(0..20);
    fixture.store(&records);
    fixture.wait_complaint("timed out after 5s while resolving its name");
    // Another probe.
    let queued = wait::within(Duration::from_secs(7), || names.lookups() > 1);
    assert!(!queued, "a second lookup beside the one that hangs");
    names.set("127.0.0.1");
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
    // The one that hung, and one more if no probe waited for it just then.
    assert!(names.lookups() <= 2, "{}", names.lookups());
}

#[test]
fn a_lookup_that_never_returns_does_not_block_later_ones() {
    let names = Names::new("stuck");
    let mut fixture = with_names(MainServer::new_up(), &names);
    let records = texts(0..20);
    fixture.store(&records);
    fixture.wait_complaint("timed out after 5s while resolving its name");
    names.set("127.0.0.1");
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
    assert_eq!(names.lookups(), 2);
}

/// As with a name server that is dead, in front of one that answers: the system
/// turns to the second one after as long as a connection may take (resolv.conf(5)).
#[test]
fn a_lookup_that_takes_longer_than_a_connection_may_serves_the_next_one() {
    let names = Names::new("hang");
    let mut fixture = with_names(MainServer::new_up(), &names);
    let records = texts(0..20);
    fixture.store(&records);
    fixture.wait_complaint("timed out after 5s while resolving its name");
    // Before the next probe, or under it.
    names.set("127.0.0.1");
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
    assert_eq!(names.lookups(), 1);
}

#[test]
fn without_a_thread_a_name_cannot_be_resolved_and_the_agent_lives_on() {
    let names = Names::new("threadless");
    let mut fixture = with_names(MainServer::new_up(), &names);
    let records = texts(0..20);
    fixture.store(&records);
    fixture.wait_complaint("cannot resolve its name: ");
    assert_eq!(names.lookups(), 0);
    names.set("127.0.0.1");
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
}

#[test]
fn a_lookup_that_hangs_does_not_delay_the_exit() {
    let names = Names::new("hang");
    let mut fixture = with_names(MainServer::new_up(), &names);
    fixture.store(&texts(0..3));
    fixture.until("lookup", |_| names.lookups() == 1);
    fixture.agent.signal(Signal::TERM);
    // Spec 5.5, and a loaded machine; the lookup would hang for ever.
    fixture.agent.expect_exit(0, Duration::from_secs(10));
}

#[test]
fn the_address_that_answers_is_found_among_those_that_do_not() {
    let server = MainServer::new_up();
    // One that answers no SYN: a listener whose backlog is full.
    let dead = TcpListener::bind(("127.0.0.9", server.port())).expect("127.0.0.9");
    rustix::net::listen(&dead, 0).expect("a short backlog");
    let address = dead.local_addr().expect("its address");
    let moment = Duration::from_millis(200);
    let _filling: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&address, moment).ok()).collect();
    // 127.0.0.2 and ::1 refuse.
    let names = Names::new("::1 127.0.0.9 127.0.0.2 127.0.0.1");
    let mut fixture = with_names(server, &names);
    let records = texts(0..20);
    fixture.store(&records);
    fixture.agent.expect_exit(0, DEADLINE);
    fixture.expect_all(&records);
    assert!(
        fixture
            .agent
            .events_named("main_unhealthy_accepting_logs")
            .is_empty()
    );
}

#[test]
fn a_server_at_an_ipv6_address_is_reached_by_name_and_by_number() {
    for (plan, host) in [("::1", "main.test"), ("fail", "[::1]")] {
        let names = Names::new(plan);
        let server = MainServer::new_up();
        let url = format!("http://{host}:{}", pass_on(server.port()));
        let mut fixture = Fixture::with(server, |agent| names.under(agent.health_url(&url)));
        let records = texts(0..20);
        fixture.store(&records);
        fixture.agent.expect_exit(0, DEADLINE);
        fixture.expect_all(&records);
        assert_eq!(names.lookups(), usize::from(host == "main.test"));
        let sent = fixture.server.posts()[0].header("host").map(str::to_owned);
        assert_eq!(sent.as_deref(), url.strip_prefix("http://"));
    }
}

/// A port of `::1` that leads to one of 127.0.0.1; its thread ends with the
/// test's process.
fn pass_on(port: u16) -> u16 {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port of ::1");
    listener.set_nonblocking(true).expect("set O_NONBLOCK");
    let own = listener.local_addr().expect("its number").port();
    std::thread::spawn(move || {
        block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                    let mut server = server.expect("the server");
                    tokio::io::copy_bidirectional(&mut stream, &mut server).await
                });
            }
        });
    });
    own
}
