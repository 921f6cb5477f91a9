//! What clients are doing: the life decides by it when the agent may leave.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Counts calls in flight and records, and knows when clients were last heard of.
pub struct Activity {
    in_flight: AtomicUsize,
    stored: AtomicU64,
    last: Mutex<Instant>,
}

impl Activity {
    /// No calls so far.
    #[must_use]
    pub fn new() -> Arc<Activity> {
        Arc::new(Activity {
            in_flight: AtomicUsize::new(0),
            stored: AtomicU64::new(0),
            last: Mutex::new(Instant::now()),
        })
    }

    /// Counts a call whose record has come as in flight, until it is answered.
    /// One that is still sending does not count: it could do so for ever.
    #[must_use]
    pub fn call(self: &Arc<Self>) -> Call {
        self.in_flight.fetch_add(1, Relaxed);
        self.touch();
        Call(Arc::clone(self))
    }

    /// A client has called, or goes on sending.
    pub fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Calls being answered right now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Counts a record as acknowledged.
    pub fn acknowledge(&self) {
        self.stored.fetch_add(1, Relaxed);
    }

    /// Records acknowledged since the start.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.stored.load(Relaxed)
    }

    /// True when a client was heard of after `moment`.
    #[must_use]
    pub fn heard_since(&self, moment: Instant) -> bool {
        self.last() > moment
    }

    /// When a client was last heard of.
    #[must_use]
    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in flight.
pub struct Call(Arc<Activity>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
