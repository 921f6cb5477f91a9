//! What an agent does until it exits (spec 5.2 to 5.4): buffering, replaying, leaving.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use crate::error::Result;
use crate::events::Events;
use crate::folder::Folder;
use crate::ingest::admission::Admission;
use crate::ingest::listener::ListenerHandle;
use crate::limits::{
    LEAVE_AGE, LEAVE_DRAIN, LEAVE_JITTER, LEAVE_QUIET, LEAVE_SETTLE, SETTLE_DELAY,
};
use crate::memory;
use crate::random;
use crate::replay::backoff::Probes;
use crate::replay::http::Probe;
use crate::replay::replayer::{Pause, Replayer};
use crate::store::{self, Close};

/// The parts of a running agent, and the loop over them.
pub struct Lifecycle {
    /// The base folder.
    pub folder: Arc<Folder>,
    /// Where events go.
    pub events: Events,
    /// Where clients connect.
    pub listener: ListenerHandle,
    /// What clients are doing.
    pub admission: Arc<Admission>,
    /// The records.
    pub store: store::Handle,
    /// Sends the records on.
    pub replayer: Replayer,
    /// When the agent started.
    pub start: Instant,
    /// Sleep instead of leaving.
    pub standby: bool,
    /// How long no client may call before the agent leaves.
    pub quiet: Quiet,
}

/// A time without a call after which the agent may leave, drawn anew for each.
pub struct Quiet {
    since: Instant,
    length: Duration,
}

impl Quiet {
    /// One that began at that call.
    #[must_use]
    pub fn new(since: Instant) -> Quiet {
        Quiet {
            since,
            length: LEAVE_QUIET + LEAVE_JITTER.mul_f64(random::fraction()),
        }
    }
}

/// How a time ends in which the server is healthy and the store empty.
enum IdleOutcome {
    /// A record has come in.
    Records,
    /// The server is gone again: why.
    Unhealthy(String),
    /// The store is closed and removed.
    Closed,
}

impl Lifecycle {
    /// Runs until there is nothing left to do; `asleep` starts in standby.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::error::Error::Closed) when the store is closed
    /// from elsewhere.
    pub async fn run(&mut self, mut asleep: bool) -> Result<()> {
        loop {
            if asleep {
                // One from a crash, too.
                self.folder.lower_flag();
                self.events.emit("standby", &[]);
                self.rest().await;
            }
            self.outage().await?;
            if !self.standby {
                return Ok(());
            }
            asleep = true;
        }
    }

    /// Waits for a record, and holds on to nothing that an outage has needed: it may
    /// be long before the next.
    async fn rest(&mut self) {
        self.replayer.disconnect();
        let record = self.store.wait_for(|status| status.count > 0);
        if timeout(SETTLE_DELAY, record).await.is_err() {
            memory::release();
            self.store.wait_for(|status| status.count > 0).await;
        }
    }

    /// One outage, from the first probe to the closed store.
    async fn outage(&mut self) -> Result<()> {
        let mut broken = None;
        loop {
            self.buffer(broken).await;
            // The code that took the records goes, and that which sends them comes:
            // together they would be the peak.
            memory::release();
            loop {
                match self.replayer.run().await? {
                    Pause::Unreachable(why) => break broken = Some(why),
                    Pause::Drained => {}
                }
                match self.idle().await? {
                    IdleOutcome::Records => {}
                    IdleOutcome::Unhealthy(why) => break broken = Some(why),
                    IdleOutcome::Closed => return Ok(()),
                }
            }
        }
    }

    /// Probes until the server is healthy; not at once where a replay has just
    /// `broken` off, for that reason.
    async fn buffer(&mut self, broken: Option<String>) {
        let mut raised = self.folder.raise_flag();
        if let Err(error) = &raised {
            let text = error.to_string();
            self.events
                .emit("flag_failed", &[("error", (&text).into())]);
        }
        let mut told = None;
        let mut probes = Probes::new();
        if let Some(why) = broken {
            self.tell_unhealthy(&why, &mut told);
            sleep(probes.next(random::fraction())).await;
        }
        while let Probe::Unhealthy(why) = self.replayer.probe().await {
            self.tell_unhealthy(&why, &mut told);
            if raised.is_err() {
                raised = self.folder.raise_flag();
            }
            memory::release_stack();
            sleep(probes.next(random::fraction())).await;
        }
        self.folder.lower_flag();
        self.events.emit(
            "main_healthy_not_accepting_logs",
            &[("buffered", self.store.status().count.into())],
        );
    }

