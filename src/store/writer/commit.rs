//! One transaction: the group's records in, what is done with out.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Writer;
use crate::error::{Error, Result};
use crate::limits::DELETES_MAX;
use crate::store::group::{Group, Insert};
use crate::store::lmdb::Lmdb;
use crate::store::opened::OpenStore;
use crate::store::space::Space;
use crate::store::{Marks, Status, record};

impl Writer {
    /// Stores the group and deletes what is done, in one transaction.
    pub(super) fn commit(
        &mut self,
        store: &mut OpenStore,
        mut group: Group,
        closing: bool,
    ) -> Result<()> {
        if !group.inserts.is_empty() {
            match self.make_room(&mut store.lmdb, group.bytes as u64) {
                Err(full @ Error::Full(_)) => self.turn_away(&mut group, &full),
                other => other?,
            }
        }
        let marks = *self.shared.marks();
        let wanted = !group.inserts.is_empty() || !group.flushes.is_empty() || closing;
        if wanted && (marks.count > 0 || !group.inserts.is_empty()) {
            let mut written = self.write(&mut store.lmdb, &mut group)?;
            store.lmdb.return_pages();
            // More than a part of them where the disk had no room for deletes.
            while written && self.shared.marks().count > 0 {
                written = self.write(&mut store.lmdb, &mut Group::default())?;
                store.lmdb.return_pages();
            }
            let left = *self.shared.marks();
            if left.count > 0 {
                // What could not be deleted a successor would send again.
                store.note(left.through);
            }
        }
        if !store.lmdb.is_stuck() {
            self.publish(store.lmdb.count()?);
        }
        for insert in group.inserts {
            let _ = insert.reply.send(Ok(()));
        }
        for reply in group.flushes {
            let _ = reply.send(());
        }
        Ok(())
    }

    /// Makes sure that disk and map have room for so many bytes of records.
    fn make_room(&self, lmdb: &mut Lmdb, bytes: u64) -> Result<()> {
        if let Some(space) = Space::of(self.base.file()) {
            space.admit(bytes, lmdb.free_bytes()?)?;
            lmdb.lengthen(bytes, space);
        }
        lmdb.make_room(bytes)
    }

    /// What one commit deletes of that which is marked.
    fn part(&self, lmdb: &Lmdb) -> Result<Marks> {
        let marks = *self.shared.marks();
        if marks.count <= DELETES_MAX as u64 {
            return Ok(marks);
        }
        Ok(Marks {
            through: lmdb.key_of_first(DELETES_MAX, marks.through)?,
            count: DELETES_MAX as u64,
        })
    }

    /// Writes the group. Where there is no room for its records, they are turned
    /// away, and the deletes that came along are made alone; false where there is no
    /// room even for those.
    fn write(&mut self, lmdb: &mut Lmdb, group: &mut Group) -> Result<bool> {
        let marks = self.part(lmdb)?;
        loop {
            let mut last_key = self.last_key;
            let bytes = if group.inserts.is_empty() {
                0
            } else {
                group.bytes
            };
            let result = lmdb.write(bytes as u64, |lmdb, txn| {
                last_key = self.last_key;
                for Insert { record, .. } in &group.inserts {
                    last_key = record::next_key(last_key, unix_nanos())
                        .ok_or(heed::Error::Mdb(heed::MdbError::KeyExist))?;
                    lmdb.append(txn, last_key, record)?;
                }
                if marks.count > 0 {
                    lmdb.delete_through(txn, marks.through)?;
                }
                Ok(())
            });
            match result {
                Ok(()) => {
                    self.last_key = last_key;
                    self.shared.marks().count -= marks.count;
                    return Ok(true);
                }
                Err(full @ Error::Full(_)) => {
                    let alone = group.inserts.is_empty() || marks.count == 0;
                    self.turn_away(group, &full);
                    if alone || lmdb.is_stuck() {
                        return Ok(false);
                    }
                }
                Err(error) => {
                    self.turn_away(group, &error);
                    return Err(error);
                }
            }
        }
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

    pub(super) fn publish(&self, stored: u64) {
        let status = Status {
            open: true,
            count: stored.saturating_sub(self.shared.marks().count),
        };
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
