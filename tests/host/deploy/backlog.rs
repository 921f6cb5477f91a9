//! What is left behind, and the cron line and the unit that deliver it.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::deploy::application::Application;
use crate::deploy::{DEADLINE, example, values};
use crate::support::agent::{Agent, names_in};
use crate::support::wait;

const RECORDS: [&str; 3] = ["1", "2", "3"];

/// What looks after a backlog.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Caretaker {
    Cron,
    Unit,
}

impl Caretaker {
    /// Runs its command as it would, whether there is a backlog or not.
    fn run(self, application: &Application) -> Agent {
        let mut command = Command::new("/bin/sh");
        command.env_clear().env("PATH", "/usr/bin:/bin").arg("-c");
        match self {
            Caretaker::Cron => {
                let file = application.fill_in(&example("echopost.cron"));
                let (variables, line) = parse_cron(&file);
                command.arg(line).envs(variables);
            }
            Caretaker::Unit => {
                let unit = application.fill_in(&example("echopost-drain.service"));
                let line = format!("exec {}", values(&unit, "ExecStart")[0]);
                command.arg(line);
            }
        }
        Agent::from_command_line(command, &application.base()).spawn()
    }
}

/// The variables and the command of a file for /etc/cron.d, by crontab(5).
fn parse_cron(file: &str) -> (Vec<(&str, &str)>, &str) {
    let mut lines: Vec<&str> = file
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let line = lines.pop().expect("a line");
    let line = line.strip_prefix("* * * * * ").expect("every minute");
    let command = line.strip_prefix("app ").expect("the user");
    assert!(!command.contains('%'), "cron makes line breaks of them");
    let variables = lines.iter().map(|line| {
        let (name, value) = line.split_once('=').expect("a variable");
        // Without quotes cron takes an empty one for a line of the table, and refuses all.
        let value = value
            .strip_prefix('"')
            .and_then(|end| end.strip_suffix('"'));
        (name, value.expect("quotes"))
    });
    (variables.collect(), command)
}

fn delivers_what_was_left(caretaker: Caretaker, signal: Signal) {
    let mut application = Application::new();
    let mut agent = application.agent();
    application.log(&RECORDS);
    agent.signal(signal);
    agent.wait_exit(DEADLINE);
    assert!(application.base().join("lmdb/data.mdb").exists());

    application.server.up();
    caretaker.run(&application).expect_exit(0, DEADLINE);
    let records = RECORDS.map(str::as_bytes);
    assert_eq!(application.server.delivered_json(), records);
    application.assert_drained();
}

#[test]
fn the_cron_line_delivers_what_a_killed_agent_left() {
    delivers_what_was_left(Caretaker::Cron, Signal::KILL);
}

#[test]
fn the_cron_line_delivers_what_a_stopped_agent_left() {
    delivers_what_was_left(Caretaker::Cron, Signal::TERM);
}

#[test]
fn the_drain_unit_delivers_what_a_killed_agent_left() {
    delivers_what_was_left(Caretaker::Unit, Signal::KILL);
}

#[test]
fn the_drain_unit_delivers_what_a_stopped_agent_left() {
    delivers_what_was_left(Caretaker::Unit, Signal::TERM);
}

#[test]
fn beside_a_live_agent_both_leave_at_once() {
    for caretaker in [Caretaker::Cron, Caretaker::Unit] {
        let mut application = Application::new();
        let mut agent = application.agent();
        application.log(&RECORDS[..1]);
        let names = names_in(&application.base());
        caretaker.run(&application).expect_exit(0, DEADLINE);
        assert!(agent.is_running());
        assert_eq!(names_in(&application.base()), names, "{caretaker:?}");

        application.log(&RECORDS[1..]);
        application.server.up();
        agent.expect_exit(0, DEADLINE);
        let records = RECORDS.map(str::as_bytes);
        assert_eq!(application.server.delivered_json(), records);
    }
}

#[test]
fn the_cron_line_starts_no_agent_where_nothing_was_left() {
    let application = Application::new();
    let store = application.base().join("lmdb");
    let idle = |what: &str| {
        let mut line = Caretaker::Cron.run(&application);
        line.wait_exit(DEADLINE);
        assert_eq!(line.stderr(), "", "cron would send a letter: {what}");
        let names = names_in(&application.base());
        assert!(!names.contains(&"session".to_owned()), "{what}: {names:?}");
    };
    idle("no store");
    fs::create_dir(&store).expect("a folder");
    fs::write(store.join("data.mdb.damaged-2026-01-02T15-04-05Z"), "").expect("a file");
    idle("one that no agent reads again");
    fs::remove_dir_all(application.base()).expect("remove the folder");
    let mut line = Caretaker::Cron.run(&application);
    line.wait_exit(DEADLINE);
    assert_eq!(line.stderr(), "", "no folder");
}

#[test]
fn the_cron_line_knows_both_names_of_a_backlog() {
    for name in ["data.mdb", "data.mdb.salvage-2026-01-02T15-04-05Z"] {
        let application = Application::new();
        let store = application.base().join("lmdb");
        fs::create_dir(&store).expect("a folder");
        fs::write(store.join(name), "").expect("a file");
        let _agent = Caretaker::Cron.run(&application);
        wait::until(DEADLINE, name, || {
            names_in(&application.base()).contains(&"session".to_owned())
        });
    }
}
