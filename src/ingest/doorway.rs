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

/// The door itself; nobody holds it across an await.
pub struct Door {
    folder: Arc<Folder>,
    /// `None` until one can be bound.
    socket: Option<Socket>,
    /// The file is out of sight on purpose.
    hidden: bool,
    /// Where clients are served.
    pub server: Server,
}

impl Doorway {
    /// Serves the clients of `socket`; without one, [`Doorway::watch`] binds it.
    #[must_use]
    pub fn new(folder: Arc<Folder>, socket: Option<Socket>, server: Server) -> Doorway {
        Doorway(Arc::new(Mutex::new(Door {
            folder,
            socket,
            hidden: false,
            server,
        })))
    }

    /// The door, for one synchronous step.
    pub fn lock(&self) -> MutexGuard<'_, Door> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the socket file for ever: if it vanishes or is replaced, it is
    /// bound again at once (spec 5.6).
    pub async fn watch(self, events: Events) {
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
        if self.hidden || self.socket.as_ref().is_some_and(Socket::is_in_place) {
            return Ok(false);
        }
        self.folder.check_in_place()?;
        let (socket, listener) = Socket::bind(self.folder.path())?;
        if let Err(error) = self.server.listen(listener) {
            // A file with nobody behind it would be worse than none.
            socket.remove();
            return Err(error);
        }
        self.socket = Some(socket);
        Ok(true)
    }

    /// Takes the socket file out of sight: who looks for it finds none, who has
    /// connected is served.
    pub fn hide(&mut self) {
        self.hidden = true;
        if let Some(socket) = &self.socket {
            socket.hide();
        }
    }

    /// Puts the file back.
    ///
    /// # Errors
    /// Those of the file system; the watch tries again.
    pub fn show(&mut self) -> io::Result<()> {
        self.hidden = false;
        match self.socket.as_ref().map(Socket::show) {
            Some(Ok(())) => Ok(()),
            _ => self.mend().map(drop),
        }
    }

    /// Removes the file and stops accepting.
    pub fn close(&mut self) {
        self.hidden = true;
        if let Some(socket) = &self.socket {
            socket.remove();
        }
        self.server.stop_listening();
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
