//! The guards of what is admitted: a connection, and a call of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::{Admission, Peer};
use crate::limits::{BODY_BUDGET, CALL_OVERHEAD, SIGN_OF_LIFE};

/// A connection that counts.
pub struct Admitted {
    /// Where it counts.
    pub admission: Arc<Admission>,
    /// What is known of it.
    pub peer: Arc<Peer>,
}

impl Admitted {
    /// A call has come.
    #[must_use]
    pub fn call(&self) -> Arc<Call> {
        let (admission, peer) = (&self.admission, &self.peer);
        admission.hear();
        admission.note_crowd(admission.open.fetch_add(1, Relaxed));
        peer.in_flight.fetch_add(1, Relaxed);
        Arc::new(Call {
            admission: Arc::clone(admission),
            peer: Arc::clone(peer),
            reserved: Mutex::default(),
            came: AtomicBool::new(false),
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Admitted { admission, peer } = self;
        let left = {
            let mut peers = admission.peers();
            peers.retain(|other| !Arc::ptr_eq(other, peer));
            peers.len()
        };
        admission.note_crowd(left);
        admission.ended.notify_waiters();
    }
}

/// A call from its headers to its answer, and what it holds.
pub struct Call {
    admission: Arc<Admission>,
    peer: Arc<Peer>,
    reserved: Mutex<Option<OwnedSemaphorePermit>>,
    came: AtomicBool,
}

impl Call {
    /// The line for the bytes of a message of `length` bytes, first come, first served.
    /// What it holds afterwards goes on with the record ([`Call::take_reserved`]).
    pub fn reserve(self: &Arc<Self>, length: usize) -> impl Future<Output = ()> + Send + use<> {
        let call = Arc::clone(self);
        async move {
            let wanted = (length + CALL_OVERHEAD).min(BODY_BUDGET);
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            let _in_line = Waiting::new(&call.admission.line);
            let bytes = Arc::clone(&call.admission.bytes);
            // The semaphore is never closed.
            let reserved = bytes.acquire_many_owned(wanted).await.ok();
            *call.reserved() = reserved;
        }
    }

    fn reserved(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The message's share of the budget; none for one that fits a window.
    pub fn take_reserved(&self) -> Option<OwnedSemaphorePermit> {
        self.reserved().take()
    }

    /// A little of what calls in line may be sent beyond their windows, if there is any.
    #[must_use]
    pub fn reserve_sign(&self) -> Option<OwnedSemaphorePermit> {
        let signs = Arc::clone(&self.admission.signs);
        signs.try_acquire_many_owned(SIGN_OF_LIFE as u32).ok()
    }

    /// Whether others wait, for bytes or for a place; `in_line` tells that this call
    /// waits for bytes itself.
    #[must_use]
    pub fn others_wait(&self, in_line: bool) -> bool {
        let line = self.admission.line.load(Relaxed);
        line > usize::from(in_line) || self.admission.wanted.load(Relaxed) > 0
    }

    /// Its client has sent more.
    pub fn progress(&self) {
        self.admission.hear();
    }

    /// Its client made no progress for too long: where places are wanted it loses the
    /// connection too, or it would fill its streams again.
    pub fn stalled(&self) {
        if self.admission.wanted.load(Relaxed) > 0 {
            self.peer.close();
        }
    }

    /// Its record has come whole.
    pub fn came(&self) {
        if !self.came.swap(true, Relaxed) {
            self.admission.answering.fetch_add(1, Relaxed);
            self.admission.hear();
        }
    }

    /// Its record is on disk.
    pub fn stored(&self) {
        self.admission.stored.fetch_add(1, Relaxed);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (admission, peer) = (&self.admission, &self.peer);
        if *self.came.get_mut() {
            admission.hear();
            admission.answering.fetch_sub(1, Relaxed);
        }
        admission.open.fetch_sub(1, Relaxed);
        peer.in_flight.fetch_sub(1, Relaxed);
        peer.served.store(true, Relaxed);
        if admission.stopping.load(Relaxed) {
            peer.dismiss();
        }
        *peer
            .idle_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Counts a backlog: between two of its connections there may be none.
pub struct Backlog(pub(super) Arc<Admission>);

impl Drop for Backlog {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Relaxed);
        self.0.ended.notify_waiters();
    }
}

/// Counts one that waits, also when it gives up.
pub struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(super) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
