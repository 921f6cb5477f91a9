//! What holds for answers that say nothing of the record, and for none at all (spec 6).

use std::time::{Duration, SystemTime};

use crate::support::agent::session_file;
use crate::support::fixture::{Fixture, delivered, on_try, texts};
use crate::support::server::{Answer, Ending, MainServer};
use crate::support::wait;

/// Five tries over a minute, and what delays the last of them.
const DIES_FOR: Duration = Duration::from_secs(150);

#[test]
fn a_record_that_the_server_dies_of_does_not_hold_the_others() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.record {
        "poison" => Answer::ok().then(Ending::ResetAfter(0)),
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["good", "poison", "end"]));
    wait::until(DIES_FOR, "the record behind it", || {
        !fixture.tries_of(r#""end""#).is_empty()
    });
    let tries = fixture.tries_of(r#""poison""#);
    let span = tries[tries.len() - 1].at - tries[0].at;
    assert!(tries.len() >= 5, "{} tries", tries.len());
    assert!(span >= Duration::from_secs(60), "{span:?}");
    let aside = fixture.set_aside();
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0]["json_data"], r#""poison""#);
    let broken = fixture.agent.events_named("main_unreachable");
    assert!(broken.iter().all(|event| event["key"] == aside[0]["key"]));
    // The reason of the pause is that of the try.
    let paused = fixture.agent.events_named("main_unhealthy_accepting_logs");
    assert_eq!(paused[0]["error"], broken[0]["error"]);
}

#[test]
fn without_any_key_a_401_says_nothing_of_the_record() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.age {
        // Longer than the patience with a first record.
        age if age < Duration::from_secs(11) => Answer::status(401),
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["one"]));
    // By then a back-off may have half a minute.
    wait::until(DIES_FOR, "its delivery", || {
        fixture
            .tries_of(r#""one""#)
            .iter()
            .any(|one| delivered(one))
    });
    assert_eq!(
        session_file(fixture.folder.path(), "agent-failure.log"),
        None
    );
    assert!(!fixture.agent.events_named("no_api_key").is_empty());
}

/// The server's clock is an hour behind; by the agent's, the date is long over.
#[test]
fn a_date_to_try_again_is_by_the_servers_own_clock() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.number {
        1 => {
            let now = SystemTime::now() - Duration::from_secs(3600);
            let date = |time| httpdate::fmt_http_date(time);
            Answer::status(503)
                .header("Date", &date(now))
                .header("Retry-After", &date(now + Duration::from_secs(4)))
        }
        _ => Answer::ok(),
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["one"]));
    fixture.wait_for(r#""one""#);
    let tries = fixture.tries_of(r#""one""#);
    let waited = tries[1].at - tries[0].at;
    let expected = Duration::from_secs(4)..Duration::from_secs(8);
    assert!(expected.contains(&waited), "{waited:?}");
}

/// Wherever the server quotes them: the parts of what it was sent, decoded.
#[test]
fn user_and_password_of_the_url_show_nowhere() {
    let server = MainServer::new_up();
    on_try(&server, |attempt| match attempt.record {
        "bad" => Answer::status(400).body(b"agentuser, your password is s3cr3t/pw"),
        _ => Answer::ok(),
    });
    let url = server.url();
    let with = url.replace("http://", "http://agentuser:s3cr3t%2Fpw@");
    let fixture = Fixture::with(server, |agent| agent.health_url(&with));
    fixture.store(&texts(["bad", "end"]));
    fixture.wait_for(r#""end""#);
    let aside = fixture.set_aside();
    assert_eq!(aside[0]["answer"], "***, your password is ***");
    for text in [
        session_file(fixture.folder.path(), "agent.log").expect("a log"),
        session_file(fixture.folder.path(), "agent-failure.log").expect("a log"),
        fixture.agent.stdout(),
    ] {
        assert!(!text.contains("s3cr3t"), "{text}");
        assert!(!text.contains("agentuser"), "{text}");
    }
}
