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
    let mut answered = status(&head(&mut stream).await?);
    for _ in 0..TUNNEL_INTERIM_MAX {
        if let Some(100..=199) = answered {
            // Not the answer yet (RFC 9110, 15.2).
            answered = status(&head(&mut stream).await?);
        }
    }
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
