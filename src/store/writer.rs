//! The task that owns the store: it gathers what arrives together into one
//! durable transaction (group commit, spec 4).

mod commit;

use std::fs::File;
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::events::Events;
use crate::folder::Folder;
use crate::limits::FULL_RETRY;
use crate::store::group::Group;
use crate::store::opened::OpenStore;
use crate::store::remove::remove;
use crate::store::{Close, Command, Details, Handle, Marks, Shared, open};

/// Owns the store; [`Writer::run`] is its life.
pub struct Writer {
    base: Arc<Folder>,
    events: Events,
    mail: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    /// The newest key ever, over all stores of this life: the order is that of
    /// arrival, also when the clock steps back between two stores.
    last_key: u64,
}

impl Writer {
    /// A writer for the store in the base folder, and the handle to it.
    #[must_use]
    pub fn new(base: Arc<Folder>, events: Events) -> (Writer, Handle) {
        let (handle, mail) = Handle::new();
        let writer = Writer {
            base,
            events,
            mail,
            shared: handle.shared.clone(),
            last_key: 0,
        };
        (writer, handle)
    }

    /// Opens the store and serves until it is closed. With `asleep`, a store
    /// is opened by the first record.
    ///
    /// # Errors
    /// Those that end the agent: the store cannot be opened, or the disk failed.
    /// Whoever waits for a record gets [`Error::Closed`] or the error itself.
    pub async fn run(mut self, mut asleep: bool) -> Result<()> {
        loop {
            let mut first = None;
            if asleep {
                self.publish(0);
                first = self.sleep().await;
                if first.is_none() {
                    return Ok(());
                }
            }
            let Some(store) = self.open(&mut first).await? else {
                return Ok(());
            };
            self.publish(store.lmdb.count()?);
            let Some((store, how, reply)) = self.serve(store, first).await? else {
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
    fn close(&self, store: OpenStore, how: Close) -> Result<()> {
        let folder = store.lmdb.folder().to_owned();
        let empty = self.shared.status.borrow().count == 0;
        let not_removed = store.check_not_removed();
        let data = store.lmdb.close();
        if how == Close::Keep && !empty {
            not_removed?;
            // Without the marker the next start takes a little longer.
            let _ = open::mark_clean(&folder);
        } else if self.base.is_in_place() {
            remove(&folder, data.as_ref()).map_err(|error| {
                Error::DiskFailed(format!("removing {}: {error}", folder.display()))
            })?;
            *self.shared.marks() = Marks::default();
            if how != Close::Sleep {
                let _ = data.map(File::into_raw_fd);
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

    /// Opens the store; while the disk has no room for one, records are refused
    /// with that reason and it is tried again. `None`: closed meanwhile.
    async fn open(&mut self, first: &mut Option<Command>) -> Result<Option<OpenStore>> {
        loop {
            self.check_in_place()?;
            match open::open(self.base.path(), &self.events).await {
                Ok(opened) => {
                    let (store, marks) = OpenStore::new(opened)?;
                    let last = store.lmdb.key_bounds()?.map_or(0, |(_, last)| last);
                    // A mark may be newer than what the disk has kept of its store.
                    self.last_key = self.last_key.max(last).max(marks.through);
                    *self.shared.marks() = marks;
                    return Ok(Some(store));
                }
                Err(full @ Error::Full(_)) => {
                    self.events
                        .emit("store_full", &[("error", (&full.to_string()).into())]);
                    *first = match first.take() {
                        Some(Command::Insert { reply, .. }) => {
                            let _ = reply.send(Err(full.clone()));
                            None
                        }
                        other => other,
                    };
                    let refusing = self.refuse(&full, first);
                    if let Ok(()) = timeout(FULL_RETRY, refusing).await {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Refuses records for want of a store; ends when it is to be closed. Who
    /// wants to read what is on disk waits for it as `first`.
    async fn refuse(&mut self, error: &Error, first: &mut Option<Command>) {
        while let Some(command) = self.mail.recv().await {
            match command {
                Command::Insert { reply, .. } => {
                    let _ = reply.send(Err(error.clone()));
                }
                Command::Close { how, reply } => {
                    let empty = !open::has_data(self.base.path());
                    let may_close = how == Close::Keep || (how == Close::Remove && empty);
                    let _ = reply.send(may_close);
                    if may_close {
                        return;
                    }
                }
                read @ Command::Read { .. } if open::has_data(self.base.path()) => {
                    *first = Some(read);
                }
                other => answer_without_store(other),
            }
        }
    }

    /// Waits for a record without a store.
    async fn sleep(&mut self) -> Option<Command> {
        loop {
            match self.mail.recv().await? {
                insert @ Command::Insert { .. } => return Some(insert),
                Command::Close { reply, how } if how != Close::Sleep => {
                    let _ = reply.send(true);
                    return None;
                }
                other => answer_without_store(other),
            }
        }
    }

    /// Serves until the store is to be closed; `None` when nobody holds a handle
    /// any more.
    async fn serve(
        &mut self,
        mut store: OpenStore,
        mut first: Option<Command>,
    ) -> Result<Option<(OpenStore, Close, oneshot::Sender<bool>)>> {
        loop {
            let next = match first.take() {
                Some(command) => Some(command),
                None => self.mail.recv().await,
            };
            let Some(command) = next else {
                return Ok(None);
            };
            let mut group = Group::default();
            group.add(command);
            self.gather(&mut group).await;
            let last = group.last.take();
            let closing = matches!(last, Some(Command::Close { .. }));
            if !group.inserts.is_empty()
                && let Err(removed) = store.check_not_removed()
            {
                let text = removed.to_string();
                self.events
                    .emit("store_removed", &[("error", (&text).into())]);
                self.turn_away(&mut group, &removed);
            }
            self.commit(&mut store, group, closing)?;
            if store.lmdb.is_stuck() {
                self.check_in_place()?;
                store = store.reopen()?;
            }
            match last {
                Some(Command::Read { reply }) => {
                    let done = self.shared.marks().through;
                    let _ = reply.send(store.read(done)?);
                }
                Some(Command::Note { reply }) => {
                    let marks = *self.shared.marks();
                    if marks.count > 0 && !store.note(marks.through) {
                        // Then they are deleted at once.
                        first = Some(Command::Flush { reply });
                    } else {
                        let _ = reply.send(());
                    }
                }
                Some(Command::Details { reply }) => {
                    let _ = reply.send(store.details()?);
                }
                Some(Command::Close { how, reply }) => {
                    let left = self.shared.status.borrow().count > 0 || !self.mail.is_empty();
                    if how == Close::Keep || !left {
                        return Ok(Some((store, how, reply)));
                    }
                    let _ = reply.send(false);
                }
                _ => {}
            }
        }
    }

    /// Takes what has arrived, and lets those who are about to send do so: calls
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
        Command::Note { reply } | Command::Flush { reply } => drop(reply.send(())),
        Command::Details { reply } => drop(reply.send(Details::default())),
        Command::Close { reply, .. } => drop(reply.send(true)),
        // Dropping the reply says that the store is closed.
        Command::Insert { .. } => {}
    }
}
