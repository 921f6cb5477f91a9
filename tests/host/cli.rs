//! The command line (spec 1), from outside: what is accepted, what is refused,
//! and that a refusal leaves no trace.

use crate::support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use support::agent::{Agent, names_in};
use support::sender::{Sender, block_on};
use support::server::MainServer;
use support::{temp_folder, wait};

const DEADLINE: Duration = Duration::from_secs(20);

/// Runs to the end; returns stdout and stderr. `cwd` must stay as empty as it is.
fn refused<A: AsRef<OsStr>>(cwd: &Path, args: &[A], code: i32) -> String {
    let before = names_in(cwd);
    let mut agent = Agent::with_arguments(cwd, cwd, args).spawn();
    agent.expect_exit(code, DEADLINE);
    let stderr = agent.stderr();
    assert_eq!(stderr.lines().count(), 1, "{stderr:?}");
    assert!(stderr.ends_with('\n') && stderr.starts_with("echopost: "));
    assert_eq!(agent.stdout(), "");
    assert_eq!(names_in(cwd), before);
    stderr
}

#[test]
fn a_wrong_command_line_is_one_line_that_names_the_flag() {
    let cwd = temp_folder();
    for (args, flag) in [
        (&["-bogus"][..], "-bogus"),
        (&["--bogus=1"], "--bogus"),
        (&["-bo\ngus"], "-bo?gus"),
        (&["--=1"], "-- is"),
        (&["-"], "- is"),
        (&["positional"], "argument 1 is not a flag"),
        (&["-standby", ""], "argument 2 is not a flag"),
        (&["-datanadhi", "d", "-x"], "-x"),
        (&["-datanadhi"], "-datanadhi"),
        (&["--datanadhi"], "-datanadhi"),
        (&["-datanadhi="], "-datanadhi"),
        (&["-api-key"], "-api-key"),
        (&["-datanadhi", "d", "-api-key"], "-api-key"),
        (&["-api-key=a\nb"], "-api-key"),
        (&["-health-url"], "-health-url"),
        (&["-health-url="], "-health-url"),
        (&["-health-url", "ftp://host"], "-health-url"),
        (&["-health-url", "host:5000"], "-health-url"),
        (&["-health-url", "http://"], "-health-url"),
        (&["-health-url", "http:///path"], "-health-url"),
        (&["-health-url", "http://:5000"], "-health-url"),
        (&["-health-url", "http://host:66000"], "-health-url"),
        (&["-health-url", "http://host/?a=1"], "-health-url"),
        (&["-health-url", "http://host?a=1"], "-health-url"),
        (&["-health-url", "http://host/#a"], "-health-url"),
        (&["-health-url", "http://ho st"], "-health-url"),
        (&["-standby=perhaps"], "-standby"),
        (&["-version=2"], "-version"),
    ] {
        let stderr = refused(cwd.path(), args, 64);
        assert!(stderr.contains(flag), "{args:?}: {stderr}");
    }
    let url = OsString::from_vec(b"http://\xff".to_vec());
    let stderr = refused(cwd.path(), &["-health-url".into(), url], 64);
    assert!(stderr.contains("-health-url"), "{stderr}");
    // A password does not show.
    let args = ["-health-url", "http://user:secret@host:x"];
    assert!(!refused(cwd.path(), &args, 64).contains("secret"));
    let not_utf8 = OsString::from_vec(b"-name\xff=secret".to_vec());
    let stderr = refused(cwd.path(), &[not_utf8], 64);
    assert!(
        stderr.contains("-name") && !stderr.contains("secret"),
        "{stderr}"
    );
}

