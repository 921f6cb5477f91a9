//! The first of several addresses that answers (RFC 8305), on one task.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::limits::{CONNECT_ATTEMPTS_MAX, CONNECT_STAGGER, SEND_BUFFER};

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Connects to the address that answers first. Each is tried once the one before
/// it has failed or has had [`CONNECT_STAGGER`]. The error is the last one of an
/// address that answered; without one, it is `None`.
pub(super) async fn dial(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<TcpStream, Option<io::Error>> {
    let mut waiting = interleaved(addresses).into_iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut last = None;
    loop {
        match waiting.next() {
            Some(address) => {
                if attempts.len() == CONNECT_ATTEMPTS_MAX {
                    drop(attempts.remove(0));
                }
                attempts.push(Box::pin(connect(address)));
            }
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        let until = match waiting.len() {
            0 => deadline,
            _ => deadline.min(Instant::now() + CONNECT_STAGGER),
        };
        match timeout_at(until, first_to_end(&mut attempts)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error),
            Err(_) if Instant::now() >= deadline => return Err(last),
            Err(_) => {}
        }
    }
}

/// Waits for the first attempt to end, and takes it out.
async fn first_to_end(attempts: &mut Vec<Attempt>) -> io::Result<TcpStream> {
    poll_fn(|cx| {
        let mut each = attempts.iter_mut().enumerate();
        let ended = each.find_map(|(at, attempt)| match attempt.as_mut().poll(cx) {
            Poll::Ready(ended) => Some((at, ended)),
            Poll::Pending => None,
        });
        let Some((at, ended)) = ended else {
            return Poll::Pending;
        };
        drop(attempts.remove(at));
        Poll::Ready(ended)
    })
    .await
}

/// IPv4 and IPv6 in turn, beginning with the first one's kind, each in the
/// system's order (RFC 8305, 4): where one of them leads nowhere, it does so for
/// all addresses.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (like_first, others): (Vec<_>, Vec<_>) = addresses
        .iter()
        .partition(|address| address.is_ipv4() == first);
    let mut others = others.into_iter();
    let mut all = Vec::with_capacity(addresses.len());
    for address in like_first {
        all.push(address);
        all.extend(others.next());
    }
    all.extend(others);
    all
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // A request goes out in one write: Nagle could only delay it.
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::{dial, interleaved};
    use crate::limits::{CONNECT_ATTEMPTS_MAX, CONNECT_STAGGER};
    use std::net::{Ipv6Addr, SocketAddr};
    use std::time::Duration;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::{Instant, timeout};

    /// An address that answers no SYN: a listener whose backlog is full. What
    /// fills it is returned to be kept.
    async fn dead_address() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            filling.push(stream.unwrap());
        }
        (address, filling, listener)
    }

    /// Bound, so that nobody else gets it while it is kept, and not listening.
    fn refused_address() -> (SocketAddr, TcpSocket) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    #[tokio::test]
    async fn every_address_is_tried_within_the_limit() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = live.local_addr().unwrap();
        let (refused, _kept) = refused_address();
        let (dead, _filling, _listener) = dead_address().await;
        for addresses in [
            vec![good],
            vec![refused, good],
            vec![dead, good],
            vec![dead, refused, good, refused],
        ] {
            let deadline = Instant::now() + Duration::from_secs(60);
            let stream = dial(&addresses, deadline).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), good, "{addresses:?}");
            assert!(stream.nodelay().unwrap());
            assert!(Instant::now() < deadline);
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_costs_a_moment_not_its_share() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = live.local_addr().unwrap();
        let (dead, _filling, _listener) = dead_address().await;
        let limit = Duration::from_secs(60);
        let start = Instant::now();
        // More than are tried at a time.
        let addresses = [[dead; CONNECT_ATTEMPTS_MAX + 2].as_slice(), &[good]].concat();
        let stream = dial(&addresses, start + limit).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let least = CONNECT_STAGGER * (CONNECT_ATTEMPTS_MAX as u32 + 2);
        assert!(start.elapsed() >= least);
        assert!(start.elapsed() < limit / 9, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_slow_address_may_still_answer_when_others_are_tried() {
        let (slow, mut filling, listener) = dead_address().await;
        let (refused, _kept) = refused_address();
        let addresses = [slow, refused];
        let dialling = dial(&addresses, Instant::now() + Duration::from_secs(60));
        let mut dialling = std::pin::pin!(dialling);
        // Both have been tried by then.
        assert!(timeout(CONNECT_STAGGER * 3, &mut dialling).await.is_err());
        filling.clear();
        while timeout(CONNECT_STAGGER, listener.accept()).await.is_ok() {}
        let stream = loop {
            tokio::select! {
                stream = &mut dialling => break stream,
                _ = listener.accept() => {}
            }
        };
        assert_eq!(stream.unwrap().peer_addr().unwrap(), slow);
    }

    #[tokio::test]
    async fn both_families_are_dialled() {
        let live = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let good = live.local_addr().unwrap();
        let (refused, _kept) = refused_address();
        let deadline = Instant::now() + Duration::from_secs(60);
        let stream = dial(&[refused, good], deadline).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
    }

    #[test]
    fn families_take_turns_beginning_with_the_systems_choice() {
        for (given, expected) in [
            (&[][..], &[][..]),
            (&["4a"], &["4a"]),
            (&["6a", "6b", "6c"], &["6a", "6b", "6c"]),
            (&["6a", "6b", "4a"], &["6a", "4a", "6b"]),
            (
                &["4a", "4b", "6a", "6b", "6c"],
                &["4a", "6a", "4b", "6b", "6c"],
            ),
        ] {
            let address = |name: &&str| -> SocketAddr {
                let last = u16::from_str_radix(&name[1..], 16).unwrap();
                match name.starts_with('4') {
                    true => ([127, 0, 0, 1], last).into(),
                    false => (Ipv6Addr::LOCALHOST, last).into(),
                }
            };
            let given: Vec<_> = given.iter().map(address).collect();
            let expected: Vec<_> = expected.iter().map(address).collect();
            assert_eq!(interleaved(&given), expected);
        }
    }

    #[tokio::test]
    async fn no_address_leaves_the_reason() {
        let (refused, _kept) = refused_address();
        let (dead, _filling, _listener) = dead_address().await;
        let limit = Duration::from_secs(2);
        for (addresses, reason) in [
            (vec![], None),
            (vec![dead, dead], None),
            (
                vec![refused, dead],
                Some(std::io::ErrorKind::ConnectionRefused),
            ),
        ] {
            let start = Instant::now();
            let error = dial(&addresses, start + limit).await.unwrap_err();
            assert_eq!(error.map(|error| error.kind()), reason, "{addresses:?}");
            assert!(start.elapsed() < limit * 10, "{addresses:?}");
        }
    }
}
