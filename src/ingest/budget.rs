//! The budget of request bytes held at once (spec 3): a call reserves its bytes
//! before they are read, and waits where there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{BODY_BUDGET, CALL_OVERHEAD, SMALL_BODIES_BUDGET, SMALL_BODY_MAX};

/// Bytes that calls share. Small bodies have a share of their own, so that no
/// number of slow large ones can hold up a client with a line to log.
pub struct Budget {
    small: Share,
    large: Share,
}

impl Default for Budget {
    /// A budget of [`BODY_BUDGET`] bytes.
    fn default() -> Budget {
        Budget {
            small: Share::new(SMALL_BODIES_BUDGET),
            large: Share::new(BODY_BUDGET - SMALL_BODIES_BUDGET),
        }
    }
}

impl Budget {
    /// The share that a body of `length` bytes is taken from.
    #[must_use]
    pub fn share(&self, length: usize) -> &Share {
        if length <= SMALL_BODY_MAX {
            &self.small
        } else {
            &self.large
        }
    }
}

/// A part of the budget: first come, first served.
pub struct Share {
    bytes: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
}

impl Share {
    fn new(size: usize) -> Share {
        Share {
            bytes: Arc::new(Semaphore::new(size)),
            size,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits until a call of `length` bytes fits. Its bytes are held as long as
    /// the permit, which goes with them. `None` only if the budget were closed.
    pub async fn reserve(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = (length + CALL_OVERHEAD).min(self.size);
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
