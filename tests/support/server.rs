//! A main server that goes away and comes back.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http1::Message;
pub use super::http1::{Answer, Ending};

/// An HTTP/1.1 server on 127.0.0.1 that keeps its port over its absences, does
/// with each request what the test says, and remembers every one.
///
/// Until told otherwise it answers `GET` with 200 and `POST …/log` with 200.
pub struct MainServer {
    shared: Arc<Shared>,
    port: u16,
    acceptor: Option<JoinHandle<()>>,
    /// Bound and never listened on: it keeps the port when the server is away.
    _reserved: Reserved,
}

/// A request that was read to its end.
#[derive(Debug)]
pub struct Request {
    message: Message,
    /// When its last byte was there.
    pub at: Instant,
    /// Which connection it came over, counted from 1.
    pub connection: u64,
    /// The status decided on; None when there was to be no answer. Whether the
    /// answer arrived is for the client to say.
    pub status: Option<u16>,
}

type Plan = Box<dyn FnMut(&Message) -> Answer + Send>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    get: Mutex<Plan>,
    post: Mutex<Plan>,
}

#[derive(Default)]
struct State {
    up: bool,
    forgets: bool,
    connections: u64,
    open: HashMap<u64, Arc<TcpStream>>,
    requests: Vec<Arc<Request>>,
    /// Connections with a request in work.
    in_flight: HashSet<u64>,
    most_in_flight: usize,
}

impl MainServer {
    /// A server that is up.
    pub fn new_up() -> MainServer {
        let mut server = MainServer::new_down();
        server.up();
        server
    }

    /// A server that is down, on a port that is its own already.
    pub fn new_down() -> MainServer {
        let (reserved, port) = reserve().expect("a port on 127.0.0.1");
        MainServer {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                changed: Condvar::new(),
                get: Mutex::new(Box::new(|_| Answer::status(200))),
                post: Mutex::new(Box::new(|_| Answer::ok())),
            }),
            port,
            acceptor: None,
            _reserved: reserved,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the agent takes as `-health-url`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Comes up. Nothing happens when it is up.
    pub fn up(&mut self) {
        if self.acceptor.is_some() {
            return;
        }
        // A child of another test may hold a copy of the last listener.
        let listener = super::wait::some(Duration::from_secs(20), || {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                bound => Some(bound.expect("bind the port")),
            }
        });
        let listener = listener.expect("the port");
        self.shared.state().up = true;
        let shared = Arc::clone(&self.shared);
        self.acceptor = Some(std::thread::spawn(move || shared.accept(&listener)));
    }

    /// Goes down: the port refuses connections and all that were open are
    /// closed, whatever was going on. Nothing happens when it is down.
    pub fn down(&mut self) {
        let Some(acceptor) = self.acceptor.take() else {
            return;
        };
        self.shared.state().up = false;
        // Wakes the acceptor; where it is gone already, there is nothing to wake.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        acceptor.join().expect("the acceptor");
        for (_, connection) in self.shared.state().open.drain() {
            // An error means that the client closed it first.
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
        // A plan that was deciding has decided.
        drop(lock(&self.shared.post));
    }

    /// The status of every answer to `GET`.
    pub fn set_health(&self, status: u16) {
        self.on_get(move |_| Answer::status(status));
    }

    /// What to do with each `GET` from now on.
    pub fn on_get(&self, plan: impl FnMut(&Message) -> Answer + Send + 'static) {
        *lock(&self.shared.get) = Box::new(plan);
    }

    /// What to do with each `POST …/log` from now on. A `POST` to another path
    /// is answered 404 without asking.
    pub fn on_post(&self, plan: impl FnMut(&Message) -> Answer + Send + 'static) {
        *lock(&self.shared.post) = Box::new(plan);
    }

    /// From now on requests are not remembered; the plan has seen them.
    pub fn forget_requests(&self) {
        self.shared.state().forgets = true;
    }

    /// All requests so far, in the order they were complete.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.shared.state().requests.clone()
    }

    pub fn gets(&self) -> Vec<Arc<Request>> {
        self.requests_where(|request| request.method == "GET")
    }

    pub fn posts(&self) -> Vec<Arc<Request>> {
        self.requests_where(|request| request.method == "POST")
    }

    /// The `POST`s that were given a 2xx.
    pub fn delivered(&self) -> Vec<Arc<Request>> {
        self.requests_where(|request| {
            request.method == "POST" && matches!(request.status, Some(200..=299))
        })
    }

    /// The records of `delivered`, byte for byte as they were sent.
    pub fn delivered_json(&self) -> Vec<Vec<u8>> {
        self.delivered()
            .iter()
            .map(|request| request.log_data().to_vec())
            .collect()
    }

    /// Waits until so many `POST`s were given a 2xx.
    pub fn wait_delivered(&self, count: usize, deadline: Duration) {
        super::wait::until(deadline, &format!("{count} deliveries"), || {
            self.delivered().len() >= count
        });
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.state().connections
    }

    /// Connections open now; one that the client gave up counts until its
    /// thread has noticed.
    pub fn open_connections(&self) -> usize {
        self.shared.state().open.len()
    }

    /// The most requests that were in work at one moment.
    pub fn most_in_flight(&self) -> usize {
        self.shared.state().most_in_flight
    }

    fn requests_where(&self, wanted: impl Fn(&Request) -> bool) -> Vec<Arc<Request>> {
        let mut requests = self.requests();
        requests.retain(|request| wanted(request));
        requests
    }
}

