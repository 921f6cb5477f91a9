//! The units, read by systemd itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::deploy::application::Application;
use crate::deploy::{example, values};
use crate::support::temp_folder;

const UNITS: [&str; 4] = [
    "echopost-drain.service",
    "echopost-drain.timer",
    "echopost.service",
    "echopost.socket",
];
const SERVICES: [&str; 2] = [UNITS[0], UNITS[2]];

#[test]
#[ignore = "needs systemd-analyze"]
fn systemd_has_nothing_against_the_units() {
    let mut analyze = Command::new("systemd-analyze");
    let application = Application::new();
    let units = temp_folder();
    analyze.args(["verify", "--man=no"]);
    for name in UNITS {
        let path = units.path().join(name);
        fs::write(&path, application.fill_in(&example(name))).expect("write the unit");
        analyze.arg(path);
    }
    let output = analyze.output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    // It tells of the machine's own units, too, and a warning is no failure.
    let folder = units.path().to_str().expect("UTF-8");
    let about = |line: &&str| line.contains(folder) || line.contains("echopost");
    let complaints: Vec<&str> = said.lines().filter(about).collect();
    assert!(complaints.is_empty(), "{said}");
    assert!(output.status.success(), "{said}");
}

/// Whether systemd would start the drain unit.
fn has_backlog(application: &Application) -> bool {
    let unit = application.fill_in(&example("echopost-drain.service"));
    let mut analyze = Command::new("systemd-analyze");
    analyze.arg("condition");
    let conditions = unit.lines().filter(|line| line.starts_with("Condition"));
    let output = analyze.args(conditions).output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Conditions "), "{said}");
    output.status.success()
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_drain_units_conditions_know_both_names_of_a_backlog() {
    for (name, expected) in [
        ("", false),
        ("data.mdb.damaged-2026-01-02T15-04-05Z", false),
        ("data.mdb", true),
        ("data.mdb.salvage-2026-01-02T15-04-05Z", true),
    ] {
        let application = Application::new();
        let store = application.base().join("lmdb");
        fs::create_dir(&store).expect("a folder");
        if !name.is_empty() {
            fs::write(store.join(name), "").expect("a file");
        }
        assert_eq!(has_backlog(&application), expected, "{name:?}");
    }
}

#[test]
fn the_services_run_the_sdks_executable_on_its_folder_as_the_applications_user() {
    let base = Path::new("/srv/app/.datanadhi/echopost");
    for name in SERVICES {
        let unit = example(name);
        let words: Vec<&str> = values(&unit, "ExecStart")[0].split(' ').collect();
        assert_eq!(Path::new(words[0]), base.join("echopost"), "{name}");
        assert_eq!(words[1], "-datanadhi", "{name}");
        assert_eq!(Path::new(words[2]), base, "{name}");
        assert_eq!(values(&unit, "User"), ["app"], "{name}");
        assert_eq!(values(&unit, "Group"), ["app"], "{name}");
        assert_eq!(values(&unit, "MemoryMax"), ["64M"], "{name}");
        // Where one of these is, no other process may follow the socket's name.
        for option in ["DynamicUser", "PrivateUsers", "PrivatePIDs"] {
            assert!(values(&unit, option).is_empty(), "{name}: {option}");
        }
        let grace: u64 = values(&unit, "TimeoutStopSec")[0].parse().expect("seconds");
        assert!(grace >= 3, "{name}");
    }
    let socket = example("echopost.socket");
    let listens = values(&socket, "ListenStream")[0];
    assert_eq!(Path::new(listens), base.join("data-nadhi-agent.sock"));
    assert_eq!(values(&socket, "RemoveOnStop"), ["yes"]);
}
