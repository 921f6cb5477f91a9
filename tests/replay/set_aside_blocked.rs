//! While `agent-failure.log` cannot be written, a record that is to be set
//! aside stays where it is, and the server is not flooded.

use std::path::PathBuf;
use std::thread::scope;
use std::time::Duration;

use crate::support::fixture::{DEADLINE, Fixture, delivered, on_try, texts};
use crate::support::server::{Answer, MainServer};
use crate::support::{store, wait};

fn session(fixture: &Fixture) -> PathBuf {
    std::fs::read_dir(fixture.folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.to_string_lossy().contains("/session-"))
        .expect("a session folder")
}

#[test]
fn a_record_stays_until_its_line_is_on_disk() {
    scope(|scope| {
        for status in [404, 500] {
            scope.spawn(move || blocked(status));
        }
    });
}

fn blocked(status: u16) {
    let mut fixture = Fixture::down();
    on_try(&fixture.server, move |attempt| match attempt.record {
        "bad" => Answer::status(status),
        _ => Answer::ok(),
    });
    let records = texts(["good", "bad", "end"]);
    fixture.store(&records);
    // A folder of that name keeps even root from writing.
    let log = session(&fixture).join("agent-failure.log");
    std::fs::create_dir(&log).expect("a folder in the log's place");
    fixture.server.up();
    fixture.agent.wait_event("set_aside_failed", DEADLINE);

    // From here on every try ends in a log that cannot be written.
    let tries = || fixture.tries_of(&records[1]);
    let before = tries().len();
    let first = tries()[before - 1].at;
    let window = Duration::from_secs(3);
    wait::until(DEADLINE, "the window to pass", || first.elapsed() > window);
    let in_window = tries()
        .iter()
        .filter(|post| post.at > first && post.at < first + window)
        .count();
    assert!(in_window < 15, "{status}: {in_window} tries in {window:?}");
    fixture.until("another try", |_| tries().len() > before);
    assert!(fixture.tries_of(&records[2]).is_empty(), "{status}: order");

    fixture.agent.sigkill();
    let left = store::records(fixture.folder.path());
    let left: Vec<_> = left
        .iter()
        .map(|(_, record)| &record.json_data[..])
        .collect();
    assert!(
        left.ends_with(&[records[1].as_bytes(), records[2].as_bytes()]),
        "{status}"
    );

    // The next life has a session of its own, where the log can be written.
    fixture.restart();
    fixture.wait_for(&records[2]);
    let end = fixture.tries_of(&records[2]);
    assert!(delivered(&end[0]));
    let event = fixture.agent.wait_event("record_set_aside", DEADLINE);
    assert_eq!(event["status"], status);
    fixture.agent.expect_exit(0, DEADLINE);
}

#[test]
fn the_log_is_written_as_soon_as_it_can_be() {
    let mut fixture = Fixture::down();
    on_try(&fixture.server, |attempt| match attempt.record {
        "bad" => Answer::status(422),
        _ => Answer::ok(),
    });
    fixture.store(&texts(["bad", "end"]));
    let log = session(&fixture).join("agent-failure.log");
    std::fs::create_dir(&log).expect("a folder in the log's place");
    fixture.server.up();
    fixture.until("two tries", |fixture| {
        fixture.tries_of("\"bad\"").len() >= 2
    });
    assert_eq!(fixture.agent.events_named("record_set_aside").len(), 0);
    std::fs::remove_dir(&log).expect("remove the folder");
    fixture.wait_for("\"end\"");
    let aside = fixture.set_aside();
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0]["json_data"], "\"bad\"");
}

#[test]
fn a_log_that_was_removed_is_begun_anew() {
    let server = MainServer::new_up();
    server.on_post(|_| Answer::status(422));
    // In standby, so that it does not leave between the two.
    let fixture = Fixture::standby(server);
    for record in ["one", "two"] {
        fixture.store(&texts([record]));
        // The line before stands here, too, where its log was removed before its record
        // was deleted (spec 2).
        fixture.until("its line", |fixture| {
            let aside = fixture.set_aside();
            let last = aside.last().map(|line| line["json_data"].clone());
            last.is_some_and(|json| json == texts([record])[0])
        });
        let log = session(&fixture).join("agent-failure.log");
        std::fs::remove_file(log).expect("remove the log");
    }
}

/// Any user that may write to the folder could have put it there.
#[test]
fn a_link_in_place_of_the_sessions_folder_is_not_followed() {
    let mut fixture = Fixture::down();
    on_try(&fixture.server, |_| Answer::status(422));
    fixture.store(&texts(["bad"]));
    let elsewhere = crate::support::temp_folder();
    let place = session(&fixture);
    let moved = elsewhere.path().join("session");
    std::fs::rename(&place, &moved).expect("move the session");
    let victim = elsewhere.path().join("victim");
    std::fs::create_dir(&victim).expect("a folder");
    std::os::unix::fs::symlink(&victim, &place).expect("a link");
    fixture.server.up();
    fixture.agent.wait_event("set_aside_failed", DEADLINE);
    assert_eq!(std::fs::read_dir(&victim).expect("the folder").count(), 0);
    std::fs::remove_file(&place).expect("remove the link");
    let log = place.join("agent-failure.log");
    fixture.until("a line", |_| {
        std::fs::read(&log).is_ok_and(|log| log.ends_with(b"\n"))
    });
}