    /// Says once a phase that the agent buffers, and why; then each time that
    /// the reason has become another: a server that comes back misconfigured is
    /// no longer down.
    fn tell_unhealthy(&self, why: &str, told: &mut Option<String>) {
        let kind = match told.as_deref() {
            None => "main_unhealthy_accepting_logs",
            Some(before) if before != why => "main_still_unhealthy",
            Some(_) => return,
        };
        let buffered = self.store.status().count.into();
        if self
            .events
            .try_emit(kind, &[("error", why.into()), ("buffered", buffered)])
        {
            *told = Some(why.to_owned());
        }
    }

    /// Waits, with nothing to send, until there is something or it is time to
    /// leave.
    async fn idle(&mut self) -> Result<IdleOutcome> {
        loop {
            if self.store.status().count > 0 {
                return Ok(IdleOutcome::Records);
            }
            let wait = self.until_leaving();
            if !wait.is_zero() {
                let records = self.store.wait_for(|status| status.count > 0);
                let _ = timeout(wait, records).await;
                continue;
            }
            if let Probe::Unhealthy(why) = self.replayer.probe().await {
                return Ok(IdleOutcome::Unhealthy(why));
            }
            // The probe took its time: a client may have come meanwhile.
            if self.until_leaving().is_zero() {
                if self.try_to_leave().await? {
                    return Ok(IdleOutcome::Closed);
                }
                // Whatever was in the way may still be: no hot loop.
                let records = self.store.wait_for(|status| status.count > 0);
                let _ = timeout(LEAVE_QUIET, records).await;
            }
        }
    }

    /// How long the agent has to stay at least, as things stand.
    fn until_leaving(&mut self) -> Duration {
        let last = self.admission.last_heard();
        if self.quiet.since != last {
            self.quiet = Quiet::new(last);
        }
        let age = LEAVE_AGE.saturating_sub(self.start.elapsed());
        let quiet = self.quiet.length.saturating_sub(last.elapsed());
        let busy = if self.admission.answering() > 0 || self.store.status().count > 0 {
            LEAVE_QUIET
        } else {
            Duration::ZERO
        };
        age.max(quiet).max(busy)
    }

    /// Leaves, unless a client comes at the last moment; then the socket is
    /// back as if nothing had been.
    async fn try_to_leave(&mut self) -> Result<bool> {
        if self.standby {
            return self.store.close(Close::Sleep).await;
        }
        let hidden_at = {
            let mut listener = self.listener.lock();
            // A client in the backlog now means to call.
            if listener.server.accept_waiting() {
                return Ok(false);
            }
            let now = Instant::now();
            listener.hide();
            now
        };
        let none_came = self.drain(hidden_at).await;
        if none_came && self.store.close(Close::Remove).await? {
            return Ok(true);
        }
        if let Err(error) = self.listener.lock().show() {
            let text = error.to_string();
            self.events
                .emit("socket_blocked", &[("error", (&text).into())]);
        }
        Ok(false)
    }

    /// Serves connected clients for a moment; true when none has come, called or gone on
    /// sending.
    async fn drain(&self, hidden_at: Instant) -> bool {
        // A connection that never called may be about to: it is not closed.
        self.admission.close_served();
        let _ = timeout(LEAVE_DRAIN, async {
            let silent = async {
                sleep(LEAVE_SETTLE).await;
                self.admission.wait_until_silent().await;
            };
            tokio::select! {
                () = silent => {}
                () = self.store.wait_for(|status| status.count > 0) => {}
            }
        })
        .await;
        !self.listener.lock().server.accept_waiting()
            && self.admission.newcomer_grace().is_none()
            && self.admission.last_heard() <= hidden_at
            && self.admission.answering() == 0
            && self.store.status().count == 0
    }
}
