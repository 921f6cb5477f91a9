//! A server of canned bytes: what a real one would never send as well.

#![allow(dead_code)] // each test file uses a part

use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use echopost::replay::body::{Payload, body};
use echopost::replay::http::{Answer, Client, Delivery, Failure, Timeouts};
use echopost::replay::server::ServerUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"ok\":true}";

/// A server on a free port of 127.0.0.1; its task ends with the test's runtime.
pub struct Server {
    pub port: u16,
    accepts: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Server {
    /// Runs `handler` for each connection, numbered from 0.
    pub async fn start<H, F>(handler: H) -> Server
    where
        H: Fn(usize, Peer) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpSocket::new_v4().unwrap();
        // What is not read here is felt by the client.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let server = Server {
            port: listener.local_addr().unwrap().port(),
            accepts: Arc::default(),
            requests: Arc::default(),
        };
        let accepts = Arc::clone(&server.accepts);
        let requests = Arc::clone(&server.requests);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = accepts.fetch_add(1, Ordering::SeqCst);
                let requests = Arc::clone(&requests);
                tokio::spawn(handler(number, Peer { stream, requests }));
            }
        });
        server
    }

    /// Sends one canned answer to every request, for ever.
    pub async fn answering(answer: impl Into<Vec<u8>>) -> Server {
        let answer = answer.into();
        Server::start(move |_, mut peer| {
            let answer = answer.clone();
            async move {
                while peer.request().await.is_some() {
                    peer.send(&answer).await;
                }
            }
        })
        .await
    }

    /// Sends one canned answer to one request of each connection, then closes.
    pub async fn answering_once(answer: impl Into<Vec<u8>>) -> Server {
        let answer = answer.into();
        Server::start(move |_, mut peer| {
            let answer = answer.clone();
            async move {
                if peer.request().await.is_some() {
                    peer.send(&answer).await;
                }
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn client(&self) -> Client {
        self.client_within(Timeouts::default())
    }

    pub fn client_within(&self, timeouts: Timeouts) -> Client {
        Client::new(ServerUrl::parse(&self.url()).unwrap(), timeouts)
    }

    /// Connections accepted so far.
    pub fn accepts(&self) -> usize {
        self.accepts.load(Ordering::SeqCst)
    }

    /// Requests read so far, as they came over the wire.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .map(|request| String::from_utf8(request.clone()).unwrap())
            .collect()
    }

    /// The first line of each request read so far.
    pub fn request_lines(&self) -> Vec<String> {
        let first = |request: String| request.lines().next().unwrap_or_default().to_owned();
        self.requests().into_iter().map(first).collect()
    }
}

/// The server's end of a connection; it closes when dropped.
pub struct Peer {
    pub stream: TcpStream,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Peer {
    /// Reads a request and its body; `None` when the client has closed.
    pub async fn request(&mut self) -> Option<Vec<u8>> {
        let request = self.head().await?;
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        let request = [request, body].concat();
        self.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// Reads a request's head alone.
    pub async fn head(&mut self) -> Option<Vec<u8>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        Some(head)
    }

    /// Sends bytes; a client that is gone is the test's own affair.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Waits until the client has closed; returns the bytes it sent until then.
    pub async fn closed(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let mut bytes = 0;
        while let Ok(n @ 1..) = self.stream.read(&mut buffer).await {
            bytes += n;
        }
        bytes
    }

    /// Closes with RST instead of FIN.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

/// A record's body of so many bytes of JSON.
pub fn record(bytes: usize) -> Payload {
    body(&[], Bytes::from(vec![b'1'; bytes]))
}

/// Posts `body` with some keys.
pub async fn post_body(client: &mut Client, body: &Payload) -> Result<Answer, Failure> {
    let delivery = Delivery {
        api_key: "key",
        own_api_key: "",
        idempotency_key: "\"store-1\"",
        body,
    };
    client.post(delivery).await
}

/// Posts a small record.
pub async fn post(client: &mut Client) -> Result<Answer, Failure> {
    post_body(client, &record(1)).await
}

/// Posts a small record; the status, or why there is none.
pub async fn status(client: &mut Client) -> Result<u16, String> {
    match post(client).await {
        Ok(answer) => Ok(answer.status),
        Err(Failure::Unreachable(why)) => Err(why),
        Err(Failure::Unsendable(why)) => panic!("unsendable: {why}"),
    }
}

/// Timeouts for servers that never answer, and long enough for those that do.
pub fn impatient() -> Timeouts {
    Timeouts {
        answer: Duration::from_millis(300),
        probe: Duration::from_millis(300),
        ..Timeouts::default()
    }
}
