//! The way in: the socket file, and the server behind it.

use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::events::Events;
use crate::folder::Folder;
use crate::ingest::server::Server;
use crate::ingest::socket::Socket;
use crate::limits::SOCKET_POLL;

/// Where clients come in. Clones are the same door.
#[derive(Clone)]
pub struct Doorway(Arc<Mutex<Door>>);

/// How clients find the agent.
pub enum Entrance {
    /// By a socket file of its own; `None` until one can be bound.
    Own(Option<Socket>),
    /// By a socket that its starter passed and listens at, too (spec 5.9). Its file
    /// is none of the agent's business, and nobody who connects is ever refused:
    /// the kernel keeps them in a backlog that outlives the agent, and the starter
    /// starts the next one for them. What must not happen is that an agent takes
    /// a client and ends before it has served it. So "out of sight" is here not to
    /// accept. Whoever has been accepted is looked after as always; whoever waits
    /// at the last look is accepted, and the agent stays; and whoever comes after
    /// that, while the store is closed and the process ends, is left to the next.
    Passed,
}

/// The door itself; nobody holds it across an await.
pub struct Door {
    folder: Arc<Folder>,
    entrance: Entrance,
    /// The file is out of sight on purpose.
    hidden: bool,
    /// Where clients are served.
    pub server: Server,
}

impl Doorway {
    /// Serves the clients that come by `entrance`; where there is no socket yet,
    /// [`Doorway::watch`] binds it.
    #[must_use]
    pub fn new(folder: Arc<Folder>, entrance: Entrance, server: Server) -> Doorway {
        Doorway(Arc::new(Mutex::new(Door {
            folder,
            entrance,
            hidden: false,
            server,
        })))
    }

    /// The door, for one synchronous step.
    pub fn lock(&self) -> MutexGuard<'_, Door> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the socket file for ever: if it vanishes or is replaced, it is
    /// bound again at once (spec 5.6). Returns where there is none to watch.
    pub async fn watch(self, events: Events) {
        if let Entrance::Passed = self.lock().entrance {
            return;
        }
        let mut watch = watch::Watch::new(self.lock().folder.path());
        let mut told = false;
        loop {
            let mended = self.lock().mend();
            told = match &mended {
                Ok(false) => false,
                Ok(true) => {
                    events.emit("socket_bound_again", &[]);
                    false
                }
                Err(_) if told => true,
                Err(error) => {
                    let text = error.to_string();
                    events.try_emit("socket_blocked", &[("error", (&text).into())])
                }
            };
            let poll = mended.is_err() || !watch.is_live();
            tokio::select! {
                () = watch.changed() => {}
                () = async { if poll { tokio::time::sleep(SOCKET_POLL).await } else { pending().await } } => {}
            }
        }
    }
}

impl Door {
    /// Binds the socket again if its file is gone; true when it had to.
    fn mend(&mut self) -> io::Result<bool> {
        let Entrance::Own(bound) = &mut self.entrance else {
            return Ok(false);
        };
        if self.hidden || bound.as_ref().is_some_and(Socket::is_in_place) {
            return Ok(false);
        }
        self.folder.check_in_place()?;
        let (socket, listener) = Socket::bind(self.folder.path())?;
        if let Err(error) = self.server.listen(listener) {
            // A file with nobody behind it would be worse than none.
            socket.remove();
            return Err(error);
        }
        *bound = Some(socket);
        Ok(true)
    }

    /// Takes the socket file out of sight: who looks for it finds none, who has
    /// connected is served.
    pub fn hide(&mut self) {
        self.hidden = true;
        match &self.entrance {
            Entrance::Own(Some(socket)) => socket.hide(),
            Entrance::Own(None) => {}
            Entrance::Passed => self.server.pause(),
        }
    }

    /// Puts the file back.
    ///
    /// # Errors
    /// Those of the file system; the watch tries again.
    pub fn show(&mut self) -> io::Result<()> {
        self.hidden = false;
        match &self.entrance {
            Entrance::Own(Some(socket)) if socket.show().is_ok() => Ok(()),
            Entrance::Own(_) => self.mend().map(drop),
            Entrance::Passed => {
                self.server.resume();
                Ok(())
            }
        }
    }

    /// Removes the file and stops accepting.
    pub fn close(&mut self) {
        self.hidden = true;
        match &self.entrance {
            Entrance::Own(socket) => {
                if let Some(socket) = socket {
                    socket.remove();
                }
                self.server.stop_listening();
            }
            Entrance::Passed => self.server.leave_listening(),
        }
    }
}

#[cfg(target_os = "linux")]
mod watch {
    use std::path::Path;

    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use tokio::net::unix::pipe::Receiver;

    /// Tells when names in a folder change (inotify(7)). What changed does not
    /// matter: the socket file is looked at anyway.
    pub(super) struct Watch(Option<Receiver>);

    impl Watch {
        pub(super) fn new(folder: &Path) -> Watch {
            Watch(Self::open(folder))
        }

        fn open(folder: &Path) -> Option<Receiver> {
            let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
            let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
            let watch = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
            add_watch(&watch, folder, names | itself).ok()?;
            // Not a pipe, but read like one.
            Receiver::from_owned_fd_unchecked(watch).ok()
        }

        /// False where there is no inotify.
        pub(super) fn is_live(&self) -> bool {
            self.0.is_some()
        }

        /// Waits for a change; for ever when not live.
        pub(super) async fn changed(&mut self) {
            let Some(watch) = &self.0 else {
                return std::future::pending().await;
            };
            if watch.readable().await.is_err() {
                self.0 = None;
                return;
            }
            let mut events = [0; 1024];
            while watch.try_read(&mut events).is_ok_and(|length| length > 0) {}
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod watch {
    use std::path::Path;

    /// There is no inotify: the file is polled.
    pub(super) struct Watch;

    impl Watch {
        pub(super) fn new(_folder: &Path) -> Watch {
            Watch
        }

        pub(super) fn is_live(&self) -> bool {
            false
        }

        pub(super) async fn changed(&mut self) {
            std::future::pending().await
        }
    }
}
