//! The stall rule (spec 3): a body that makes no progress while others wait is dropped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::limits::{BODY_LOOK, BODY_PROGRESS_MIN, BODY_STALL};

/// Time without progress while others waited.
#[derive(Default)]
pub(super) struct StallClock {
    /// Bytes since the last progress.
    grown: usize,
    pub(super) stalled: Duration,
    /// Runs while the body is waited for.
    look: Option<Pin<Box<Sleep>>>,
}

impl StallClock {
    pub(super) fn came(&mut self, bytes: usize) {
        self.grown += bytes;
        if self.grown >= BODY_PROGRESS_MIN {
            self.restart();
        }
    }

    pub(super) fn restart(&mut self) {
        *self = StallClock::default();
    }

    /// Ready every [`BODY_LOOK`]. However late it comes, a look counts for the time
    /// between two.
    pub(super) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let look = self.look.get_or_insert_with(|| Box::pin(sleep(BODY_LOOK)));
        ready!(look.as_mut().poll(cx));
        look.as_mut().reset(Instant::now() + BODY_LOOK);
        Poll::Ready(())
    }

    /// Ready once the body has made no progress for [`BODY_STALL`] while others waited.
    pub(super) fn poll_stalled(
        &mut self,
        cx: &mut Context<'_>,
        others_wait: impl Fn() -> bool,
    ) -> Poll<()> {
        while self.stalled < BODY_STALL {
            ready!(self.poll_look(cx));
            match others_wait() {
                true => self.stalled += BODY_LOOK,
                false => (self.stalled, self.grown) = (Duration::ZERO, 0),
            }
        }
        Poll::Ready(())
    }
}