#[test]
fn an_argument_that_may_be_a_key_is_not_repeated() {
    let cwd = temp_folder();
    for (args, shown) in [
        (&["-api-key=", "secret"][..], "argument 2 is not a flag"),
        (
            &["-api-key", "k", "secret", "-x"],
            "argument 3 is not a flag",
        ),
        (&["-api-key=", "sec=ret"], "argument 2 is not a flag"),
        (&["-api-key=", "-secret"], "argument 2 is not a flag"),
        (&["-api-key=", "sec\nret"], "argument 2 is not a flag"),
        (
            &["-api-key=secret", "-unknown=secret"],
            "-unknown is not a flag",
        ),
        (
            &["-api-key=secret", "-unknown", "secret"],
            "-unknown is not a flag",
        ),
        (&["--api_key=secret"], "--api_key is not a flag"),
        (&["-standby=secret"], "-standby is on or off"),
        (
            &["-api-key=secret", "-health-url"],
            "-health-url needs a value",
        ),
        (&["-api-key=secret\n"], "-api-key"),
    ] {
        let stderr = refused(cwd.path(), args, 64);
        assert!(stderr.contains(shown), "{args:?}: {stderr}");
        assert!(
            !stderr.contains("sec") && !stderr.contains("ret"),
            "{stderr}"
        );
    }
    let not_utf8 = OsString::from_vec(b"secret\xff".to_vec());
    let stderr = refused(cwd.path(), &["-api-key=".into(), not_utf8], 64);
    assert!(stderr.contains("argument 2 is not a flag"), "{stderr}");
    assert!(!stderr.contains("secret"), "{stderr}");
}

#[test]
#[cfg(not(feature = "tls"))]
fn https_without_tls_is_refused_and_says_why() {
    let cwd = temp_folder();
    let stderr = refused(cwd.path(), &["-health-url", "https://host"], 64);
    let why = "-health-url: https needs the feature tls, which this build lacks";
    assert!(stderr.contains(why), "{stderr}");
}

#[test]
fn a_folder_that_cannot_be_is_one_line_that_names_it() {
    let cwd = temp_folder();
    fs::write(cwd.path().join("file"), "content").expect("write");
    let long = "x".repeat(100);
    let longest = 107 - "/data-nadhi-agent.sock".len();
    let too_long = "y".repeat(longest + 1);
    for (folder, needle) in [
        (long.as_str(), "a socket path may have"),
        (&too_long, "a socket path may have"),
        ("file", "folder file: "),
        ("file/below", "folder file/below: "),
        ("file/be\nlow", "folder file/be?low: "),
        ("/proc/nothing/here", "folder /proc/nothing/here: "),
    ] {
        let stderr = refused(cwd.path(), &["-datanadhi", folder], 73);
        assert!(stderr.contains(needle), "{folder}: {stderr}");
        assert!(stderr.contains("-datanadhi"), "no remedy: {stderr}");
    }
    assert_eq!(
        fs::read(cwd.path().join("file")).expect("the file"),
        b"content"
    );
    if cfg!(target_os = "linux") {
        // The longest path that is not refused can be bound.
        let folder = "z".repeat(longest);
        let path = cwd.path().join(&folder);
        let server = MainServer::new_down();
        let args = ["-datanadhi", &folder, "-health-url", &server.url()];
        let agent = Agent::with_arguments(cwd.path(), &path, &args).spawn();
        // From outside it is longer than any client could connect to.
        wait::until(DEADLINE, "a socket", || agent.socket().exists());
    }
}

#[test]
fn version_and_help_are_pages_of_their_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let version = fs::read_to_string(root.join("VERSION")).expect("VERSION");
    assert_eq!(version, concat!("v", env!("CARGO_PKG_VERSION"), "\n"));
    let cwd = temp_folder();
    let print = |args: &[&str]| {
        let mut agent = Agent::with_arguments(cwd.path(), cwd.path(), args).spawn();
        agent.expect_exit(0, DEADLINE);
        assert_eq!(agent.stderr(), "");
        assert_eq!(names_in(cwd.path()), Vec::<String>::new());
        agent.stdout()
    };
    for args in [&["--version"][..], &["-version"], &["-version=true"]] {
        assert_eq!(print(args), format!("echopost {version}"));
    }
    let help = print(&["--help"]);
    for args in [&["-help"][..], &["-h"], &["-standby", "--help"]] {
        assert_eq!(print(args), help);
    }
    assert!(help.lines().count() <= 24);
    assert!(help.lines().all(|line| line.chars().count() <= 80));
    let named = ["DATANADHI_API_KEY", "-datanadhi", "-api-key", "-health-url"];
    let also = ["-standby", "--version", "--help", "visible", "process"];
    for word in named.iter().chain(&also) {
        assert!(help.contains(word), "{word}");
    }
}

