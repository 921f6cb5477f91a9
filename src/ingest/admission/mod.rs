//! What is admitted, and what it holds: every counter, permit and budget of ingest
//! (spec 3).
//!
//! Memory is bounded by a product and a budget. The product is connections times
//! streams times what a stream may hold unasked: as connections are more, each is
//! allowed fewer streams ([`STREAM_ALLOWANCES`]), and clients queue further calls
//! themselves. The budget is of messages larger than that ([`BODY_BUDGET`]): their
//! bytes are reserved before they are read, and a call waits in line where there are
//! none. So no call is ever refused for another's sake.

mod call;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};

use crate::ingest::authority::Ending;
use crate::limits::{
    BODY_BUDGET, CLOSE_GRACE, CLOSE_GRACE_CROWDED, CONNECTIONS_MAX, CROWD_LOOK, CROWD_MIN,
    DESCRIPTORS_RESERVED, IDLE_GRACE, KEPT_GRACE, SIGNS_BUDGET, STREAM_ALLOWANCES,
};
use crate::memory;
pub use call::{Admitted, Backlog, Call, Waiting};

/// Everything that clients hold. No lock of it is held across an await.
pub struct Admission {
    peers: Mutex<Vec<Arc<Peer>>>,
    /// Connections at a time: as many as memory and descriptors allow.
    places: usize,
    /// Clients that wait to be accepted, as far as that is known.
    wanted: AtomicUsize,
    /// Bytes of the budget that are free.
    bytes: Arc<Semaphore>,
    /// Calls in line for bytes.
    line: AtomicUsize,
    /// Bytes that calls in line may still be asked for.
    signs: Arc<Semaphore>,
    /// Calls from their headers to their answer.
    open: AtomicUsize,
    /// Calls whose record has come whole and that are not answered.
    answering: AtomicUsize,
    /// Records acknowledged since the start.
    stored: AtomicU64,
    /// When a client was last heard of.
    heard: Mutex<Instant>,
    /// There has been a crowd since the last look.
    crowd: AtomicBool,
    /// A task looks whether it has gone.
    releasing: AtomicBool,
    /// A connection has ended.
    ended: Notify,
    /// The agent stops: a connection ends once it has been served …
    stopping: AtomicBool,
    /// … and by now every connection.
    ending_all: AtomicBool,
}

impl Admission {
    /// Without a client so far.
    #[must_use]
    pub fn new() -> Arc<Admission> {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors =
            descriptors.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        Arc::new(Admission {
            peers: Mutex::default(),
            places: descriptors
                .saturating_sub(DESCRIPTORS_RESERVED)
                .clamp(1, CONNECTIONS_MAX),
            wanted: AtomicUsize::new(0),
            bytes: Arc::new(Semaphore::new(BODY_BUDGET)),
            line: AtomicUsize::new(0),
            signs: Arc::new(Semaphore::new(SIGNS_BUDGET)),
            open: AtomicUsize::new(0),
            answering: AtomicUsize::new(0),
            stored: AtomicU64::new(0),
            heard: Mutex::new(Instant::now()),
            crowd: AtomicBool::new(false),
            releasing: AtomicBool::new(false),
            ended: Notify::new(),
            stopping: AtomicBool::new(false),
            ending_all: AtomicBool::new(false),
        })
    }

    fn peers(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when there is one connection too many.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.peers().len() > self.places
    }

    /// Takes a connection in; it counts until the guard is dropped.
    #[must_use]
    pub fn admit(self: &Arc<Self>) -> Admitted {
        let mut peers = self.peers();
        let before = peers.len();
        let allowance = STREAM_ALLOWANCES.iter().find(|(below, _)| before < *below);
        let peer = Arc::new(Peer {
            streams: allowance.map_or(1, |(_, streams)| *streams),
            accepted: Instant::now(),
            in_flight: AtomicUsize::new(0),
            served: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            ending: Arc::default(),
            close: Notify::new(),
        });
        if self.ending_all.load(Relaxed) {
            peer.dismiss();
        }
        peers.push(Arc::clone(&peer));
        self.note_crowd(before);
        Admitted {
            admission: Arc::clone(self),
            peer,
        }
    }

