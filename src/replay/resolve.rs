//! From a name to addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use super::backoff::doubled;
use crate::limits::{LOOKUP_HANGS, LOOKUP_KEPT, LOOKUP_PATIENCE_MAX};

/// Asks the system for addresses, anew each time: an outage may end with the
/// name somewhere else.
#[derive(Default)]
pub(super) struct Resolver {
    /// Where lookups end; made for the first one.
    ends: Option<(UnboundedSender<Found>, UnboundedReceiver<Found>)>,
    /// Lookups that have not ended; the system cannot be told to stop one. A call that comes
    /// meanwhile waits with them, and does not queue another behind them.
    running: u32,
    /// When the one that began last counts as hanging.
    hangs_at: Option<Instant>,
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
        loop {
            let is_due = self.hangs_at.is_none_or(|at| Instant::now() >= at);
            if self.running == 0 || is_due {
                self.look_up(host, port).map_err(reason)?;
            }
            let (Some((_, told)), Some(hangs_at)) = (&mut self.ends, self.hangs_at) else {
                continue;
            };
            if let Ok(Some(found)) = timeout_at(hangs_at, told.recv()).await {
                self.running = self.running.saturating_sub(1);
                return found.addresses.map_err(reason);
            }
        }
    }

    /// What lookups have found that no connection waited for any more. Without it a
    /// name server that takes longer than a connection may take would never serve.
    fn left_over(&mut self) -> Option<Vec<SocketAddr>> {
        let mut newest = None;
        let (_, told) = self.ends.as_mut()?;
        while let Ok(found) = told.try_recv() {
            self.running = self.running.saturating_sub(1);
            // It may be long out of date.
            if found.at.elapsed() < LOOKUP_KEPT {
                newest = found.addresses.ok().or(newest);
            }
        }
        newest
    }

    /// Asks on a thread of its own. (The runtime's own threads end the process where
    /// there can be none.)
    fn look_up(&mut self, host: &str, port: u16) -> io::Result<()> {
        let host = host.to_owned();
        let (tell, _) = self.ends.get_or_insert_with(unbounded_channel);
        let tell = tell.clone();
        thread::Builder::new().spawn(move || {
            let addresses = (host.as_str(), port).to_socket_addrs();
            let found = Found {
                addresses: addresses.map(Iterator::collect),
                at: Instant::now(),
            };
            // The agent may have ended.
            let _ = tell.send(found);
        })?;
        let patience = doubled(LOOKUP_HANGS, self.running, LOOKUP_PATIENCE_MAX);
        self.hangs_at = Some(Instant::now() + patience);
        self.running += 1;
        Ok(())
    }
}

fn reason(error: impl std::fmt::Display) -> String {
    format!("cannot resolve its name: {error}")
}
