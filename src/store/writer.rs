//! The task that owns the store: it gathers what arrives together into one
//! durable transaction (group commit, spec 4).

mod commit;
mod turn;

use std::os::fd::IntoRawFd;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::{EXIT_DISK_FAILED, Error, Result};
use crate::events::Events;
use crate::folder::Folder;
use crate::limits::{DAMAGES_MAX, FULL_RETRY};
use crate::store::files::{FOLDER, has_data};
use crate::store::lmdb::Lmdb;
use crate::store::messages::{Command, Group};
use crate::store::open::{self, Candidate, Damage};
use crate::store::opened::OpenStore;
use crate::store::record::StoreId;
use crate::store::remove::remove;
use crate::store::{Close, Delivered, Details, Handle, Shared, trust};
use turn::Next;

/// Owns the store; [`Writer::run`] is its life.
pub struct Writer {
    base: Arc<Folder>,
    events: Events,
    mail: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    /// What is known of the store that is opened next.
    candidate: Candidate,
    /// Asked for while a damaged store is scanned.
    waiting: Option<Command>,
    /// The newest key ever, over all stores of this life: the order is that of
    /// arrival, also when the clock steps back between two stores.
    last_key: u64,
}

impl Writer {
    /// A writer for the store in the base folder, of which `candidate` is known, and the
    /// handle to it.
    #[must_use]
    pub fn new(base: Arc<Folder>, candidate: Candidate, events: Events) -> (Writer, Handle) {
        let (handle, mail) = Handle::new();
        let writer = Writer {
            base,
            events,
            mail,
            shared: handle.shared.clone(),
            candidate,
            waiting: None,
            last_key: 0,
        };
        (writer, handle)
    }

    /// Opens the store and serves until it is closed. With `asleep`, a store
    /// is opened by the first record.
    ///
    /// # Errors
    /// Those that end the agent: the store cannot be opened, or the disk failed. A client
    /// that waits for a record gets [`Error::Closed`] or the error itself.
    pub async fn run(mut self, asleep: bool) -> Result<()> {
        let ended = self.serve_stores(asleep).await;
        if let Err(error) = &ended
            && error.exit_code() == EXIT_DISK_FAILED
        {
            // What the page cache shows may not be what the disk has.
            let folder = self.base.path().join(FOLDER);
            trust::revoke(&folder);
            trust::forget_verified(&folder);
        }
        ended
    }

    async fn serve_stores(&mut self, mut asleep: bool) -> Result<()> {
        loop {
            let mut group = Group::default();
            if asleep {
                self.publish_count(0);
                match self.sleep().await {
                    Some(first) => group.add(first),
                    None => return Ok(()),
                }
            }
            let Some(store) = self.open(&mut group).await? else {
                return Ok(());
            };
            let Some((store, how, reply)) = self.serve(store, group).await? else {
                return Ok(());
            };
            self.close(store, how)?;
            let _ = reply.send(true);
            if how != Close::Sleep {
                return Ok(());
            }
            asleep = true;
        }
    }

    /// Closes the store; an empty one is removed, unless another folder has
    /// taken the place of the one that is locked. On the way out its data file stays
    /// open to the end of the process: to give gigabytes of blocks back takes a while,
    /// and a successor waits for the lock only.
    fn close(&mut self, store: OpenStore, how: Close) -> Result<()> {
        let folder = store.lmdb.folder().to_owned();
        let empty = self.shared.status.borrow().count == 0;
        let not_removed = store.check_not_removed();
        let data = store.lmdb.close();
        self.candidate = Candidate::default();
        if how == Close::Keep && !empty {
            not_removed?;
            trust::forget_verified(&folder);
            trust::trust_as_clean(&folder);
        } else if self.base.is_in_place() {
            remove(&folder, &data).map_err(|error| {
                Error::DiskFailed(format!("removing {}: {error}", folder.display()))
            })?;
            *self.shared.delivered() = Delivered::default();
            if how != Close::Sleep {
                let _ = data.into_raw_fd();
            }
        }
        Ok(())
    }

    /// The store in a folder of the same name is another agent's.
    fn check_in_place(&self) -> Result<()> {
        self.base.check_in_place().map_err(|error| {
            Error::CannotCreate(format!("folder {}: {error}", self.base.path().display()))
        })
    }

