//! Agents in different PID namespaces that share a folder, as containers share a
//! volume: the name of one leads nowhere for the other.

use std::fs;
use std::path::Path;

use crate::name::{DEADLINE, link, send};
use crate::support::agent::{Agent, names_in};
use crate::support::fixture;
use crate::support::server::MainServer;
use crate::support::{temp_folder, wait};

const IN_A_NAMESPACE: &str = "exec unshare --pid --fork --kill-child --mount-proc \
                              sh -c '\"$0\" \"$@\" & wait' \"$0\" \"$@\"";

#[test]
#[ignore = "needs root: a PID namespace"]
fn a_second_agent_in_another_pid_namespace_makes_the_name_a_plain_one() {
    for (first, second) in [
        ("exec \"$0\" \"$@\"", IN_A_NAMESPACE),
        (IN_A_NAMESPACE, "exec \"$0\" \"$@\""),
    ] {
        let folder = temp_folder();
        let base = folder.path();
        let mut server = MainServer::new_down();
        let start = |script| {
            Agent::by_shell(script, base)
                .health_url(&server.url())
                .spawn()
        };
        let mut serving = start(first);
        serving.wait_event("main_unhealthy_accepting_logs", DEADLINE);
        let (_, socket) = link(base).expect("a link");
        let name = base.join("data-nadhi-agent.sock");
        // For the test, which is in the first of the two namespaces.
        assert_eq!(name.exists(), first != IN_A_NAMESPACE);

        let mut other = start(second);
        other.expect_exit(0, DEADLINE);
        assert_eq!(other.events_named("another_agent_serves").len(), 1);
        assert_eq!(
            fs::read_link(&name).expect("a link"),
            Path::new(".agent").join(&socket)
        );
        assert_eq!(names_in(&base.join(".agent")), ["socket", socket.as_str()]);
        send(&name, "1");
        // One more does nothing.
        start(second).expect_exit(0, DEADLINE);
        send(&name, "2");
        server.up();
        serving.wait_exit(DEADLINE);
        assert!(serving.events_named("socket_bound_again").is_empty());
        assert_eq!(server.delivered_json(), [b"1", b"2"]);
        wait::until(DEADLINE, "an empty folder", || {
            names_in(base) == ["session"]
        });
    }
}

/// A name that was taken away, by an agent that leaves, is not made again by another.
#[test]
#[ignore = "needs root: a PID namespace"]
fn the_name_of_an_agent_that_leaves_is_not_made_by_another() {
    let folder = temp_folder();
    let server = MainServer::new_down();
    let serving = fixture::start(folder.path(), &server);
    serving.stop();
    fs::rename(serving.socket(), folder.path().join(".data-nadhi-agent.so")).expect("hide");
    let mut other = Agent::by_shell(IN_A_NAMESPACE, folder.path())
        .health_url(&server.url())
        .spawn();
    other.wait_exit(DEADLINE);
    assert!(
        other.stderr().contains("locked by another process"),
        "{}",
        other.stderr()
    );
    assert!(!serving.socket().is_symlink());
}
