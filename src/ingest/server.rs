//! Accepts clients. What a socket file stands for may change during the agent's
//! life (spec 5.6), so there can be more than one listener for a while.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio::net::{UnixListener as AsyncListener, UnixStream};
use tokio::task::JoinHandle;

use crate::events::Events;
use crate::ingest::admission::{Admission, Backlog};
use crate::ingest::connection::{LogAgent, serve};
use crate::ingest::service::IngestService;
use crate::limits::{ACCEPT_PAUSE, EVICTIONS_MAX};

/// Serves every client of the listeners it is given.
pub struct Server {
    service: LogAgent,
    admission: Arc<Admission>,
    events: Events,
    listener: Option<Listening>,
}

struct Listening {
    /// The same socket as the task's, for taking clients at once.
    listener: UnixListener,
    waiting: Arc<AsyncListener>,
    task: JoinHandle<()>,
}

impl Server {
    /// A server without a listener.
    #[must_use]
    pub fn new(service: IngestService, admission: Arc<Admission>, events: Events) -> Server {
        Server {
            service: LogAgent::new(service),
            admission,
            events,
            listener: None,
        }
    }

    /// Accepts clients of `listener` from now on. Those in the former one's backlog are
    /// served too.
    ///
    /// # Errors
    /// Those of registering it with the runtime.
    pub fn listen(&mut self, listener: UnixListener) -> io::Result<()> {
        let waiting = Arc::new(AsyncListener::from_std(listener.try_clone()?)?);
        self.stop_listening();
        let task = self.accepting(&waiting);
        self.listener = Some(Listening {
            listener,
            waiting,
            task,
        });
        Ok(())
    }

    fn accepting(&self, waiting: &Arc<AsyncListener>) -> JoinHandle<()> {
        tokio::spawn(accept(Arc::clone(waiting), self.acceptor()))
    }

    fn acceptor(&self) -> Acceptor {
        Acceptor {
            service: self.service.clone(),
            admission: Arc::clone(&self.admission),
            events: self.events.clone(),
        }
    }

    /// Accepts no client until [`Server::resume`]: a new one waits in the backlog.
    pub fn pause(&self) {
        if let Some(Listening { task, .. }) = &self.listener {
            // It waits somewhere between two clients, and holds none.
            task.abort();
        }
    }

    /// Accepts clients again.
    pub fn resume(&mut self) {
        if let Some(mut listening) = self.listener.take() {
            listening.task = self.accepting(&listening.waiting);
            self.listener = Some(listening);
        }
    }

    /// Accepts no client any more, and leaves those in the backlog to another process
    /// that has the same socket.
    pub fn leave_listening(&mut self) {
        self.pause();
        self.listener = None;
    }

    /// Accepts every client that has connected so far, and none afterwards; where there is
    /// no room for all yet, a task goes on until they are served. The socket file must be
    /// out of sight before.
    pub fn stop_listening(&mut self) {
        let (_, rest) = self.accept_all();
        if let Some(Listening { listener, task, .. }) = self.listener.take() {
            task.abort();
            if rest {
                let backlog = self.admission.backlog();
                tokio::spawn(accept_rest(listener, self.acceptor(), backlog));
            }
        }
    }

    /// Accepts every client in the backlog; tells whether there was one, or may be.
    pub fn accept_waiting(&self) -> bool {
        let (any, rest) = self.accept_all();
        any || rest
    }

    /// Whether a client was accepted, and whether others may be left for want of room.
    fn accept_all(&self) -> (bool, bool) {
        let mut any = false;
        let Some(Listening { listener, .. }) = &self.listener else {
            return (false, false);
        };
        while !self.admission.is_full() {
            match accept_now(listener) {
                Ok(stream) => {
                    any = true;
                    serve(stream, &self.admission, &self.service);
                }
                Err(error) => return (any, error.kind() != io::ErrorKind::WouldBlock),
            }
        }
        (any, true)
    }
}

/// Accepts a client that waits already.
fn accept_now(listener: &UnixListener) -> io::Result<UnixStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

struct Acceptor {
    service: LogAgent,
    admission: Arc<Admission>,
    events: Events,
}

async fn accept(listener: Arc<AsyncListener>, to: Acceptor) {
    loop {
        let accepted = listener.accept().await;
        to.take(accepted.map(|(stream, _)| stream)).await;
    }
}

/// Serves what is left in the backlog of a socket whose file is gone.
async fn accept_rest(listener: UnixListener, to: Acceptor, _backlog: Backlog) {
    to.make_room().await;
    loop {
        match accept_now(&listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            accepted => to.take(accepted).await,
        }
    }
}

impl Acceptor {
    /// Serves a client, and waits until there is room for the next.
    async fn take(&self, accepted: io::Result<UnixStream>) {
        match accepted {
            Ok(stream) => {
                serve(stream, &self.admission, &self.service);
                self.make_room().await;
            }
            Err(error) => {
                // EMFILE and the like pass; an idle client may end them.
                let text = error.to_string();
                self.events
                    .emit("accept_failed", &[("error", (&text).into())]);
                let _wanted = self.admission.want_place(EVICTIONS_MAX);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// While there is one client too many, asks idle ones to give up their place and
    /// accepts none.
    async fn make_room(&self) {
        // A client that heeds it makes room at once, and others may keep their place.
        let mut leaving = 1;
        while self.admission.is_full() {
            let _wanted = self.admission.want_place(leaving);
            leaving = EVICTIONS_MAX;
            let ended = self.admission.connection_ended();
            let _ = tokio::time::timeout(ACCEPT_PAUSE, ended).await;
        }
    }
}
