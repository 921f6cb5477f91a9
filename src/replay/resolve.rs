//! From a name to addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

use tokio::task::{JoinHandle, spawn_blocking};

/// Asks the system for addresses, anew each time: an outage may end with the
/// name somewhere else.
#[derive(Default)]
pub(super) struct Resolver {
    /// The system cannot be told to stop, and has one thread. Who comes while it
    /// is busy waits with the one who asked, and does not queue another lookup
    /// behind that.
    running: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
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
        // What nobody waited for may be long out of date.
        self.running.take_if(|running| running.is_finished());
        let running = self.running.get_or_insert_with(|| {
            let host = host.to_owned();
            spawn_blocking(move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
        });
        let found = running.await;
        self.running = None;
        match found {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(format!("cannot resolve its name: {error}")),
            Err(error) => Err(format!("cannot resolve its name: {error}")),
        }
    }
}