impl Drop for MainServer {
    fn drop(&mut self) {
        self.down();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let (stream, _) = listener.accept().expect("accept");
            // Nagle's algorithm would measure itself, not the agent.
            stream.set_nodelay(true).expect("set TCP_NODELAY");
            let mut state = self.state();
            if !state.up {
                // A child of another test, not yet at its exec, may hold a copy: it is
                // to listen no more either. Where that cannot be, `up` waits for it.
                let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
                return;
            }
            state.connections += 1;
            let number = state.connections;
            let stream = Arc::new(stream);
            state.open.insert(number, Arc::clone(&stream));
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                // An error is the client's or the test's doing: `down`, a reset.
                let _ = shared.serve(&stream, number);
                let mut state = shared.state();
                state.open.remove(&number);
                state.in_flight.remove(&number);
            });
        }
    }

    fn serve(&self, mut stream: &TcpStream, number: u64) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some(message) = Message::read(&mut reader)? {
            let last = message.header("connection") == Some("close");
            let answer = self.decide(message, number);
            let is_open = self.wait_while_open(number, answer.delay);
            // With the answer the client may begin the next one, elsewhere.
            if answer.ending != Ending::Never {
                self.state().in_flight.remove(&number);
            }
            if !is_open || !answer.give(&mut stream, &mut reader)? || last {
                break;
            }
        }
        Ok(())
    }

    fn decide(&self, message: Message, connection: u64) -> Answer {
        let at = Instant::now();
        let mut state = self.state();
        state.in_flight.insert(connection);
        // What `down` has cut is over, also while its thread does not know yet.
        let open = |number: &&u64| state.open.contains_key(number);
        let in_flight = state.in_flight.iter().filter(open).count();
        state.most_in_flight = state.most_in_flight.max(in_flight);
        drop(state);
        // One at a time, so that the order of the plan's calls is the order of
        // the requests remembered.
        let mut post = lock(&self.post);
        if !self.state().open.contains_key(&connection) {
            // Read, but not decided before the server was down.
            return Answer::status(503).then(Ending::Close);
        }
        let answer = match message.method.as_str() {
            "GET" => lock(&self.get)(&message),
            "POST" if message.path.ends_with("/log") => post(&message),
            _ => Answer::status(404),
        };
        let mut state = self.state();
        if !state.forgets {
            state.requests.push(Arc::new(Request {
                message,
                at,
                connection,
                status: match answer.ending {
                    Ending::Close | Ending::Never => None,
                    _ => Some(answer.status),
                },
            }));
        }
        answer
    }

    /// Waits for `delay`; false when `down` came first.
    fn wait_while_open(&self, connection: u64, delay: Duration) -> bool {
        let open = |state: &mut State| state.open.contains_key(&connection);
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), delay, open)
            .unwrap_or_else(PoisonError::into_inner);
        state.open.contains_key(&connection)
    }
}

impl Request {
    /// The record's JSON, cut out of the body as it was sent.
    pub fn log_data(&self) -> &[u8] {
        self.body_parts().1
    }

    pub fn pipelines(&self) -> Vec<String> {
        self.body_parts().0
    }

    fn body_parts(&self) -> (Vec<String>, &[u8]) {
        body_parts(&self.body)
            .unwrap_or_else(|| panic!("body {:?}", String::from_utf8_lossy(&self.body)))
    }
}

impl Deref for Request {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// Splits `{"pipelines":[…],"log_data":…}` without touching the record's bytes.
pub fn body_parts(body: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let array = body.strip_prefix(br#"{"pipelines":"#)?;
    if !array.starts_with(b"[") {
        return None;
    }
    let mut values = serde_json::Deserializer::from_slice(array).into_iter::<Vec<String>>();
    let pipelines = values.next()?.ok()?;
    let log_data = array
        .get(values.byte_offset()..)?
        .strip_prefix(br#","log_data":"#)?
        .strip_suffix(b"}")?;
    Some((pipelines, log_data))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A plan that panicked has failed its test already.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(target_os = "linux")]
pub type Reserved = std::os::fd::OwnedFd;
#[cfg(not(target_os = "linux"))]
pub type Reserved = ();

/// A free port that stays ours. A port that is merely unused is soon
/// another's: another test's server, or the client end of the agent's own probe,
/// which then finds itself healthy (TCP's simultaneous open).
#[cfg(target_os = "linux")]
pub fn reserve() -> io::Result<(Reserved, u16)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
    use std::net::{SocketAddr, SocketAddrV4};

    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    // Two sockets may be bound to one port while at most one of them listens.
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((socket, address.port()))
}

#[cfg(not(target_os = "linux"))]
pub fn reserve() -> io::Result<(Reserved, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(((), listener.local_addr()?.port()))
}
