//! One client's connection, and the list of all of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use hyper::Request;
use tokio::net::UnixStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::ingest::authority::AuthorityAdapter;
use crate::ingest::service::LogAgent;
use crate::limits::{
    CALLS_MAX, CLOSE_GRACE, CONNECTION_WINDOW, CONNECTIONS_MAX, DESCRIPTORS_RESERVED,
    HEADER_LIST_MAX, IDLE_GRACE, STREAM_WINDOW, STREAMS_MAX,
};

/// What others know of a connection.
struct Peer {
    accepted: Instant,
    in_flight: AtomicUsize,
    served: AtomicU64,
    since: Mutex<Instant>,
    closing: AtomicBool,
    close: Notify,
}

impl Peer {
    fn touch(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Asks it to end after the calls in flight.
    fn close(&self) {
        self.closing.store(true, Relaxed);
        self.close.notify_one();
    }

    /// Since when it has been idle; `None` while a call is in flight or it is
    /// ending already.
    fn idle_since(&self) -> Option<Instant> {
        let idle = self.in_flight.load(Relaxed) == 0 && !self.closing.load(Relaxed);
        idle.then(|| *self.since.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Every open connection.
pub struct Connections {
    peers: Mutex<Vec<Arc<Peer>>>,
    limit: usize,
    /// A permit for each call, over all of them.
    calls: Arc<Semaphore>,
    changed: Notify,
    /// Clients beyond the limit are waiting to be accepted.
    crowded: AtomicBool,
}

impl Connections {
    /// None so far; as many at a time as memory and descriptors allow.
    #[must_use]
    pub fn new() -> Arc<Connections> {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors =
            descriptors.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let limit = descriptors
            .saturating_sub(DESCRIPTORS_RESERVED)
            .clamp(1, CONNECTIONS_MAX);
        Arc::new(Connections {
            peers: Mutex::default(),
            limit,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            changed: Notify::new(),
            crowded: AtomicBool::new(false),
        })
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when there is one too many.
    #[must_use]
    pub fn is_over_limit(&self) -> bool {
        self.peers().len() > self.limit
    }

    /// True while clients wait to be accepted, or their calls to be begun.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.crowded.load(Relaxed) || self.calls.available_permits() == 0
    }

    /// Says whether clients wait to be accepted.
    pub fn set_crowded(&self, crowded: bool) {
        self.crowded.store(crowded, Relaxed);
    }

    /// Asks the connection that has been idle longest to make room. Its client
    /// may connect again; a call it sends meanwhile is served.
    pub fn evict_idle(&self) {
        let peers = self.peers();
        let oldest = peers
            .iter()
            .filter_map(|peer| Some((peer.idle_since()?, peer)))
            .filter(|(since, _)| since.elapsed() >= IDLE_GRACE)
            .min_by_key(|(since, _)| *since);
        if let Some((_, peer)) = oldest {
            peer.close();
        }
    }

    /// Asks every connection to end after the calls in flight; with
    /// `unserved`, also those that have not called yet.
    pub fn shut_down(&self, unserved: bool) {
        for peer in self.peers().iter() {
            if unserved || peer.served.load(Relaxed) > 0 {
                peer.close();
            }
        }
    }

    /// Waits until no connection is left that may be about to call: one that has
    /// called before and has not ended yet, or a newcomer.
    pub async fn wait_until_silent(&self) {
        loop {
            let any_served = self
                .peers()
                .iter()
                .any(|peer| peer.served.load(Relaxed) > 0);
            let grace = match self.newcomer_grace() {
                None if !any_served => return,
                grace => grace.unwrap_or(IDLE_GRACE),
            };
            let _ = timeout(grace, self.one_less()).await;
        }
    }

    /// What is left of the [`IDLE_GRACE`] of the youngest connection that has not
    /// called yet: closing it within would look like a failed call. `None` where
    /// there is no such connection; an older one that calls nothing does not count.
    #[must_use]
    pub fn newcomer_grace(&self) -> Option<Duration> {
        let peers = self.peers();
        let newcomers = peers
            .iter()
            .filter(|peer| peer.served.load(Relaxed) == 0 && peer.in_flight.load(Relaxed) == 0);
        let graces = newcomers.filter_map(|peer| IDLE_GRACE.checked_sub(peer.accepted.elapsed()));
        graces.max()
    }

    /// Waits until a connection ends.
    pub async fn one_less(&self) {
        self.changed.notified().await;
    }

    /// Waits until there is none.
    pub async fn none_left(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.peers().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Serves a client on a task of its own.
    pub fn serve(self: &Arc<Self>, stream: UnixStream, service: &Arc<LogAgent>) {
        let peer = Arc::new(Peer {
            accepted: Instant::now(),
            in_flight: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            since: Mutex::new(Instant::now()),
            closing: AtomicBool::new(false),
            close: Notify::new(),
        });
        self.peers().push(Arc::clone(&peer));
        let registered = Registered(Arc::clone(self), peer);
        tokio::spawn(drive(stream, Arc::clone(service), registered));
    }
}

/// Strikes a connection off the list when its task ends.
struct Registered(Arc<Connections>, Arc<Peer>);

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.peers().retain(|peer| !Arc::ptr_eq(peer, &self.1));
        self.0.changed.notify_waiters();
    }
}

async fn drive(stream: UnixStream, service: Arc<LogAgent>, registered: Registered) {
    let Registered(connections, peer) = &registered;
    let handshake = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .handshake(AuthorityAdapter::new(stream));
    let mut connection = tokio::select! {
        // In this order: who has begun to speak is heard out.
        biased;
        shaken = handshake => match shaken {
            Ok(connection) => connection,
            Err(_) => return,
        },
        () = peer.close.notified() => return,
    };
    let serving = Serving {
        service,
        connections: Arc::clone(connections),
        peer: Arc::clone(peer),
    };
    tokio::select! {
        () = serving.serve(&mut connection) => return,
        () = peer.close.notified() => connection.graceful_shutdown(),
    }
    // A client that does not react to GOAWAY cannot keep its place.
    while timeout(CLOSE_GRACE, serving.serve(&mut connection))
        .await
        .is_err()
        && peer.in_flight.load(Relaxed) > 0
    {}
}

/// What the calls of a connection need.
struct Serving {
    service: Arc<LogAgent>,
    connections: Arc<Connections>,
    peer: Arc<Peer>,
}

impl Serving {
    /// Begins every call until the connection ends. A broken connection is the
    /// client's affair: its calls were answered, or are not acknowledged.
    async fn serve(
        &self,
        connection: &mut h2::server::Connection<AuthorityAdapter<UnixStream>, Bytes>,
    ) {
        while let Some(Ok((request, respond))) = connection.accept().await {
            let mut call = PeerCall::new(&self.peer);
            // While there are too many, those that make no progress have to go.
            let calls = Arc::clone(&self.connections.calls);
            call.permit = calls.acquire_owned().await.ok();
            self.begin(request, respond, call);
        }
    }

    fn begin(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>, call: PeerCall) {
        let service = Arc::clone(&self.service);
        let connections = Arc::clone(&self.connections);
        begin_at_once(async move {
            let _call = call;
            let crowded = || connections.is_crowded();
            service.call(request, respond, crowded).await;
        });
    }
}

/// Begins a call where it is found, before the next connection is read: its
/// headers take many times their size on the wire, and are dropped at once.
fn begin_at_once(call: impl Future<Output = ()> + Send + 'static) {
    let mut call = Box::pin(call);
    // Nothing is missed: as a task it is polled again.
    let mut nobody = Context::from_waker(Waker::noop());
    if call.as_mut().poll(&mut nobody).is_pending() {
        tokio::spawn(call);
    }
}

/// Counts a call of a connection as in flight.
struct PeerCall {
    peer: Arc<Peer>,
    /// One of [`CALLS_MAX`]; none while it waits to be begun.
    permit: Option<OwnedSemaphorePermit>,
}

impl PeerCall {
    fn new(peer: &Arc<Peer>) -> Self {
        peer.in_flight.fetch_add(1, Relaxed);
        PeerCall {
            peer: Arc::clone(peer),
            permit: None,
        }
    }
}

impl Drop for PeerCall {
    fn drop(&mut self) {
        self.peer.in_flight.fetch_sub(1, Relaxed);
        self.peer.served.fetch_add(1, Relaxed);
        self.peer.touch();
    }
}
