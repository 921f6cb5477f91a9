//! An application that logs from many threads and gives no record up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::JoinSet;

use super::ledger::Ledger;
use super::sender::{Sender, block_on};

/// Calls in flight at once: enough to share the disk's flushes, few enough for
/// an order to speak of, since calls that overlap have none.
pub const LANES: usize = 16;
/// Connections they share.
const CONNECTIONS: usize = 4;
/// Before a record that was not acknowledged is sent again.
const RETRY: Duration = Duration::from_millis(20);

/// Sends every record of a ledger, again and again until it is acknowledged.
pub struct Application {
    pause_micros: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Application {
    pub fn start(socket: &Path, ledger: &Arc<Ledger>) -> Application {
        let pause_micros = Arc::new(AtomicU64::new(0));
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|_| Arc::new(Sender::keeping(socket)))
            .collect();
        let (ledger, pause) = (Arc::clone(ledger), Arc::clone(&pause_micros));
        let thread = std::thread::spawn(move || block_on(send_all(senders, ledger, pause)));
        Application {
            pause_micros,
            thread,
        }
    }

    /// From now on `records` take `time`, as far as the agent lets them.
    pub fn pace(&self, records: usize, time: Duration) {
        let turns = (records / LANES).max(1) as u128;
        let pause = time.as_micros() / turns;
        self.pause_micros
            .store(u64::try_from(pause).unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether every record has been acknowledged.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }
}

async fn send_all(senders: Vec<Arc<Sender>>, ledger: Arc<Ledger>, pause: Arc<AtomicU64>) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let sender = Arc::clone(&senders[lane % senders.len()]);
        let (ledger, next, pause) = (Arc::clone(&ledger), Arc::clone(&next), Arc::clone(&pause));
        lanes.spawn(async move {
            let count = ledger.count();
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= count {
                    return;
                }
                send(&sender, &ledger, number).await;
                let pause = Duration::from_micros(pause.load(Relaxed));
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
        });
    }
    lanes.join_all().await;
}

async fn send(sender: &Sender, ledger: &Ledger, number: usize) {
    let record = ledger.record(number);
    loop {
        ledger.calling(number);
        match sender.send_sample(&record).await {
            Ok(answer) if answer.success => return ledger.acknowledged(number),
            // It may be stored or not: only a second call can tell.
            _ => tokio::time::sleep(RETRY).await,
        }
    }
}
