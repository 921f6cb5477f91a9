//! What an operator does wrong at night: one line that names it, and nothing sent.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::send_again::programs::{SCRIPT, Said, said};
use crate::send_again::{line, venv};
use crate::support::temp_folder;

fn resend(arguments: &[&Path]) -> Said {
    let mut command = Command::new(venv::python());
    command.arg(SCRIPT).args(arguments);
    said(command.env_remove("OWN_API_KEY"))
}

/// One line, no traceback, and no file left.
fn assert_told(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    assert_eq!(said.all.lines().count(), 1, "{said:?}");
    for word in words {
        assert!(said.all.contains(word), "{word}: {said:?}");
    }
}

#[test]
fn with_any_but_two_arguments_it_says_how_and_begins_with_the_key() {
    let log = Path::new("agent-failure.log");
    for arguments in [&[][..], &[log], &[log, log, log]] {
        let said = resend(arguments);
        assert_told(&said, 2, &["SOCKET LOG", "one log"]);
        assert!(said.all.starts_with("usage: OWN_API_KEY="), "{said:?}");
    }
}

#[test]
fn a_wrong_path_is_named() {
    let folder = temp_folder();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| {
        fs::write(path(name), text).expect("a file");
        path(name)
    };
    let (socket, plain) = (path("socket"), write("plain", ""));
    let log = write("agent-failure.log", &line("{}", 1));
    let events = write(
        "agent.log",
        "{\"time\":\"…\",\"event\":\"agent_started\"}\n",
    );
    let older = line("{}", 1).replace("\"intact\":true", "\"whole\":true");
    let older = write("older.log", &older);
    let own = line("{}", 1).replace("\"api_key_own\":false", "\"api_key_own\":true");
    let own = write("own.log", &own);
    let mended = write("mended.log", &line("{}", 1));
    write("mended.log.failed", "");
    // Nothing accepts there; it is not asked before all else is right.
    let _listener = UnixListener::bind(&socket).expect("bind");
    let nothing = "Nothing was sent";
    for (arguments, words) in [
        (
            [&socket, &path("none")],
            &["/none: No such file", nothing][..],
        ),
        (
            [&socket, &folder.path().to_owned()],
            &[": Is a directory", nothing],
        ),
        (
            [&socket, &events],
            &["agent.log: ", "takes an agent-failure.log", nothing],
        ),
        (
            [&socket, &older],
            &["older.log: ", "intact is missing", nothing],
        ),
        (
            [&socket, &own],
            &["1 of 1 records", "set OWN_API_KEY", nothing],
        ),
        (
            [&socket, &mended],
            &["mended.log.failed is there already", nothing],
        ),
        (
            [&plain, &log],
            &["/plain is no socket: it comes first", nothing],
        ),
        (
            [&path("none"), &log],
            &["/none: no agent answers: start one", nothing],
        ),
    ] {
        let said = resend(&arguments.map(|path| path.as_path()));
        assert_told(&said, 1, words);
    }
    // One of no use, at which no agent listens any more.
    drop(_listener);
    let said = resend(&[&socket, &log]);
    assert_told(&said, 1, &["/socket: no agent answers", nothing]);
    assert!(!path("agent-failure.log.failed").exists());
}

#[test]
fn a_python_without_grpcio_is_named() {
    let folder = temp_folder();
    let (socket, log) = (folder.path().join("socket"), folder.path().join("log"));
    let _listener = UnixListener::bind(&socket).expect("bind");
    fs::write(&log, line("{}", 1)).expect("a log");
    let mut command = Command::new("python3");
    // Neither the machine's packages nor the user's.
    command.args(["-I", "-S", SCRIPT]).args([&socket, &log]);
    let said = said(&mut command);
    assert_told(
        &said,
        1,
        &["grpcio is missing", "the Python that has the SDK"],
    );
}
