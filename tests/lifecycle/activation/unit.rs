//! The systemd of these tests.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::agent::{Agent, Builder};
use crate::support::sender::{Sender, block_on};
use crate::support::server::MainServer;

pub const DEADLINE: Duration = Duration::from_secs(20);
/// A shell that passes its stdin as systemd passes a socket.
pub const PASS: &str =
    "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"";

/// A socket unit and its service.
pub struct Unit {
    pub folder: PathBuf,
    pub listener: UnixListener,
    pub url: String,
}

impl Unit {
    pub fn new(folder: &Path, server: &MainServer) -> Unit {
        Unit {
            folder: folder.to_owned(),
            listener: UnixListener::bind(folder.join("data-nadhi-agent.sock")).expect("bind"),
            url: server.url(),
        }
    }

    /// What runs `script`, with the socket as its stdin.
    pub fn agent(&self, script: &str) -> Builder {
        Agent::by_shell(script, &self.folder)
            .health_url(&self.url)
            .stdin(self.descriptor())
    }

    pub fn start(&self) -> Agent {
        self.agent(PASS).spawn()
    }

    pub fn descriptor(&self) -> OwnedFd {
        self.listener.try_clone().expect("a second handle").into()
    }

    /// Connects and calls, like the SDK: what must never fail is the connect.
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.join("data-nadhi-agent.sock"));
        let stream = stream.expect("a listener");
        stream.set_nonblocking(true).expect("non-blocking");
        stream
    }

    /// Starts an agent whenever a client waits and none runs, until `over`; tells
    /// how many. Each must end by itself with exit code 0.
    pub fn supervise(&self, over: &AtomicBool, watch: impl Fn(&mut Agent)) -> u64 {
        let mut started = 0;
        loop {
            let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
            let moment = Timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            if poll(&mut fds, Some(&moment)).expect("poll") > 0 {
                started += 1;
                let mut agent = self.start();
                watch(&mut agent);
                agent.expect_exit(0, DEADLINE);
            } else if over.load(Relaxed) {
                return started;
            }
        }
    }
}

/// One call over a connection that is there; the SDK makes one for each.
pub fn call(stream: UnixStream, json: &str) -> Result<(), tonic::Status> {
    call_and(stream, json, async {}).0
}

/// The same; tells, too, when its bytes were out.
pub fn call_timed(stream: UnixStream, json: &str) -> (Result<(), tonic::Status>, Instant) {
    call_and(stream, json, async {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        Instant::now()
    })
}

fn call_and<T>(
    stream: UnixStream,
    json: &str,
    beside: impl Future<Output = T>,
) -> (Result<(), tonic::Status>, T) {
    let call = async {
        let answer = Sender::on(stream).await?.send(json, &[], "").await?;
        assert!(answer.success);
        Ok(())
    };
    block_on(async {
        let (answer, beside) = tokio::join!(tokio::time::timeout(DEADLINE, call), beside);
        let late = |_| Err(tonic::Status::deadline_exceeded("no answer"));
        (answer.unwrap_or_else(late), beside)
    })
}

pub fn sleep_micros(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}
