//! A client that keeps to flow control, so that it can be as hostile as that allows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::support::raw::{Frame, Got, Raw, call};
use crate::support::wire::{
    ACK, DATA, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// Keeps to the windows and to as many streams as it is allowed, and to nothing else.
pub struct Client {
    pub raw: Raw,
    pub streams: u32,
    initial: i64,
    connection: i64,
    pub own: BTreeMap<u32, i64>,
    /// Until it says that it has seen the agent's SETTINGS, the windows are larger.
    acknowledges: bool,
    pub is_open: bool,
}

impl Client {
    pub fn connect(socket: &Path) -> Client {
        Client {
            raw: Raw::open(socket),
            streams: u32::MAX,
            // RFC 9113 6.9.2: what every connection begins with.
            initial: 65_535,
            connection: 65_535,
            own: BTreeMap::new(),
            acknowledges: true,
            is_open: true,
        }
    }

    /// Connects, and will not have seen the agent's SETTINGS.
    pub fn deaf(socket: &Path) -> Client {
        let mut client = Client::connect(socket);
        client.acknowledges = false;
        client.round_trip();
        client
    }

    /// Connects, and knows what it is allowed.
    pub fn settled(socket: &Path) -> Client {
        let mut client = Client::connect(socket);
        // The second one's answer comes after that to our acknowledgement.
        client.round_trip();
        client.round_trip();
        client
    }

    /// Reads all that the agent has said so far.
    pub fn round_trip(&mut self) {
        const MARK: &[u8] = b"how far?";
        self.send(&frame(PING, 0, 0, MARK));
        while self.is_open {
            match self.raw.next(DEADLINE) {
                Got::Frame(got) if got.kind == PING && got.payload == MARK => return,
                Got::Frame(got) => self.take(&got),
                Got::End => self.is_open = false,
                Got::Nothing => panic!("no answer within {DEADLINE:?}"),
            }
        }
    }

    pub fn take(&mut self, got: &Frame) {
        match got.kind {
            SETTINGS if got.flags & ACK == 0 => {
                let before = self.initial;
                for parameter in got.payload.chunks_exact(6) {
                    let (name, value) = parameter.split_at(2);
                    match (name, be_u32(value)) {
                        ([0, 3], streams) => self.streams = streams,
                        ([0, 4], initial) => {
                            let more = i64::from(initial) - self.initial;
                            self.own.values_mut().for_each(|window| *window += more);
                            self.initial += more;
                        }
                        _ => {}
                    }
                }
                match self.acknowledges {
                    true => self.send(&frame(SETTINGS, ACK, 0, &[])),
                    false => self.initial = before,
                }
            }
            WINDOW_UPDATE if got.stream == 0 => self.connection += i64::from(be_u32(&got.payload)),
            WINDOW_UPDATE => {
                if let Some(window) = self.own.get_mut(&got.stream) {
                    *window += i64::from(be_u32(&got.payload));
                }
            }
            RST_STREAM => drop(self.own.remove(&got.stream)),
            HEADERS if got.flags & END_STREAM != 0 => drop(self.own.remove(&got.stream)),
            _ => {}
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.is_open = self.is_open && self.raw.try_send(bytes);
    }

    pub fn begin(&mut self, stream: u32) {
        self.send(&call(stream, b"", 0));
        self.own.insert(stream, self.initial);
    }

    /// As many bytes as can be sent now, `most` at most.
    pub fn window(&self, stream: u32, most: usize) -> usize {
        let own = self.own.get(&stream).copied().unwrap_or_default();
        let window = usize::try_from(own.min(self.connection)).unwrap_or_default();
        window.min(most).min(16_384)
    }

    /// Sends DATA; the windows must allow it.
    pub fn data(&mut self, stream: u32, bytes: &[u8]) {
        let length = bytes.len() as i64;
        self.connection -= length;
        *self.own.get_mut(&stream).expect("an open stream") -= length;
        self.send(&frame(DATA, 0, stream, bytes));
    }

    /// Sends as much of a body as the windows allow, as if it had not read on.
    pub fn body(&mut self, stream: u32, body: &[u8]) -> usize {
        let mut sent = 0;
        while self.window(stream, body.len() - sent) > 0 {
            let next = self.window(stream, body.len() - sent);
            self.data(stream, &body[sent..sent + next]);
            sent += next;
        }
        sent
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}
