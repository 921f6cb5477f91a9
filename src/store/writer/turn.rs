//! What the writer does at a time: a group of what it was asked for, and a step of what
//! there is to carry over from a damaged store.

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use super::Writer;
use crate::error::{Error, Result};
use crate::store::carry::Carry;
use crate::store::messages::{Command, Group};
use crate::store::opened::OpenStore;
use crate::store::{Close, Delivered, Record};

/// What the writer does next.
pub(super) enum Next {
    Command(Command),
    /// There are records to carry over.
    CarryOn,
    /// There is no handle any more.
    End,
}

impl Writer {
    /// What to do next.
    pub(super) async fn next(&mut self, store: &OpenStore) -> Next {
        if store.carry.is_some() {
            // The rest of the agent runs in between.
            yield_now().await;
        }
        let waits = store.carry.as_ref().and_then(Carry::waits_until).is_some();
        if !store.is_scanning()
            && !waits
            && let Some(waiting) = self.waiting.take()
        {
            return Next::Command(waiting);
        }
        match &store.carry {
            None => self.mail.recv().await.map_or(Next::End, Next::Command),
            Some(carry) => match carry.waits_until() {
                Some(at) => match timeout_at(at, self.mail.recv()).await {
                    Ok(command) => command.map_or(Next::End, Next::Command),
                    Err(_) => Next::CarryOn,
                },
                None => match self.mail.try_recv() {
                    Ok(command) => Next::Command(command),
                    Err(TryRecvError::Empty) => Next::CarryOn,
                    Err(TryRecvError::Disconnected) => Next::End,
                },
            },
        }
    }

    /// Goes on carrying over what there is to carry, commits a group, and answers what
    /// ended its gathering. What was not done for damage of the store, or because it has
    /// to be opened anew, is left in the group.
    pub(super) fn turn(
        &mut self,
        store: &mut OpenStore,
        group: &mut Group,
    ) -> Result<Option<(Close, oneshot::Sender<bool>)>> {
        self.carry_on(store)?;
        if store.lmdb.is_stuck() {
            return Ok(None);
        }
        if !group.is_committed {
            self.check_not_removed(store, group);
            let closing = matches!(group.last, Some(Command::Close { .. }));
            self.commit(store, group, closing)?;
            group.is_committed = true;
            if store.lmdb.is_stuck() {
                return Ok(None);
            }
        }
        match group.last.take() {
            Some(Command::Read { reply }) => match self.read(store) {
                Ok(Some(batch)) => drop(reply.send(batch)),
                Ok(None) => self.waiting = Some(Command::Read { reply }),
                Err(error) => {
                    group.last = Some(Command::Read { reply });
                    return Err(error);
                }
            },
            Some(Command::SaveDelivered { reply }) => {
                let Delivered { through, count } = *self.shared.delivered();
                if count > 0 && !store.save_delivered(through) {
                    // Then they are deleted at once.
                    group.deletes.push(reply);
                    group.is_committed = false;
                    return Ok(None);
                } else {
                    let _ = reply.send(());
                }
            }
            Some(Command::Details { reply }) => {
                let _ = reply.send(store.details().unwrap_or_default());
            }
            Some(Command::Close { how, reply }) => {
                if how == Close::Keep || self.is_drained(store) {
                    return Ok(Some((how, reply)));
                }
                let _ = reply.send(false);
            }
            _ => {}
        }
        *group = Group::default();
        Ok(None)
    }

    /// True where nothing is stored, by the store itself and not only by what was counted,
    /// and nothing is about to be.
    fn is_drained(&self, store: &OpenStore) -> bool {
        self.shared.status.borrow().count == 0
            && self.mail.is_empty()
            && matches!(self.read(store), Ok(Some(batch)) if batch.is_empty())
    }

    /// Turns records away that would be gone with the agent.
    fn check_not_removed(&self, store: &OpenStore, group: &mut Group) {
        if !group.inserts.is_empty()
            && let Err(removed) = store.check_not_removed()
        {
            let text = removed.to_string();
            self.events
                .emit("store_removed", &[("error", (&text).into())]);
            self.turn_away(group, &removed);
        }
    }

    /// Goes on carrying the records of a damaged store over, where there is one.
    fn carry_on(&mut self, store: &mut OpenStore) -> Result<()> {
        let may_go_on = |carry: &&mut Carry| carry.waits_until().is_none();
        let Some(carry) = store.carry.as_mut().filter(may_go_on) else {
            return Ok(());
        };
        let was_scanning = carry.is_scanning();
        let through = self.shared.delivered().through;
        let (lmdb, last_key) = (&mut store.lmdb, &mut self.last_key);
        if !carry.step(lmdb, through, last_key, &self.events)? {
            store.carry = None;
        }
        if store.lmdb.is_stuck() {
            return Ok(());
        }
        store.is_committed();
        if was_scanning && !store.is_scanning() {
            // What was delivered meanwhile of the damaged store may be in its place or not.
            self.shared.delivered().count = store.lmdb.count_through(through)?;
        }
        self.publish(store)
    }

    /// What is to be replayed next; `None` while that is not known.
    fn read(&self, store: &OpenStore) -> Result<Option<Vec<Record>>> {
        if store.is_scanning() || (store.carry.is_some() && store.lmdb.has_late_arrivals()?) {
            return Ok(None);
        }
        let Delivered { through, count } = *self.shared.delivered();
        let batch = store.read(through)?;
        if !batch.is_empty() {
            return Ok(Some(batch));
        }
        if store.carry.is_some() {
            return Ok(None);
        }
        match store.lmdb.count()? > count {
            true => Err(Error::Damaged(
                "records are left that cannot be read".into(),
            )),
            false => Ok(Some(batch)),
        }
    }
}
