//! The socket file and the server behind it, as one thing that can be taken out of sight,
//! put back and closed (spec 5).

use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::events::Events;
use crate::folder::Folder;
use crate::ingest::server::Server;
use crate::ingest::socket::Socket;
use crate::limits::SOCKET_POLL;

/// Shares the listener's state. Clones share the same one.
#[derive(Clone)]
pub struct ListenerHandle(Arc<Mutex<ListenerState>>);

/// The socket that clients connect to.
pub enum ListenSocket {
    /// One that the agent has bound.
    Bound {
        /// `None` until one can be bound.
        socket: Option<Socket>,
        /// Whether its name may lead through `/proc` ([`Socket::bind`]).
        may_link: bool,
    },
    /// One that the starter passed and listens at, too (spec 5.9). Its file is never touched,
    /// and no client is ever refused: the kernel keeps them in a backlog that outlives the
    /// agent, and the starter starts the next one for them. An agent must not accept a client
    /// and end before it has served it, so "out of sight" means here not to accept. A client
    /// that was accepted is served as always; one that waits at the last look is accepted, and
    /// the agent stays; one that comes after that, while the store is closed and the process
    /// ends, is left to the next agent.
    Inherited,
}

/// What the handle locks; never held across an await.
pub struct ListenerState {
    folder: Arc<Folder>,
    listen_socket: ListenSocket,
    /// The file is out of sight on purpose.
    hidden: bool,
    /// Where clients are served.
    pub server: Server,
}

impl ListenerHandle {
    /// Serves the clients of `listen_socket`; where there is none yet,
    /// [`ListenerHandle::watch`] binds it.
    #[must_use]
    pub fn new(folder: Arc<Folder>, listen_socket: ListenSocket, server: Server) -> ListenerHandle {
        ListenerHandle(Arc::new(Mutex::new(ListenerState {
            folder,
            listen_socket,
            hidden: false,
            server,
        })))
    }

    /// Locks the state for one synchronous step.
    pub fn lock(&self) -> MutexGuard<'_, ListenerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the socket file for ever: if it vanishes or is replaced, it is
    /// bound again at once (spec 5.6). Returns where there is none to watch.
    pub async fn watch(self, events: Events) {
        if let ListenSocket::Inherited = self.lock().listen_socket {
            return;
        }
        let mut watch = watch::Watch::new(self.lock().folder.path());
        let mut told = false;
        loop {
            let mended = self.lock().mend();
            if let Ok(true) = mended {
                watch.add_agent_folder();
            }
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

impl ListenerState {
    /// Binds the socket again if its file is gone; true when it had to.
    fn mend(&mut self) -> io::Result<bool> {
        let ListenSocket::Bound {
            socket: bound,
            may_link,
        } = &mut self.listen_socket
        else {
            return Ok(false);
        };
        if self.hidden || bound.as_ref().is_some_and(Socket::is_in_place) {
            return Ok(false);
        }
        self.folder.check_in_place()?;
        let (socket, listener) = Socket::bind(self.folder.path(), *may_link)?;
        if let Err(error) = self.server.listen(listener) {
            // A file that does not answer would be worse than none.
            socket.remove();
            return Err(error);
        }
        *bound = Some(socket);
        Ok(true)
    }

    /// Takes the socket file out of sight: a new client finds none, a connected one is
    /// served.
    pub fn hide(&mut self) {
        self.hidden = true;
        match &self.listen_socket {
            ListenSocket::Bound { socket, .. } => {
                if let Some(socket) = socket {
                    socket.hide();
                }
            }
            ListenSocket::Inherited => self.server.pause(),
        }
    }

    /// Puts the file back.
    ///
    /// # Errors
    /// Those of the file system; the watch tries again.
    pub fn show(&mut self) -> io::Result<()> {
        self.hidden = false;
        match &self.listen_socket {
            ListenSocket::Bound { socket, .. } => match socket {
                Some(socket) if socket.show().is_ok() => Ok(()),
                _ => self.mend().map(drop),
            },
            ListenSocket::Inherited => {
                self.server.resume();
                Ok(())
            }
        }
    }

    /// Removes the file and stops accepting.
    pub fn close(&mut self) {
        self.hidden = true;
        match &self.listen_socket {
            ListenSocket::Bound { socket, .. } => {
                if let Some(socket) = socket {
                    socket.remove();
                }
                self.server.stop_listening();
            }
            ListenSocket::Inherited => self.server.leave_listening(),
        }
    }
}

#[cfg(target_os = "linux")]
mod watch {
    use std::path::{Path, PathBuf};

    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use tokio::net::unix::pipe::Receiver;

    use crate::ingest::agent_folder;

    /// Tells when names change in the base folder and in the one that the socket's
    /// name leads through (inotify(7)). What changed does not matter: where the name
    /// leads is looked at anyway.
    pub(super) struct Watch {
        base: PathBuf,
        inotify: Option<Receiver>,
    }

    const NAMES: WatchFlags = WatchFlags::CREATE
        .union(WatchFlags::DELETE)
        .union(WatchFlags::MOVE)
        .union(WatchFlags::DELETE_SELF)
        .union(WatchFlags::MOVE_SELF)
        .union(WatchFlags::ONLYDIR);

    impl Watch {
        pub(super) fn new(base: &Path) -> Watch {
            let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
            let inotify = inotify.filter(|inotify| add_watch(inotify, base, NAMES).is_ok());
            let watch = Watch {
                base: base.to_owned(),
                // Not a pipe, but read like one.
                inotify: inotify.and_then(|fd| Receiver::from_owned_fd_unchecked(fd).ok()),
            };
            watch.add_agent_folder();
            watch
        }

        /// The folder has been made anew. Where the socket's name is the socket
        /// itself, there is none.
        pub(super) fn add_agent_folder(&self) {
            if let Some(inotify) = &self.inotify {
                let flags = NAMES | WatchFlags::DONT_FOLLOW;
                let _ = add_watch(inotify, self.base.join(agent_folder::NAME), flags);
            }
        }

        /// False where there is no inotify.
        pub(super) fn is_live(&self) -> bool {
            self.inotify.is_some()
        }

        /// Waits for a change; for ever when not live.
        pub(super) async fn changed(&mut self) {
            let Some(inotify) = &self.inotify else {
                return std::future::pending().await;
            };
            if inotify.readable().await.is_err() {
                self.inotify = None;
                return;
            }
            let mut events = [0; 1024];
            while inotify.try_read(&mut events).is_ok_and(|length| length > 0) {}
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

        pub(super) fn add_agent_folder(&self) {}

        pub(super) fn is_live(&self) -> bool {
            false
        }

        pub(super) async fn changed(&mut self) {
            std::future::pending().await
        }
    }
}