    /// Says that clients wait to be accepted, until the guard is dropped, and has so many
    /// connections on their way out, those that have been idle longest: their clients may
    /// connect again, and calls that they send meanwhile are served.
    #[must_use]
    pub fn want_place(&self, leaving: usize) -> Waiting<'_> {
        let peers = self.peers();
        let closing = peers.iter().filter(|peer| peer.is_ending());
        let more = leaving.saturating_sub(closing.count());
        let mut idle: Vec<_> = peers
            .iter()
            .filter_map(|peer| Some((peer.idle_since()?, peer)))
            .filter(|(since, peer)| since.elapsed() >= peer.grace())
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        for (_, peer) in idle.into_iter().take(more) {
            peer.close();
        }
        Waiting::new(&self.wanted)
    }

    /// Asks every connection that has called to end after the calls in flight.
    pub fn close_served(&self) {
        let peers = self.peers();
        let served = peers.iter().filter(|peer| peer.served.load(Relaxed));
        served.for_each(|peer| peer.dismiss());
    }

    /// The same, and from now on each one that has been served: others may wait for its
    /// place, and the time to stop is short.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.close_served();
    }

    /// Asks every connection to end after the calls in flight, and those to come after
    /// the calls that they have sent by then.
    pub fn stop_all(&self) {
        self.ending_all.store(true, Relaxed);
        self.peers().iter().for_each(|peer| peer.dismiss());
    }

    /// How long a connection that was asked to end may take to heed it.
    #[must_use]
    pub fn close_grace(&self) -> Duration {
        let crowded = self.stopping.load(Relaxed) && self.wanted.load(Relaxed) > 0;
        match crowded {
            true => CLOSE_GRACE_CROWDED,
            false => CLOSE_GRACE,
        }
    }

    /// Waits until no connection is left that may be about to call: one that has called
    /// before and has not ended yet, or a newcomer.
    pub async fn wait_until_silent(&self) {
        loop {
            let any_served = self.peers().iter().any(|peer| peer.served.load(Relaxed));
            let grace = match self.newcomer_grace() {
                None if !any_served => return,
                grace => grace.unwrap_or(IDLE_GRACE),
            };
            let _ = timeout(grace, self.connection_ended()).await;
        }
    }

    /// What is left of the [`IDLE_GRACE`] of the youngest connection that has not called
    /// yet: closing it within would look like a failed call. `None` where there is no
    /// such connection; an older one that calls nothing does not count.
    #[must_use]
    pub fn newcomer_grace(&self) -> Option<Duration> {
        let peers = self.peers();
        let newcomers = peers
            .iter()
            .filter(|peer| !peer.served.load(Relaxed) && !peer.is_calling());
        let graces = newcomers.filter_map(|peer| IDLE_GRACE.checked_sub(peer.accepted.elapsed()));
        graces.max()
    }

    /// Waits until a connection ends.
    pub async fn connection_ended(&self) {
        self.ended.notified().await;
    }

    /// Says that a backlog is still to be accepted, until the guard is dropped.
    #[must_use]
    pub fn backlog(self: &Arc<Self>) -> Backlog {
        self.wanted.fetch_add(1, Relaxed);
        Backlog(Arc::clone(self))
    }

    /// Waits until there is no connection, and none is still to be accepted.
    pub async fn wait_until_empty(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.peers().is_empty() && self.wanted.load(Relaxed) == 0 {
                return;
            }
            ended.await;
        }
    }

    /// A client has called, or goes on sending.
    pub fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// When a client was last heard of.
    #[must_use]
    pub fn last_heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls whose record has come and that are not answered. One that is still sending
    /// does not count: it could do so for ever.
    #[must_use]
    pub fn answering(&self) -> usize {
        self.answering.load(Relaxed)
    }

    /// Records acknowledged since the start.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// So many calls are open, or connections: what malloc keeps of a crowd goes back to
    /// the system, also once it has gone.
    fn note_crowd(self: &Arc<Self>, count: usize) {
        if count < CROWD_MIN {
            return;
        }
        self.crowd.store(true, Relaxed);
        if self.releasing.swap(true, Relaxed) {
            return;
        }
        let admission = Arc::clone(self);
        tokio::spawn(async move {
            while admission.crowd.swap(false, Relaxed) {
                sleep(CROWD_LOOK).await;
                // One that stays may have been larger.
                memory::release_heap();
            }
            admission.releasing.store(false, Relaxed);
        });
    }
}

/// What others know of a connection.
pub struct Peer {
    /// Calls that it may have open at a time.
    pub streams: u32,
    accepted: Instant,
    in_flight: AtomicUsize,
    served: AtomicBool,
    idle_since: Mutex<Instant>,
    /// How it ends, for its adapter.
    pub ending: Arc<Ending>,
    close: Notify,
}

impl Peer {
    /// Asks it to end after the calls in flight.
    fn close(&self) {
        self.ending.asked.store(true, Relaxed);
        self.close.notify_one();
    }

    /// The same, as the agent leaves: the client closes it ([`Ending::by_client`]).
    fn dismiss(&self) {
        self.ending.by_client.store(true, Relaxed);
        self.close();
    }

    fn is_ending(&self) -> bool {
        self.ending.asked.load(Relaxed)
    }

    /// How long it is spared while it is idle and others wait for its place.
    fn grace(&self) -> Duration {
        match self.served.load(Relaxed) {
            true => KEPT_GRACE,
            false => IDLE_GRACE,
        }
    }

    /// Waits until it is asked to end.
    pub async fn closed(&self) {
        while !self.is_ending() {
            self.close.notified().await;
        }
    }

    /// True while a call is in flight.
    #[must_use]
    pub fn is_calling(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    /// `None` while a call is in flight or it is ending already.
    fn idle_since(&self) -> Option<Instant> {
        let is_idle = !self.is_calling() && !self.is_ending();
        is_idle.then(|| {
            *self
                .idle_since
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::Admission;

    /// Between two placefuls of a backlog there may be no connection for a moment.
    #[tokio::test]
    async fn a_backlog_that_is_still_to_be_accepted_is_waited_for() {
        let admission = Admission::new();
        let moment = Duration::from_millis(20);
        let backlog = admission.backlog();
        let mut empty = std::pin::pin!(admission.wait_until_empty());
        assert!(timeout(moment, &mut empty).await.is_err());
        let connection = admission.admit();
        drop(backlog);
        assert!(timeout(moment, &mut empty).await.is_err());
        drop(connection);
        let ended = timeout(Duration::from_secs(20), empty).await;
        assert!(ended.is_ok());
    }
}