    /// Opens the store; while the disk has no room for one, records, those of the group
    /// first, are refused with that reason and it is tried again. `None`: closed meanwhile.
    async fn open(&mut self, group: &mut Group) -> Result<Option<OpenStore>> {
        let mut damages = 0;
        loop {
            self.check_in_place()?;
            let opened = open::open(self.base.path(), &mut self.candidate, &self.events).await;
            match opened.and_then(|(lmdb, damage)| self.take_over(lmdb, damage)) {
                Ok(store) => return Ok(Some(store)),
                Err(Error::Damaged(reason)) if damages < DAMAGES_MAX => {
                    damages += 1;
                    self.set_aside(Damage::new(reason, None), None)?;
                }
                Err(full @ Error::Full(_)) => {
                    self.turn_away(group, &full);
                    group.deletes.clear();
                    let refusing = self.refuse(&full, group);
                    if let Ok(()) = timeout(FULL_RETRY, refusing).await {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Learns what an open store holds.
    fn take_over(&mut self, lmdb: Lmdb, damage: Option<Damage>) -> Result<OpenStore> {
        let last = lmdb.key_bounds()?.map_or(0, |(_, last)| last);
        let before = self.candidate.before.take();
        let before = before.filter(|(id, _)| *id == lmdb.id());
        let (store, mut delivered) = OpenStore::new(lmdb, damage)?;
        if let Some((_, through)) = before {
            // The file may not have been written.
            delivered.through = delivered.through.max(through);
        }
        // What was delivered may be newer than what the disk has kept; and the clock may be
        // behind a damaged store.
        let floor = last.max(delivered.through).max(store.written_at());
        self.last_key = self.last_key.max(floor);
        // Only the first store that is opened can hold what an earlier agent left.
        let _ = self.shared.earlier_through.set(floor);
        *self.shared.delivered() = delivered;
        self.publish(&store)?;
        Ok(store)
    }

    /// Makes a store that has turned out damaged a salvage; a fresh one is opened next.
    fn set_aside(&mut self, damage: Damage, before: Option<(StoreId, u64)>) -> Result<()> {
        self.check_in_place()?;
        open::set_aside(&self.base.path().join(FOLDER), &damage, &self.events)?;
        self.candidate = Candidate::after(damage, before);
        Ok(())
    }

    /// Refuses records for want of a store; ends when it is to be closed. To read what is on
    /// disk waits for one in the group.
    async fn refuse(&mut self, error: &Error, group: &mut Group) {
        while let Some(command) = self.mail.recv().await {
            match command {
                Command::Insert(insert) => {
                    let _ = insert.reply.send(Err(error.clone()));
                }
                Command::Close { how, reply } => {
                    let empty = !has_data(self.base.path());
                    let may_close = how == Close::Keep || (how == Close::Remove && empty);
                    let _ = reply.send(may_close);
                    if may_close {
                        return;
                    }
                }
                read @ Command::Read { .. } if has_data(self.base.path()) => group.add(read),
                other => answer_without_store(other),
            }
        }
    }

    /// Waits for a record without a store.
    async fn sleep(&mut self) -> Option<Command> {
        loop {
            match self.mail.recv().await? {
                insert @ Command::Insert(_) => return Some(insert),
                Command::Close { reply, how } if how != Close::Sleep => {
                    let _ = reply.send(true);
                    return None;
                }
                other => answer_without_store(other),
            }
        }
    }

    /// Serves until the store is to be closed; `None` when there is no handle any more.
    async fn serve(
        &mut self,
        mut store: OpenStore,
        mut group: Group,
    ) -> Result<Option<(OpenStore, Close, oneshot::Sender<bool>)>> {
        let mut damages = 0;
        loop {
            if group.is_empty() {
                group = Group::default();
                match self.next(&store).await {
                    Next::Command(command) => {
                        group.add(command);
                        self.gather(&mut group).await;
                    }
                    Next::CarryOn => {}
                    Next::End => return Ok(None),
                }
            }
            match self.turn(&mut store, &mut group) {
                Ok(Some((how, reply))) => return Ok(Some((store, how, reply))),
                Ok(None) if store.lmdb.is_stuck() => {
                    self.check_in_place()?;
                    store = store.reopen()?;
                }
                Ok(None) => {}
                Err(Error::Damaged(reason)) if damages < DAMAGES_MAX => {
                    damages += 1;
                    let through = self.shared.delivered().through;
                    store.save_delivered(through);
                    let before = (store.lmdb.id(), through);
                    let damage = Damage::new(reason, store.lmdb.count().ok());
                    drop(store);
                    self.set_aside(damage, Some(before))?;
                    store = match self.open(&mut group).await? {
                        Some(store) => store,
                        None => return Ok(None),
                    };
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what has arrived, and lets clients that are about to send do so: calls
    /// that arrive together share one flush.
    async fn gather(&mut self, group: &mut Group) {
        loop {
            let before = group.inserts.len();
            while group.has_room() {
                match self.mail.try_recv() {
                    Ok(command) => group.add(command),
                    Err(_) => break,
                }
            }
            if group.inserts.is_empty() || !group.has_room() {
                return;
            }
            tokio::task::yield_now().await;
            if self.mail.is_empty() && group.inserts.len() == before {
                return;
            }
        }
    }
}

/// What can be said while there is no store.
fn answer_without_store(command: Command) {
    match command {
        Command::Read { reply } => drop(reply.send(Vec::new())),
        Command::SaveDelivered { reply } | Command::DeleteDelivered { reply } => {
            let _ = reply.send(());
        }
        Command::Details { reply } => drop(reply.send(Details::default())),
        Command::Close { reply, .. } => drop(reply.send(true)),
        // Dropping the reply says that the store is closed.
        Command::Insert(_) => {}
    }
}
