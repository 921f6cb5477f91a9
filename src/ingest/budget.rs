//! The budget of request bytes held at once (spec 3): a call reserves its bytes
//! before they are read, and waits where there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{BODY_BUDGET, CALL_OVERHEAD};

/// Bytes that calls share, first come, first served.
pub struct Budget {
    bytes: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Budget {
    /// A budget of [`BODY_BUDGET`] bytes.
    #[must_use]
    pub fn new() -> Arc<Budget> {
        Arc::new(Budget {
            bytes: Arc::new(Semaphore::new(BODY_BUDGET)),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Waits until a call of `length` bytes fits. Its bytes are held as long as
    /// the permit, which goes with them. `None` only if the budget were closed.
    pub async fn reserve(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = (length + CALL_OVERHEAD).min(BODY_BUDGET);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        if let Ok(permit) = Arc::clone(&self.bytes).try_acquire_many_owned(wanted) {
            return Some(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        Arc::clone(&self.bytes)
            .acquire_many_owned(wanted)
            .await
            .ok()
    }

    /// True while a call waits for bytes that others hold.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }
}

/// Counts one waiting call, also when its client gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
