//! An HTTP/2 client that breaks every rule it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use echopost::proto::logagent::LogRequest;
use prost::Message;
use rustix::event::{PollFd, PollFlags, poll};

pub use super::wire::Frame;
use super::wire::{DATA, END_HEADERS, END_STREAM, Encoder, HEADERS, PATH, PREFACE, frame, opening};

/// A read or a write that is stuck for this long fails its test.
const STUCK: Duration = Duration::from_secs(30);

/// A connection whose bytes are the test's own.
pub struct Raw {
    stream: UnixStream,
    /// What came and has not been looked at.
    input: Vec<u8>,
}

/// What looking for a frame came to.
#[derive(Debug)]
pub enum Got {
    Frame(Frame),
    /// The agent closed the connection.
    End,
    /// Nothing came in time.
    Nothing,
}

impl Raw {
    /// Connects and says nothing.
    pub fn connect(socket: &Path) -> Raw {
        let stream = UnixStream::connect(socket).expect("connect to the agent");
        stream
            .set_write_timeout(Some(STUCK))
            .expect("a write timeout");
        Raw {
            stream,
            input: Vec::new(),
        }
    }

    /// Connects and opens the HTTP/2 connection.
    pub fn open(socket: &Path) -> Raw {
        let mut raw = Raw::connect(socket);
        raw.send(&opening());
        raw
    }

    /// Sends bytes; a connection that the agent has closed fails the test.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send to the agent");
    }

    /// Sends bytes; false when the agent has closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                let closed = matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                );
                assert!(closed, "send to the agent: {error}");
                false
            }
        }
    }

    /// Sends bytes; false when the agent has closed the connection, or does not
    /// take all of them within `deadline`.
    pub fn send_within(&mut self, bytes: &[u8], deadline: Duration) -> bool {
        self.stream
            .set_write_timeout(Some(deadline))
            .expect("a write timeout");
        self.stream.write_all(bytes).is_ok()
    }

    /// The headers of a call, and as much of its body as wanted.
    pub fn call(&mut self, stream: u32, body: &[u8], flags: u8) {
        self.send(&call(stream, body, flags));
    }

    /// The next frame, if one comes within `deadline`.
    pub fn next(&mut self, deadline: Duration) -> Got {
        let end = Instant::now() + deadline;
        loop {
            if let Some(frame) = Frame::take(&mut self.input) {
                return Got::Frame(frame);
            }
            // One last look: what the test was late for may be there.
            let left = end.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            self.stream
                .set_read_timeout(Some(left))
                .expect("a read timeout");
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Got::End,
                Ok(length) => self.input.extend_from_slice(&bytes[..length]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Got::Nothing,
                    ErrorKind::ConnectionReset => return Got::End,
                    ErrorKind::Interrupted => {}
                    _ => panic!("read from the agent: {error}"),
                },
            }
        }
    }

    /// Reads on until the agent closes the connection; the time that took, or
    /// `None` where it did not within `deadline`. The frames go to `seen`.
    pub fn until_closed(
        &mut self,
        deadline: Duration,
        mut seen: impl FnMut(&Frame),
    ) -> Option<Duration> {
        let start = Instant::now();
        loop {
            match self.next(deadline.saturating_sub(start.elapsed())) {
                Got::Frame(frame) => seen(&frame),
                Got::End => return Some(start.elapsed()),
                Got::Nothing => return None,
            }
        }
    }

    /// Reads on until a frame of that kind comes.
    pub fn wait_frame(&mut self, kind: u8, deadline: Duration) -> Frame {
        let end = Instant::now() + deadline;
        loop {
            match self.next(end.saturating_duration_since(Instant::now())) {
                Got::Frame(frame) if frame.kind == kind => return frame,
                Got::Frame(_) => {}
                other => panic!("no frame of kind {kind}: {other:?}"),
            }
        }
    }

    /// True while the agent has not closed the connection; what it sends
    /// meanwhile is dropped.
    pub fn is_open(&mut self) -> bool {
        loop {
            match self.next(Duration::from_millis(1)) {
                Got::Frame(_) => {}
                Got::End => return false,
                Got::Nothing => return true,
            }
        }
    }

    /// Whether the agent closes the connection for good within `deadline`: what is written
    /// then meets a broken pipe.
    pub fn is_closed_within(&self, deadline: Duration) -> bool {
        let deadline = deadline.try_into().expect("a timespec");
        let mut polled = [PollFd::new(&self.stream, PollFlags::empty())];
        poll(&mut polled, Some(&deadline)).expect("poll") > 0
    }

    /// Closes the sending half.
    pub fn half_close(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("shut down the sending half");
    }
}

/// Connects and sends half of what opens a connection.
pub fn half_open(socket: &Path) -> Raw {
    let mut raw = Raw::connect(socket);
    raw.send(&PREFACE[..10]);
    raw
}

/// Starts a call that declares `length` bytes and sends the first `sent`.
pub fn half_sent(socket: &Path, length: usize, sent: usize) -> Raw {
    let mut raw = Raw::open(socket);
    raw.call(1, &begun(length, sent), 0);
    raw
}

/// The header block of a call of SendLog.
pub fn header_block() -> Vec<u8> {
    header_block_with(&[])
}

/// The same, and more headers.
pub fn header_block_with(more: &[(&str, &str)]) -> Vec<u8> {
    header_block_of(PATH, more)
}

/// The same of any method.
pub fn header_block_of(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let fields = [
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    for (name, value) in fields.iter().chain(more) {
        block.push(0); // a literal without indexing, with a literal name
        Encoder::string(&mut block, name.as_bytes(), false);
        Encoder::string(&mut block, value.as_bytes(), false);
    }
    block
}

/// HEADERS and, where there is a body or flags, one DATA frame.
pub fn call(stream: u32, body: &[u8], flags: u8) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &header_block());
    if !body.is_empty() || flags != 0 {
        bytes.extend(frame(DATA, flags, stream, body));
    }
    bytes
}

/// A whole call with a record.
pub fn whole_call(stream: u32, json: &str) -> Vec<u8> {
    call(stream, &message(json), END_STREAM)
}

/// A record as a gRPC message.
pub fn message(json: &str) -> Vec<u8> {
    let request = LogRequest {
        json_data: json.as_bytes().to_vec().into(),
        pipelines: vec!["p".to_owned()],
        api_key: "k".to_owned(),
    };
    prefixed(&request.encode_to_vec())
}

/// Any bytes as a gRPC message.
pub fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&promise(bytes.len()), bytes].concat()
}

/// The start of a message that declares so many bytes.
pub fn promise(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).expect("a length").to_be_bytes();
    [&[0][..], &length].concat()
}

/// The start of a message, and so many bytes of it.
pub fn begun(promised: usize, sent: usize) -> Vec<u8> {
    [promise(promised), vec![b' '; sent]].concat()
}
