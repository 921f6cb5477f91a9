use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::super::authority::{Authority, Scheme};
use super::{Login, open};

/// What the agent is to send, and what the proxy then says.
type Step<'a> = (&'a [u8], &'a [u8]);

const HELLO: Step = (&[5, 1, 0], &[5, 0]);
const CONNECTED: &[u8] = &[5, 0, 0, 1, 10, 0, 0, 1, 0, 80];

/// Plays a proxy, then ends the connection.
async fn play(mut proxy: DuplexStream, steps: &[Step<'_>]) {
    for (expected, answer) in steps {
        let mut got = vec![0; expected.len()];
        proxy.read_exact(&mut got).await.unwrap();
        assert_eq!(got, *expected);
        // A byte at a time: nothing may rely on how it arrives.
        for byte in *answer {
            proxy.write_all(&[*byte]).await.unwrap();
        }
    }
    proxy.shutdown().await.unwrap();
    let mut rest = Vec::new();
    proxy.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0; 0], "more than expected");
}

/// What comes of it: the rest of what the proxy sent, or why there is no tunnel.
async fn outcome(userinfo: &str, target: &str, steps: &[Step<'_>]) -> Result<Vec<u8>, String> {
    let login = Login::parse(userinfo).unwrap();
    let target = Authority::parse(Scheme::Http, target).unwrap();
    // Less than an answer: the agent has to read on.
    let (agent, proxy) = duplex(4);
    let asking = async {
        let mut stream = open(agent, login.as_ref(), &target).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        Ok(rest)
    };
    let (outcome, ()) = tokio::join!(asking, play(proxy, steps));
    outcome
}

#[tokio::test]
async fn the_target_is_sent_as_what_it_is_and_no_byte_of_the_servers_is_taken() {
    let name = [
        5, 1, 0, 3, 9, b'm', b'a', b'i', b'n', b'.', b't', b'e', b's', b't', 0x13, 0x88,
    ];
    let v6 = [
        5, 1, 0, 4, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80,
    ];
    let replies: [&[u8]; 3] = [
        CONNECTED,
        &[5, 0, 0, 3, 2, b'a', b'b', 0, 80],
        &[
            5, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80,
        ],
    ];
    for (target, request) in [
        ("main.test:5000", name.as_slice()),
        ("192.0.2.7:65535", &[5, 1, 0, 1, 192, 0, 2, 7, 255, 255]),
        ("[fe80::1%25eth0]", &v6),
    ] {
        for reply in replies {
            let answer = [reply, b"rest"].concat();
            let rest = outcome("", target, &[HELLO, (request, &answer)]).await;
            assert_eq!(
                rest.as_deref(),
                Ok(b"rest".as_slice()),
                "{target} {reply:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_proxy_gets_user_and_password_if_it_wants_them() {
    let request: &[u8] = &[5, 1, 0, 1, 192, 0, 2, 7, 0, 80];
    let offer: &[u8] = &[5, 2, 0, 2];
    let login: &[u8] = &[1, 2, b'u', b'@', 3, b'p', b':', b'w'];
    for steps in [
        &[(offer, &[5, 0][..]), (request, CONNECTED)][..],
        &[(offer, &[5, 2]), (login, &[1, 0]), (request, CONNECTED)],
    ] {
        let rest = outcome("u%40:p:w", "192.0.2.7", steps).await;
        assert_eq!(rest, Ok(Vec::new()), "{steps:?}");
    }
    for (userinfo, steps, why) in [
        (
            "",
            &[(&[5, 1, 0][..], &[5, 255][..])][..],
            "it wants credentials",
        ),
        ("", &[(&[5, 1, 0], &[5, 2])], "it wants credentials"),
        (
            "u:p",
            &[(offer, &[5, 255])],
            "it takes no user and password",
        ),
        (
            "u:p",
            &[(offer, &[5, 2]), (&[1, 1, b'u', 1, b'p'], &[1, 1])],
            "it wants other credentials",
        ),
    ] {
        let refused = outcome(userinfo, "192.0.2.7", steps).await;
        assert_eq!(refused, Err(format!("no tunnel: {why}")));
    }
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let request: &[u8] = &[5, 1, 0, 1, 192, 0, 2, 7, 0, 80];
    for (reply, why) in [
        (&[5, 1, 0, 1][..], "it failed"),
        (&[5, 2, 0, 1], "its rules forbid the way"),
        (&[5, 3, 0, 1], "the network is unreachable from there"),
        (
            &[5, 4, 0, 1],
            "the server is unreachable from there, or has no such name",
        ),
        (&[5, 5, 0, 1], "the server refused its connection"),
        (&[5, 6, 0, 1], "the way from there is too long"),
        (&[5, 7, 0, 1], "it makes no tunnels"),
        (&[5, 8, 0, 1], "it knows no addresses of this kind"),
        (&[5, 99, 0, 1], "it answered 99"),
        (&[5, 0, 0, 2], "it does not speak SOCKS5"),
        (&[4, 0, 0, 1], "it does not speak SOCKS5"),
        (&[5, 0, 0], "early eof"),
        (&[5, 0, 0, 3, 200, b'x'], "early eof"),
        (&[], "early eof"),
    ] {
        let refused = outcome("", "192.0.2.7", &[HELLO, (request, reply)]).await;
        assert_eq!(refused, Err(format!("no tunnel: {why}")), "{reply:?}");
    }
    let stranger = outcome("", "h", &[(HELLO.0, b"HT")]).await;
    assert_eq!(stranger, Err("no tunnel: it does not speak SOCKS5".into()));
}

#[tokio::test]
async fn a_name_that_does_not_fit_is_not_sent() {
    let why = "no tunnel: the server's name is longer than SOCKS5 allows";
    let refused = outcome("", &"n".repeat(256), &[HELLO]).await;
    assert_eq!(refused, Err(why.into()));
}

#[test]
fn credentials_that_do_not_fit_are_refused_without_showing() {
    let long = "p".repeat(256);
    for (userinfo, why) in [
        (":p", "its credentials have no user"),
        (
            &format!("u:{long}"),
            "its credentials are longer than SOCKS5 allows",
        ),
        (
            &format!("{long}:p"),
            "its credentials are longer than SOCKS5 allows",
        ),
        (
            "u%:p",
            "a % in its credentials is not followed by two hex digits",
        ),
    ] {
        assert_eq!(Login::parse(userinfo).unwrap_err(), why);
    }
    let login = Login::parse(&format!("u:{}", &long[1..])).unwrap().unwrap();
    assert_eq!(format!("{login:?}"), "Login(***)");
    assert!(Login::parse("u").is_ok());
}
