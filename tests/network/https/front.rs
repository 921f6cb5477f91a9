//! TLS in front of a server that does not speak it.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::support::sender::block_on;
use crate::support::wait;

/// A TLS server on a port of 127.0.0.1 that passes everything on.
pub struct Front {
    pub port: u16,
    shared: Arc<Shared>,
}

/// What it does with a connection.
#[derive(Clone)]
pub enum Manner {
    Serve(Arc<ServerConfig>),
    /// Reads the client's first words, and closes.
    Close,
    /// Reads, and says nothing.
    Hang,
    /// Answers in plain HTTP.
    Plain,
}

/// A handshake that both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    pub version: Option<ProtocolVersion>,
    pub resumed: bool,
    pub name: Option<String>,
    pub protocol: Option<Vec<u8>>,
}

struct Shared {
    backend: u16,
    manner: watch::Sender<Manner>,
    handshakes: Mutex<Vec<Handshake>>,
    /// Held by each connection that is not cut yet.
    alive: Mutex<Arc<()>>,
}

impl Front {
    /// In front of the port `backend` of 127.0.0.1; the thread ends with the
    /// test's process.
    pub fn new(backend: u16, manner: Manner) -> Front {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("its number").port();
        listener.set_nonblocking(true).expect("set O_NONBLOCK");
        let shared = Arc::new(Shared {
            backend,
            manner: watch::Sender::new(manner),
            handshakes: Mutex::default(),
            alive: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || block_on(serving.accept(listener)));
        Front { port, shared }
    }

    pub fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }

    /// Does this from now on, and cuts all connections there are.
    pub fn change(&self, manner: Manner) {
        self.end_all(|now| *now = manner);
    }

    /// Cuts all connections there are.
    pub fn cut(&self) {
        self.end_all(|_| {});
    }

    /// Returns when they have ended: none passes anything on any more.
    fn end_all(&self, change: impl FnOnce(&mut Manner)) {
        let old = {
            let mut alive = self.shared.alive();
            self.shared.manner.send_modify(change);
            std::mem::take(&mut *alive)
        };
        wait::until(Duration::from_secs(20), "an end of the connections", || {
            Arc::strong_count(&old) == 1
        });
    }

    pub fn handshakes(&self) -> Vec<Handshake> {
        self.shared.handshakes().clone()
    }
}

impl Shared {
    fn alive(&self) -> MutexGuard<'_, Arc<()>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handshakes(&self) -> MutexGuard<'_, Vec<Handshake>> {
        self.handshakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>, listener: std::net::TcpListener) {
        let listener = TcpListener::from_std(listener).expect("a listener");
        loop {
            let (stream, _) = listener.accept().await.expect("accept");
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                let mut manners = shared.manner.subscribe();
                let (_alive, manner) = {
                    let alive = shared.alive();
                    (Arc::clone(&alive), manners.borrow_and_update().clone())
                };
                tokio::select! {
                    () = shared.serve(stream, manner) => {}
                    _ = manners.changed() => {}
                }
            });
        }
    }

    async fn serve(&self, mut stream: TcpStream, manner: Manner) {
        let mut hello = [0; 4096];
        match manner {
            Manner::Serve(config) => self.pass_on(stream, config).await,
            Manner::Close => {
                let _ = stream.read(&mut hello).await;
            }
            Manner::Hang => while matches!(stream.read(&mut hello).await, Ok(1..)) {},
            Manner::Plain => {
                let _ = stream.read(&mut hello).await;
                let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
        }
    }

    async fn pass_on(&self, stream: TcpStream, config: Arc<ServerConfig>) {
        let Ok(mut tls) = TlsAcceptor::from(config).accept(stream).await else {
            return;
        };
        let (_, session) = tls.get_ref();
        self.handshakes().push(Handshake {
            version: session.protocol_version(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            name: session.server_name().map(str::to_owned),
            protocol: session.alpn_protocol().map(<[u8]>::to_vec),
        });
        let Ok(mut backend) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.backend)).await else {
            return;
        };
        // An error is the client's or the test's doing.
        let _ = copy_bidirectional(&mut tls, &mut backend).await;
    }
}
