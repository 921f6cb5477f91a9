//! From a name to addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::thread;
use std::time::Instant;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use crate::limits::LOOKUP_KEPT;

/// Asks the system for addresses, anew each time: an outage may end with the
/// name somewhere else.
#[derive(Default)]
pub(super) struct Resolver {
    /// The system cannot be told to stop. Who comes while it is busy waits with
    /// the one who asked, and does not queue another lookup behind that.
    running: Option<Receiver<Found>>,
}

/// How a lookup ended, and when.
struct Found {
    addresses: io::Result<Vec<SocketAddr>>,
    at: Instant,
}

impl Resolver {
    /// The addresses of `host`, which is the same at each call.
    ///
    /// # Errors
    /// Why there is none, as one line.
    pub(super) async fn resolve(
        &mut self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if let Some(addresses) = self.left_over() {
            return Ok(addresses);
        }
        let running = match &mut self.running {
            Some(running) => running,
            None => self.running.insert(look_up(host, port).map_err(reason)?),
        };
        let found = running.await;
        self.running = None;
        match found {
            Ok(found) => found.addresses.map_err(reason),
            Err(error) => Err(reason(error)),
        }
    }

    /// What a lookup has found since somebody ceased to wait for it. Without it a
    /// name server that takes longer than a connection may take would never serve.
    fn left_over(&mut self) -> Option<Vec<SocketAddr>> {
        let ended = match self.running.as_mut()?.try_recv() {
            Err(TryRecvError::Empty) => return None,
            ended => ended,
        };
        self.running = None;
        let found = ended.ok()?;
        // It may be long out of date.
        (found.at.elapsed() < LOOKUP_KEPT)
            .then_some(found.addresses)?
            .ok()
    }
}

/// Asks on a thread of its own. (The runtime's own threads end the process where
/// there can be none.)
fn look_up(host: &str, port: u16) -> io::Result<Receiver<Found>> {
    let host = host.to_owned();
    let (tell, told) = oneshot::channel();
    thread::Builder::new().spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs();
        let found = Found {
            addresses: addresses.map(Iterator::collect),
            at: Instant::now(),
        };
        // Nobody may be waiting any more.
        let _ = tell.send(found);
    })?;
    Ok(told)
}

fn reason(error: impl std::fmt::Display) -> String {
    format!("cannot resolve its name: {error}")
}