/// The folder, the key and the URL that an agent with these arguments works with.
fn works_with<A: AsRef<OsStr>>(cwd: &Path, folder: &Path, args: &[A], key: &str, standby: bool) {
    let server = MainServer::new_up();
    let mut all: Vec<OsString> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
    for arg in &mut all {
        let text = arg.as_bytes();
        if text.ends_with(b"URL") {
            let start = &text[..text.len() - 3];
            *arg = OsString::from_vec([start, server.url().as_bytes(), b"/base/"].concat());
        }
    }
    let mut agent = Agent::with_arguments(cwd, folder, &all)
        .env("DATANADHI_API_KEY", "from-env")
        .spawn();
    agent.wait_socket();
    let started = agent.wait_event("agent_started", DEADLINE);
    assert_eq!(started["standby"], standby, "{all:?}");
    assert_eq!(started["health_url"], format!("{}/base", server.url()));
    let sent = block_on(Sender::reconnecting(&agent.socket()).send("1", &[], ""));
    assert!(sent.expect("an answer").success);
    server.wait_delivered(1, DEADLINE);
    let post = &server.posts()[0];
    assert_eq!(post.path, "/base/log");
    assert_eq!(post.header("datanadhi-api-key"), Some(key), "{all:?}");
}

#[test]
fn every_spelling_of_every_flag_is_the_same() {
    let cwd = temp_folder();
    let folder = cwd.path().join("d");
    for (args, key, standby) in [
        (
            &["-datanadhi", "d", "-api-key", "k", "-health-url", "URL"][..],
            "k",
            false,
        ),
        (
            &["--datanadhi", "d", "--api-key", "k", "--health-url", "URL"],
            "k",
            false,
        ),
        (
            &["-datanadhi=d", "-api-key=k", "-health-url=URL", "-standby"],
            "k",
            true,
        ),
        (
            &[
                "--datanadhi=d",
                "--api-key=k=v",
                "--health-url=URL",
                "--standby",
            ],
            "k=v",
            true,
        ),
        (
            &["-datanadhi=./d/", "-health-url=URL", "-standby=false"],
            "from-env",
            false,
        ),
        // Empty is a value too, and not the environment's.
        (&["-datanadhi=d", "-health-url=URL", "-api-key="], "", false),
        (
            &["-datanadhi=d", "-health-url=URL", "-api-key", ""],
            "",
            false,
        ),
        // What follows a flag is its value, whatever it looks like.
        (
            &["-datanadhi", "d", "-api-key", "-x=y", "-health-url", "URL"],
            "-x=y",
            false,
        ),
        (
            &["-api-key", "--help", "-datanadhi", "d", "-health-url=URL"],
            "--help",
            false,
        ),
        // The last one counts.
        (
            &[
                "-datanadhi=other",
                "-api-key=1",
                "-health-url=http://127.0.0.1:9",
                "-standby=true",
                "-datanadhi",
                "d",
                "--api-key",
                "2",
                "-health-url=URL",
                "-standby=false",
            ],
            "2",
            false,
        ),
        (
            &[
                "-datanadhi=d",
                "-health-url=URL",
                "-standby",
                "-standby=false",
                "-standby",
                "--standby=true",
            ],
            "from-env",
            true,
        ),
    ] {
        works_with(cwd.path(), &folder, args, key, standby);
        assert_eq!(names_in(cwd.path()), ["d"]);
    }
}

#[test]
fn a_folder_may_have_any_name() {
    let cwd = temp_folder();
    let names: [&[u8]; 6] = [
        b"two words",
        "Größe-日本".as_bytes(),
        b"bytes-\xff\xfe",
        b"-dash",
        b"a=b",
        b"deep/er/still",
    ];
    for name in names {
        let name = OsStr::from_bytes(name);
        for args in [
            vec![OsString::from("-datanadhi"), name.to_owned()],
            vec![OsString::from_vec(
                [b"--datanadhi=", name.as_bytes()].concat(),
            )],
        ] {
            let args = [args, vec!["-health-url".into(), "URL".into()]].concat();
            works_with(cwd.path(), &cwd.path().join(name), &args, "from-env", false);
        }
    }
}

#[test]
fn without_a_flag_the_folder_is_below_the_working_directory() {
    let cwd = temp_folder();
    works_with(
        cwd.path(),
        &cwd.path().join(".datanadhi"),
        &["-health-url=URL"],
        "from-env",
        false,
    );
    let found = fs::metadata(cwd.path().join(".datanadhi")).expect("the folder");
    assert_eq!(found.permissions().mode() & 0o777, 0o700);
}
