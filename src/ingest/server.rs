//! Accepts clients. What a socket file stands for may change during the agent's
//! life (spec 5.6), so there can be more than one listener for a while.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio::net::{UnixListener as AsyncListener, UnixStream};
use tokio::task::JoinHandle;

use crate::events::Events;
use crate::ingest::activity::Activity;
use crate::ingest::connection::Connections;
use crate::ingest::service::LogAgent;
use crate::limits::{ACCEPT_PAUSE, LISTEN_BACKLOG};

/// Serves every client of the listeners it is given.
pub struct Server {
    service: Arc<LogAgent>,
    connections: Arc<Connections>,
    activity: Arc<Activity>,
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
    pub fn new(service: LogAgent, activity: Arc<Activity>, events: Events) -> Server {
        Server {
            service: Arc::new(service),
            connections: Connections::new(),
            activity,
            events,
            listener: None,
        }
    }

    /// The open connections.
    #[must_use]
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// Accepts clients of `listener` from now on. Who is already in the former
    /// one's backlog is served too.
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
        let to = Acceptor {
            service: Arc::clone(&self.service),
            connections: Arc::clone(&self.connections),
            activity: Arc::clone(&self.activity),
            events: self.events.clone(),
        };
        tokio::spawn(accept(Arc::clone(waiting), to))
    }

    /// Accepts nobody until [`Server::resume`]: who connects waits in the backlog.
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

    /// Accepts nobody any more, and leaves who has connected to another process
    /// that has the same socket.
    pub fn leave_listening(&mut self) {
        self.pause();
        self.listener = None;
    }

    /// Takes everyone who has connected so far, and nobody afterwards; for whom
    /// there is no descriptor, the listener's task goes on. The socket file must
    /// be out of sight before.
    pub fn stop_listening(&mut self) {
        let (_, rest) = self.accept_all();
        if let Some(Listening { task, .. }) = self.listener.take()
            && !rest
        {
            task.abort();
        }
    }

    /// Takes everyone in the backlog, whatever the limits; tells whether there
    /// was anyone, or may be.
    pub fn accept_waiting(&self) -> bool {
        let (any, rest) = self.accept_all();
        any || rest
    }

    /// Whether anyone was taken, and whether others may be left for want of
    /// descriptors: the listener's task takes them as soon as there are some.
    fn accept_all(&self) -> (bool, bool) {
        let mut any = false;
        let Some(Listening { listener, .. }) = &self.listener else {
            return (false, false);
        };
        // Who is behind a full backlog has connected later: a flood of clients
        // must not keep this going.
        for _ in 0..=LISTEN_BACKLOG {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => return (any, error.kind() != io::ErrorKind::WouldBlock),
            };
            any = true;
            self.activity.touch();
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(stream));
            if let Ok(stream) = stream {
                self.connections.serve(stream, &self.service);
            }
        }
        (any, true)
    }
}

struct Acceptor {
    service: Arc<LogAgent>,
    connections: Arc<Connections>,
    activity: Arc<Activity>,
    events: Events,
}

async fn accept(listener: Arc<AsyncListener>, to: Acceptor) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                to.activity.touch();
                to.connections.serve(stream, &to.service);
                to.make_room().await;
            }
            Err(error) => {
                // EMFILE and the like pass; an idle client may end them.
                let text = error.to_string();
                to.events
                    .emit("accept_failed", &[("error", (&text).into())]);
                to.connections.set_crowded(true);
                to.connections.evict_idle();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Acceptor {
    /// While there is one client too many, asks the idle to leave their place
    /// and accepts nobody.
    async fn make_room(&self) {
        while self.connections.is_over_limit() {
            self.connections.set_crowded(true);
            self.connections.evict_idle();
            let less = self.connections.one_less();
            let _ = tokio::time::timeout(ACCEPT_PAUSE, less).await;
        }
        self.connections.set_crowded(false);
    }
}
