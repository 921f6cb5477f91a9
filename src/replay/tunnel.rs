//! A tunnel through a proxy (RFC 9110, 9.3.6).

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::USER_AGENT;
use super::authority::Authority;
use super::proxy::Proxy;
use super::stream::Stream;
use crate::limits::{TUNNEL_ANSWER_MAX, TUNNEL_INTERIM_MAX};

/// Asks the proxy at the other end of `stream` for a tunnel to `target`.
///
/// # Errors
/// Why there is none, as one line.
pub(super) async fn open(
    mut stream: Stream,
    proxy: &Proxy,
    target: &Authority,
) -> Result<Stream, String> {
    let request = request(proxy, target);
    stream.write_all(&request).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut interim = 0;
    let answered = loop {
        match status(&head(&mut stream).await?) {
            // Not the answer yet (RFC 9110, 15.2).
            Some(100..=199) if interim < TUNNEL_INTERIM_MAX => interim += 1,
            status => break status,
        }
    };
    match answered {
        Some(200..=299) => Ok(stream),
        Some(status @ (401 | 407)) => {
            Err(format!("no tunnel: it wants other credentials ({status})"))
        }
        Some(status) => Err(format!("no tunnel: it answered {status}")),
        None => Err("no tunnel: it does not speak HTTP".into()),
    }
}

/// Status line and headers of an answer, and no byte more: what follows is not the
/// proxy's.
async fn head(stream: &mut Stream) -> Result<Vec<u8>, String> {
    let mut head = Vec::with_capacity(1024);
    // A line may end without its CR (RFC 9112, 2.2).
    while !(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")) {
        head.push(stream.read_u8().await.map_err(broken)?);
        if head.len() == TUNNEL_ANSWER_MAX {
            return Err("no tunnel: its answer to CONNECT is too long".into());
        }
    }
    Ok(head)
}

fn broken(error: std::io::Error) -> String {
    format!("no tunnel: {error}")
}

fn request(proxy: &Proxy, target: &Authority) -> Vec<u8> {
    let target = target.with_port();
    let mut request =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {USER_AGENT}\r\n")
            .into_bytes();
    if let Some(value) = proxy.authorization() {
        request.extend(b"Proxy-Authorization: ");
        request.extend(value.as_bytes());
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    request
}

/// The status in an answer's first line (RFC 9112, 4).
fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?;
    let digits = std::str::from_utf8(line.get(2..5)?).ok()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpListener};

    use tokio::net::TcpStream;

    use super::*;
    use crate::replay::authority::Scheme;

    #[tokio::test]
    async fn a_proxy_may_say_that_it_is_at_it_but_not_for_ever() {
        let proxy = Proxy::parse("http://proxy").unwrap();
        let target = Authority::parse(Scheme::Http, "server").unwrap();
        for (times, expected) in [
            (TUNNEL_INTERIM_MAX, Ok(())),
            (TUNNEL_INTERIM_MAX + 1, Err("no tunnel: it answered 103")),
        ] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
            let (mut peer, _) = listener.accept().unwrap();
            let answer =
                "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(times) + "HTTP/1.1 200 OK\r\n\r\n";
            peer.write_all(answer.as_bytes()).unwrap();
            let opened = open(Stream::Plain(stream.unwrap()), &proxy, &target).await;
            assert_eq!(opened.map(drop), expected.map_err(str::to_owned), "{times}");
            assert!(peer.read(&mut [0; 8]).unwrap() > 0);
        }
    }
}
