//! One transaction: the group's records in, what was delivered out.

use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Writer;
use crate::error::{Error, Result};
use crate::limits::DELETES_MAX;
use crate::store::messages::{Group, Insert};
use crate::store::opened::OpenStore;
use crate::store::{Delivered, Status, record};

impl Writer {
    /// Stores the group and deletes what was delivered, in one transaction. Where the
    /// store turns out damaged, what was not answered is left in the group.
    pub(super) fn commit(
        &mut self,
        store: &mut OpenStore,
        group: &mut Group,
        closing: bool,
    ) -> Result<()> {
        if !group.inserts.is_empty() {
            match store.lmdb.admit(group.bytes as u64) {
                Err(full @ Error::Full(_)) => self.turn_away(group, &full),
                other => other?,
            }
        }
        let wanted = !group.inserts.is_empty() || !group.deletes.is_empty() || closing;
        let deletes = self.to_delete(store).count > 0;
        if wanted && (deletes || !group.inserts.is_empty()) {
            let mut written = self.write(store, group)?;
            for insert in group.inserts.drain(..) {
                let _ = insert.reply.send(Ok(()));
            }
            store.lmdb.return_pages();
            // More than a part of them where the disk had no room for deletes.
            while written && self.to_delete(store).count > 0 {
                written = self.write(store, &mut Group::default())?;
                store.lmdb.return_pages();
            }
            if written {
                store.is_committed();
            }
            if deletes {
                // What could not be deleted a successor would send again, and of a damaged
                // store all that was not kept here.
                store.save_delivered(self.shared.delivered().through);
            }
        }
        if !store.lmdb.is_stuck() {
            self.publish(store)?;
        }
        for reply in group.deletes.drain(..) {
            let _ = reply.send(());
        }
        Ok(())
    }

    /// What was delivered, and may be deleted.
    fn to_delete(&self, store: &OpenStore) -> Delivered {
        match store.is_scanning() {
            true => Delivered::default(),
            false => *self.shared.delivered(),
        }
    }

    /// What one commit deletes of that.
    fn part(&self, store: &OpenStore) -> Result<Delivered> {
        let delivered = self.to_delete(store);
        if delivered.count <= DELETES_MAX as u64 {
            return Ok(delivered);
        }
        Ok(Delivered {
            through: store.lmdb.key_of_first(DELETES_MAX, delivered.through)?,
            count: DELETES_MAX as u64,
        })
    }

    /// Writes the group. Where there is no room for its records, they are turned
    /// away, and the deletes that came along are made alone; false where there is no
    /// room even for those.
    fn write(&mut self, store: &mut OpenStore, group: &mut Group) -> Result<bool> {
        let deleted = self.part(store)?;
        let waits = store.carry.is_some();
        loop {
            let mut last_key = self.last_key;
            let bytes = match group.inserts.is_empty() {
                true => 0,
                false => group.bytes as u64,
            };
            let keys = self.keys_for(group.inserts.len());
            if keys.is_none() {
                // Once the store is drained, a new one begins with the time again.
                self.turn_away(group, &Error::Full("store full: no key is left".into()));
            }
            let keys = keys.unwrap_or(0..=0);
            let result = store.lmdb.write(bytes, &mut |lmdb, trees, txn| {
                for (key, Insert { record, .. }) in keys.clone().zip(&group.inserts) {
                    trees.append(txn, waits, key, &record::encoded(key, record))?;
                    last_key = key;
                }
                if deleted.count > 0 {
                    trees.delete_through(lmdb, txn, deleted.through)?;
                }
                Ok(())
            });
            match result {
                Ok(()) => {
                    self.last_key = last_key;
                    self.shared.delivered().count -= deleted.count;
                    return Ok(true);
                }
                Err(full @ Error::Full(_)) => {
                    let alone = group.inserts.is_empty() || deleted.count == 0;
                    self.turn_away(group, &full);
                    if alone || store.lmdb.is_stuck() {
                        return Ok(false);
                    }
                }
                Err(error @ Error::Damaged(_)) => return Err(error),
                Err(error) => {
                    self.turn_away(group, &error);
                    return Err(error);
                }
            }
        }
    }

    /// The keys of so many records that are stored now, one behind the other; `None` only
    /// at the end of u64.
    fn keys_for(&self, records: usize) -> Option<RangeInclusive<u64>> {
        let last = self.last_key.max(self.shared.delivered().through);
        let first = record::next_key(last, unix_nanos())?;
        let last = first.checked_add((records as u64).saturating_sub(1))?;
        Some(first..=last)
    }

    /// Tells every client of the group why its record was not stored.
    pub(super) fn turn_away(&self, group: &mut Group, error: &Error) {
        if matches!(error, Error::Full(_)) {
            self.events
                .emit("store_full", &[("error", (&error.to_string()).into())]);
        }
        for insert in group.inserts.drain(..) {
            let _ = insert.reply.send(Err(error.clone()));
        }
    }

    /// Tells what the store holds. While a damaged one is scanned nothing is known of how
    /// much that is, but for that it is not nothing.
    pub(super) fn publish(&self, store: &OpenStore) -> Result<()> {
        let delivered = self.to_delete(store).count;
        let left = store.lmdb.count()?.saturating_sub(delivered);
        self.publish_count(left.max(u64::from(store.is_scanning())));
        Ok(())
    }

    pub(super) fn publish_count(&self, count: u64) {
        let status = Status { open: true, count };
        self.shared
            .status
            .send_if_modified(|old| std::mem::replace(old, status) != status);
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}
