//! The probe (spec 5.2) as the server sees it.

use std::thread::scope;
use std::time::{Duration, Instant};

use crate::support::agent::{Agent, session_file};
use crate::support::fixture::{DEADLINE, Fixture, side_by_side, texts};
use crate::support::server::{Answer, MainServer};
use crate::support::{temp_folder, wait};

/// The request lines up to the first record; a probe before leaving may follow.
fn up_to_the_record(fixture: &Fixture) -> Vec<String> {
    fixture.wait_for(r#""a""#);
    let requests = fixture.server.requests();
    let posted = requests.iter().position(|request| request.method == "POST");
    requests[..=posted.expect("a record")]
        .iter()
        .map(|request| format!("{} {}", request.method, request.path))
        .collect()
}

#[test]
fn the_prefix_is_kept_and_credentials_are_sent_and_never_shown() {
    let server = MainServer::new_up();
    let folder = temp_folder();
    let url = format!(
        "http://us%20er:p%40ss:x@127.0.0.1:{}/pre/fix/",
        server.port()
    );
    let mut agent = Agent::builder(folder.path()).health_url(&url).spawn();
    agent.wait_socket();
    let fixture = Fixture {
        server,
        agent,
        folder,
    };
    fixture.store(&texts(["a"]));
    let seen = up_to_the_record(&fixture);
    assert_eq!(seen, ["GET /pre/fix/", "POST /pre/fix/log"]);
    for request in fixture.server.requests() {
        // base64 of `us er:p@ss:x`.
        let basic = "Basic dXMgZXI6cEBzczp4";
        assert_eq!(request.header("authorization"), Some(basic));
    }
    let log = session_file(fixture.folder.path(), "agent.log").expect("agent.log");
    for text in [log, fixture.agent.stdout(), fixture.agent.stderr()] {
        for secret in ["p%40ss", "p@ss", "us%20er", "us er", "dXMgZXI6"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn any_2xx_is_healthy_also_behind_three_redirects_on_the_same_host() {
    side_by_side([[301, 307, 302], [303, 308, 301]], |statuses| {
        let server = MainServer::new_up();
        let base = server.url();
        server.on_get(move |message| {
            let to =
                |at: usize, target: &str| Answer::status(statuses[at]).header("Location", target);
            match message.path.as_str() {
                "/" => to(0, &format!("{base}/one")),
                "/one" => to(1, "/sub/two"),
                "/sub/two" => to(2, "/three?x=1"),
                // Whatever it says of another place.
                "/three?x=1" => Answer::status(204).header("Location", "/four"),
                _ => Answer::status(404),
            }
        });
        let fixture = Fixture::new(server);
        fixture.store(&texts(["a"]));
        let seen = up_to_the_record(&fixture);
        let expected = [
            "GET /",
            "GET /one",
            "GET /sub/two",
            "GET /three?x=1",
            "POST /log",
        ];
        assert_eq!(seen, expected);
        // It serves the records, too.
        assert_eq!(fixture.server.connections(), 1);
    });
}

#[test]
fn what_is_no_2xx_is_named_and_nothing_is_followed_elsewhere() {
    let elsewhere = MainServer::new_up();
    let port = elsewhere.port();
    let (plain, login) = (
        format!("http://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
    );
    let with_user = plain.replace("//", "//u:p@");
    let away = |shown: &str| format!("answered 301 to another server, not followed: {shown}");
    let slow = Answer::status(302).after(Duration::from_secs(2));
    let cases = [
        (Answer::status(300), "/a", "answered 300".to_owned()),
        (Answer::status(304), "/", "answered 304".into()),
        (Answer::status(301), "", "answered 301".into()),
        (Answer::status(404), "", "answered 404".into()),
        (Answer::status(503), "/", "answered 503".into()),
        (Answer::status(302), "/", "more than 3 redirects".into()),
        // Each answer comes within the 5 s of a probe, all of them together do not.
        (
            slow,
            "/",
            "timed out after 5s while waiting for the answer".into(),
        ),
        (Answer::status(301), &plain, away(&plain)),
        (Answer::status(301), &login, away(&login)),
        (
            Answer::status(301),
            &with_user,
            away(&with_user.replace("u:p", "***")),
        ),
        (
            Answer::status(301),
            "https://u@127.0.0.1/",
            away("https://***@127.0.0.1/"),
        ),
    ];
    scope(|scope| {
        for (answer, location, why) in cases {
            scope.spawn(move || {
                let server = MainServer::new_up();
                let answer = match location {
                    "" => answer,
                    location => answer.header("Location", location),
                };
                server.on_get(move |_| answer.clone());
                let fixture = Fixture::new(server);
                let event = fixture
                    .agent
                    .wait_event("main_unhealthy_accepting_logs", DEADLINE);
                assert_eq!(event["error"], why);
            });
        }
    });
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn no_record_is_sent_before_a_healthy_probe() {
    let elsewhere = MainServer::new_up();
    let elsewhere_url = elsewhere.url();
    let server = MainServer::new_up();
    let mut turn = 0;
    server.on_get(move |message| {
        // Four redirects, then elsewhere, then what is no 2xx.
        if let Some(number) = message.path.strip_prefix("/r") {
            let next: u32 = number.parse::<u32>().expect("a number") + 1;
            return Answer::status(302).header("Location", &format!("/r{next}"));
        }
        turn += 1;
        match turn {
            1 => Answer::status(302).header("Location", "/r1"),
            2 => Answer::status(302).header("Location", &elsewhere_url),
            3 => Answer::status(404),
            4 => Answer::status(500),
            _ => Answer::status(200),
        }
    });
    let fixture = Fixture::new(server);
    fixture.store(&texts(["a"]));
    let seen = up_to_the_record(&fixture);
    let mut expected = vec!["GET /", "GET /r1", "GET /r2", "GET /r3"];
    expected.extend(["GET /"; 4]);
    expected.push("POST /log");
    assert_eq!(seen, expected);
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn the_delays_between_probes_grow() {
    let server = MainServer::new_up();
    server.set_health(503);
    let started = Instant::now();
    let fixture = Fixture::new(server);
    fixture.store(&texts(["a"]));
    fixture.until("fifth probe", |fixture| fixture.server.gets().len() >= 5);
    let gets = fixture.server.gets();
    assert!(
        gets[0].at - started < Duration::from_secs(10),
        "first at once"
    );
    for (n, pair) in gets.windows(2).take(4).enumerate() {
        let delay = pair[1].at - pair[0].at;
        let middle = Duration::from_millis(250 << n);
        // Half to one and a half times; the upper end leaves room for a busy machine.
        let allowed = middle / 2..middle * 3 / 2 + Duration::from_secs(5);
        assert!(allowed.contains(&delay), "delay {n}: {delay:?}");
    }
    assert_eq!(fixture.server.posts().len(), 0);
    assert!(fixture.folder.path().join("agent-status.lock").exists());
    fixture.server.set_health(204);
    fixture.wait_for(r#""a""#);
    let gone = || !fixture.folder.path().join("agent-status.lock").exists();
    wait::until(DEADLINE, "no flag", gone);
}
