//! Records that are delivered or set aside, and when they are deleted (spec 6). A successor
//! of a killed agent sends at most [`SAVE_RECORDS_MAX`] of them again, one after
//! a power cut those of [`DELETE_DELAY_MAX`].

use std::future::Future;
use std::pin::Pin;

use tokio::time::{Sleep, sleep};

use crate::events::now_rfc3339;
use crate::limits::{DELETE_DELAY_MAX, DELETE_RECORDS_MAX, SAVE_RECORDS_MAX};
use crate::log::Log;
use crate::store;

/// The group of records that the next delete will take.
pub struct DeliveryTracker {
    store: store::Handle,
    success_log: Log,
    line: Line,
    count: usize,
    /// Of those, the ones that a successor would send again.
    unsaved: usize,
    /// Made once a group: a timer costs more than most of what a record takes.
    due: Option<Pin<Box<Sleep>>>,
}

/// A line of the success log.
#[derive(Default)]
struct Line {
    first: u64,
    last: u64,
    count: u64,
}

impl DeliveryTracker {
    /// An empty group.
    #[must_use]
    pub fn new(store: store::Handle, success_log: Log) -> DeliveryTracker {
        DeliveryTracker {
            store,
            success_log,
            line: Line::default(),
            count: 0,
            unsaved: 0,
            due: None,
        }
    }

    /// Takes a record, the next in order, into the group.
    pub async fn add(&mut self, key: u64, delivered: bool) {
        self.store.set_delivered(key);
        self.count += 1;
        self.unsaved += 1;
        if delivered {
            if self.line.count == 0 {
                self.line.first = key;
            }
            self.line.last = key;
            self.line.count += 1;
        }
        if self.due.is_none() {
            self.due = Some(Box::pin(sleep(DELETE_DELAY_MAX)));
        }
        if self.count >= DELETE_RECORDS_MAX {
            self.flush().await;
        } else if self.unsaved >= SAVE_RECORDS_MAX {
            // Closed: the writer saw to it when it closed the store.
            let _ = self.store.save_delivered().await;
            self.unsaved = 0;
        }
    }

    /// Deletes the group now.
    pub async fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        self.due = None;
        // Closed: the writer saw to it when it closed the store.
        let _ = self.store.delete_delivered().await;
        // Not before: a flush that a signal cuts short is caught up on, or its
        // line would be missing from the log.
        (self.count, self.unsaved) = (0, 0);
        let Line { first, last, count } = std::mem::take(&mut self.line);
        if count > 0 {
            let time = now_rfc3339();
            self.success_log.append(&format!(
                "{{\"time\":\"{time}\",\"first\":{first},\"last\":{last},\"count\":{count}}}\n"
            ));
        }
    }

    /// Does something that may take long, without holding up a delete that
    /// falls due meanwhile.
    pub async fn meanwhile<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> T {
        if let Some(due) = &mut self.due {
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = due => self.flush().await,
            }
        }
        work.await
    }
}
