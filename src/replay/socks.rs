//! A tunnel through a SOCKS5 proxy (RFC 1928), with a user and a password if it
//! wants them (RFC 1929).

use std::fmt;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::authority::Authority;
use super::credentials::percent_decoded;

const VERSION: u8 = 5;
const CONNECT: u8 = 1;
/// Methods of RFC 1928, 3.
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
/// Kinds of addresses of RFC 1928, 5.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

const STRANGER: &str = "no tunnel: it does not speak SOCKS5";

/// User and password as the proxy gets them (RFC 1929, 2). Its `Debug` shows
/// neither.
#[derive(Clone)]
pub(super) struct Login(Vec<u8>);

impl Login {
    /// Of `user:password`, each percent-encoded; none for the empty text.
    ///
    /// # Errors
    /// The reason as one line that holds nothing of them.
    pub(super) fn parse(userinfo: &str) -> Result<Option<Login>, String> {
        if userinfo.is_empty() {
            return Ok(None);
        }
        let (user, password) = percent_decoded(userinfo)?;
        if user.is_empty() {
            return Err("its credentials have no user".into());
        }
        let mut request = vec![1];
        for part in [user, password] {
            let length = u8::try_from(part.len());
            request.push(length.map_err(|_| "its credentials are longer than SOCKS5 allows")?);
            request.extend(part);
        }
        Ok(Some(Login(request)))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(***)")
    }
}

/// Asks the proxy at the other end of `stream` for a tunnel to `target`, whose
/// name it resolves itself.
///
/// # Errors
/// Why there is none, as one line.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    login: Option<&Login>,
    target: &Authority,
) -> Result<S, String> {
    enter(&mut stream, login).await?;
    send(&mut stream, &request(target)?).await?;
    let [version, reply, _reserved, kind] = receive(&mut stream).await?;
    if version != VERSION {
        return Err(STRANGER.into());
    }
    if reply != 0 {
        return Err(format!("no tunnel: {}", meaning(reply)));
    }
    // Where the proxy connects from: of no use here, but in front of what the
    // server says.
    match kind {
        IPV4 => drop(receive::<4>(&mut stream).await?),
        IPV6 => drop(receive::<16>(&mut stream).await?),
        NAME => {
            let [length] = receive(&mut stream).await?;
            for _ in 0..length {
                receive::<1>(&mut stream).await?;
            }
        }
        _ => return Err(STRANGER.into()),
    }
    let _port: [u8; 2] = receive(&mut stream).await?;
    Ok(stream)
}

/// Agrees on how to log in, and does.
async fn enter<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<&Login>,
) -> Result<(), String> {
    let greeting: &[u8] = match login {
        None => &[VERSION, 1, NO_LOGIN],
        Some(_) => &[VERSION, 2, NO_LOGIN, LOGIN],
    };
    send(stream, greeting).await?;
    let [version, method] = receive(stream).await?;
    match (version, method, login) {
        (VERSION, NO_LOGIN, _) => Ok(()),
        (VERSION, LOGIN, Some(Login(request))) => {
            send(stream, request).await?;
            match receive(stream).await? {
                [_version, 0] => Ok(()),
                _ => Err("no tunnel: it wants other credentials".into()),
            }
        }
        (VERSION, _, None) => Err("no tunnel: it wants credentials".into()),
        (VERSION, _, Some(_)) => Err("no tunnel: it takes no user and password".into()),
        _ => Err(STRANGER.into()),
    }
}

fn request(target: &Authority) -> Result<Vec<u8>, String> {
    let host = target.host_without_zone();
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len())
                .map_err(|_| "no tunnel: the server's name is longer than SOCKS5 allows")?;
            request.extend([NAME, length]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(target.port.to_be_bytes());
    Ok(request)
}

/// What a reply means (RFC 1928, 6).
fn meaning(reply: u8) -> String {
    let text = match reply {
        1 => "it failed",
        2 => "its rules forbid the way",
        3 => "the network is unreachable from there",
        4 => "the server is unreachable from there, or has no such name",
        5 => "the server refused its connection",
        6 => "the way from there is too long",
        7 => "it makes no tunnels",
        8 => "it knows no addresses of this kind",
        _ => return format!("it answered {reply}"),
    };
    text.into()
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), String> {
    stream.write_all(bytes).await.map_err(broken)
}

async fn receive<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(broken)?;
    Ok(bytes)
}

fn broken(error: std::io::Error) -> String {
    format!("no tunnel: {error}")
}

#[cfg(test)]
#[path = "socks_tests.rs"]
mod tests;
