//! An application that logs as fast as it is let, and that waits where there is
//! no room.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use echopost::limits::IDLE_GRACE;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::support::ledger::Ledger;
use crate::support::sender::{Sender, block_on};

/// Calls in flight at once.
pub const IN_FLIGHT: usize = 64;
/// Connections that they share, where they share any.
const CONNECTIONS: usize = 4;
/// Between two looks for room.
const LOOK: Duration = Duration::from_millis(20);
/// A record that was refused is tried again by then, whether anything was
/// delivered or not.
const PATIENCE: Duration = Duration::from_secs(1);

/// How the application reaches the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// A few that stay.
    Kept,
    /// One for each record, as the SDK does it.
    EachRecord,
}

pub struct Client {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    ledger: Arc<Ledger>,
    /// What a refusal has to say; none is allowed without.
    full: Option<&'static str>,
    next: AtomicUsize,
    refusals: AtomicUsize,
    /// Times at which this process itself stood still for so long that an agent short
    /// of descriptors may have taken its connections for silent.
    held_up: AtomicUsize,
    faults: Mutex<Vec<String>>,
}

impl Client {
    /// Sends every record of the ledger until it is acknowledged.
    pub fn start(
        socket: &Path,
        ledger: &Arc<Ledger>,
        channels: Channels,
        full: Option<&'static str>,
    ) -> Client {
        let senders: Vec<_> = match channels {
            Channels::Kept => (0..CONNECTIONS).map(|_| Sender::keeping(socket)).collect(),
            Channels::EachRecord => vec![Sender::reconnecting(socket)],
        };
        let senders: Vec<_> = senders.into_iter().map(Arc::new).collect();
        let shared = Arc::new(Shared {
            ledger: Arc::clone(ledger),
            full,
            next: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            held_up: AtomicUsize::new(0),
            faults: Mutex::default(),
        });
        let sending = Arc::clone(&shared);
        let thread = std::thread::spawn(move || block_on(send_all(senders, sending)));
        Client { shared, thread }
    }

    /// Whether every record has been acknowledged.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn refusals(&self) -> usize {
        self.shared.refusals.load(Relaxed)
    }

    /// Answers that no call should have had.
    pub fn faults(&self) -> Vec<String> {
        self.shared.lock_faults().clone()
    }
}

async fn send_all(senders: Vec<Arc<Sender>>, shared: Arc<Shared>) {
    let watched = Arc::clone(&shared);
    tokio::spawn(async move {
        loop {
            let before = Instant::now();
            tokio::time::sleep(LOOK).await;
            if before.elapsed() > IDLE_GRACE / 2 {
                watched.held_up.fetch_add(1, Relaxed);
            }
        }
    });
    let mut lanes = JoinSet::new();
    for lane in 0..IN_FLIGHT {
        let sender = Arc::clone(&senders[lane % senders.len()]);
        let shared = Arc::clone(&shared);
        lanes.spawn(async move {
            let count = shared.ledger.count();
            loop {
                let number = shared.next.fetch_add(1, Relaxed);
                if number >= count || !shared.send(&sender, number).await {
                    return;
                }
            }
        });
    }
    lanes.join_all().await;
}

impl Shared {
    /// False after an answer that is a fault.
    async fn send(&self, sender: &Sender, number: usize) -> bool {
        let record = self.ledger.record(number);
        loop {
            self.ledger.calling(number);
            let held_up = self.held_up.load(Relaxed);
            match sender.send_sample(&record).await {
                Ok(answer) if answer.success => {
                    self.ledger.acknowledged(number);
                    return true;
                }
                Err(status) if self.is_full(&status) => {
                    self.ledger.refused(number);
                    self.refusals.fetch_add(1, Relaxed);
                    self.wait_for_room().await;
                }
                other => {
                    // The watch has its turn.
                    tokio::time::sleep(2 * LOOK).await;
                    if other.is_err() && self.held_up.load(Relaxed) != held_up {
                        continue;
                    }
                    self.lock_faults().push(format!("{number}: {other:?}"));
                    return false;
                }
            }
        }
    }

    fn is_full(&self, status: &Status) -> bool {
        let says = |full: &str| status.message().contains(full);
        status.code() == Code::ResourceExhausted && self.full.is_some_and(says)
    }

    /// Delivered records leave room behind.
    async fn wait_for_room(&self) {
        let before = self.ledger.totals().delivered;
        let end = Instant::now() + PATIENCE;
        while self.ledger.totals().delivered == before && Instant::now() < end {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn lock_faults(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
