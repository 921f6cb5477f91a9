//! Where some client could not follow the link, the name is the socket itself.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::name::{DEADLINE, STRANGER, link, send};
use crate::support::agent::{Agent, Builder};
use crate::support::fixture;
use crate::support::server::MainServer;
use crate::support::{copy_executable, temp_folder};

/// Runs an agent on `base` and tells whether its name is a link, once it has taken a
/// record by it.
fn is_linked(builder: Builder, base: &Path, what: &str) -> bool {
    let server = MainServer::new_down();
    let mut agent = builder.health_url(&server.url()).spawn();
    agent.wait_socket();
    println!("{what}");
    send(&base.join("data-nadhi-agent.sock"), "1");
    let linked = link(base).is_some();
    agent.signal(rustix::process::Signal::KILL);
    linked
}

/// A shell that runs the agent in namespaces of its own.
fn unshared(script: &str, base: &Path) -> Builder {
    Agent::by_shell(&format!("exec unshare {script}"), base)
}

#[test]
fn the_link_is_shown_where_its_own_user_alone_may_send() {
    for mode in [0o700, 0o750, 0o755] {
        let folder = temp_folder();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).expect("chmod");
        let server = MainServer::new_down();
        let agent = fixture::start(folder.path(), &server);
        assert!(link(folder.path()).is_some(), "{mode:o}");
        let agent_folder = fs::metadata(folder.path().join(".agent")).expect(".agent");
        assert_eq!(agent_folder.mode() & 0o7777, 0o700);
        let socket = fs::metadata(agent.socket()).expect("the socket");
        assert_eq!(socket.mode() & 0o7777, 0o600);
        // A client has no fewer capabilities than the agent.
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let line = format!("{set}:\t0000000000000000");
            assert!(status.lines().any(|found| found == line), "{status}");
        }
        agent.send("1");
    }
}

#[test]
fn a_folder_open_to_its_group_or_to_others_has_a_plain_socket() {
    for mode in [0o770, 0o777, 0o1777, 0o720, 0o702] {
        let folder = temp_folder();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).expect("chmod");
        let builder = Agent::builder(folder.path());
        assert!(!is_linked(builder, folder.path(), &format!("{mode:o}")));
    }
}

#[test]
#[ignore = "needs root: another group"]
fn a_folder_of_a_group_that_is_not_the_agents_has_a_plain_socket() {
    let folder = temp_folder();
    chown(folder.path(), None, Some(STRANGER)).expect("chgrp");
    let builder = Agent::builder(folder.path());
    assert!(!is_linked(builder, folder.path(), "another group"));
}

#[test]
fn standby_has_a_plain_socket() {
    let folder = temp_folder();
    let builder = Agent::builder(folder.path()).arg("-standby");
    assert!(!is_linked(builder, folder.path(), "standby"));
}

#[test]
#[ignore = "needs root: namespaces"]
fn pid_1_and_an_agent_without_proc_have_a_plain_socket() {
    for script in [
        "--pid --fork --kill-child --mount-proc \"$0\" \"$@\"",
        "--pid --fork --kill-child \"$0\" \"$@\"",
        "--mount sh -c 'mount -t tmpfs none /proc && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
    ] {
        let folder = temp_folder();
        let builder = unshared(script, folder.path());
        assert!(!is_linked(builder, folder.path(), script));
    }
}

/// The mount is the agent's own: the test looks at it through the agent's root.
#[test]
#[ignore = "needs root: it mounts"]
fn where_links_are_not_followed_the_socket_is_plain() {
    for (options, linked) in [("mode=0700,nosymfollow", false), ("mode=0700", true)] {
        let folder = temp_folder();
        let script = format!(
            "--mount sh -c 'mount -t tmpfs -o {options} none \"{}\" && exec \"$0\" \"$@\"' \
             \"$0\" \"$@\"",
            folder.path().display()
        );
        let server = MainServer::new_down();
        let agent = unshared(&script, folder.path())
            .health_url(&server.url())
            .spawn();
        agent.wait_event("agent_started", DEADLINE);
        let base = format!("/proc/{}/root{}", agent.pid(), folder.path().display());
        let base = Path::new(&base);
        let name = base.join("data-nadhi-agent.sock");
        let kind = fs::symlink_metadata(&name).expect("the name").file_type();
        assert_eq!(
            (kind.is_symlink(), kind.is_socket()),
            (linked, !linked),
            "{options}"
        );
        send(&name, "1");
    }
}

/// The agent's executable where every user finds it.
fn executable_for_all(folder: &Path) -> String {
    fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("chmod");
    let executable = folder.join("echopost");
    copy_executable(Agent::executable().as_ref(), &executable);
    executable.to_str().expect("UTF-8").to_owned()
}

#[test]
#[ignore = "needs root: another user"]
fn another_user_s_agent_has_a_link_unless_it_is_not_dumpable() {
    let tools = temp_folder();
    let executable = executable_for_all(tools.path());
    // Where neither the limit of cores nor what they hold can be set, it makes itself
    // not dumpable.
    let read_only = "ulimit -Hc 0; exec unshare --mount sh -c \
                     'mount -o remount,bind,ro /proc && exec \"$@\"' sh";
    for (start, linked) in [
        ("exec", true),
        ("ulimit -Hc 0; exec", true),
        (read_only, false),
    ] {
        let folder = temp_folder();
        chown(folder.path(), Some(STRANGER), Some(STRANGER)).expect("chown");
        let script = format!(
            "{start} setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups \
             \"{executable}\" \"$@\""
        );
        let builder = Agent::by_shell(&script, folder.path());
        // By root, which has more capabilities than it takes.
        assert_eq!(is_linked(builder, folder.path(), &script), linked);
    }
}

#[test]
fn what_is_in_the_place_of_the_folder_is_left_alone() {
    expect_left_alone(&["a file", "a link"]);
}

#[test]
#[ignore = "needs root: another user"]
fn another_user_s_folder_in_the_place_of_the_folder_is_left_alone() {
    expect_left_alone(&["another user's folder"]);
}

fn expect_left_alone(places: &[&str]) {
    let elsewhere = temp_folder();
    fs::write(elsewhere.path().join("mine"), "mine").expect("a file");
    for &what in places {
        let folder = temp_folder();
        let place = folder.path().join(".agent");
        match what {
            "a file" => fs::write(&place, "mine").expect("a file"),
            "a link" => symlink(elsewhere.path(), &place).expect("a link"),
            _ => {
                fs::create_dir(&place).expect("a folder");
                fs::write(place.join("mine"), "mine").expect("a file");
                chown(&place, Some(STRANGER), None).expect("chown");
            }
        }
        let server = MainServer::new_down();
        let mut agent = fixture::start(folder.path(), &server);
        let name = fs::symlink_metadata(agent.socket()).expect("the name");
        assert!(name.file_type().is_socket(), "{what}");
        agent.send("1");
        agent.signal(rustix::process::Signal::TERM);
        agent.expect_exit(0, DEADLINE);
        let kept = match what {
            "a file" => place,
            "a link" => elsewhere.path().join("mine"),
            _ => place.join("mine"),
        };
        assert_eq!(fs::read_to_string(kept).expect("the file"), "mine");
    }
}
