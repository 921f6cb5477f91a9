//! Clients that come and then do nothing more: bytes on the agent's socket.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};

/// The connection preface (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket's file that nobody serves, and never did: who inherits one that listens
/// would go on to.
pub fn stale(path: &Path) {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let address = SocketAddrUnix::new(path).expect("an address");
    bind(&socket, &address).expect("bind");
}

/// Connects and says nothing.
pub fn silent(socket: &Path) -> UnixStream {
    UnixStream::connect(socket).expect("connect")
}

/// Connects and says half of what opens a connection.
pub fn half_open(socket: &Path) -> UnixStream {
    let mut stream = silent(socket);
    stream.write_all(&PREFACE[..10]).expect("write");
    stream
}

/// Starts a call that declares `length` bytes and sends the first `sent`.
pub fn half_sent(socket: &Path, length: u32, sent: usize) -> UnixStream {
    let mut bytes = PREFACE.to_vec();
    push_frame(&mut bytes, 4, 0, 0, &[]); // SETTINGS
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/logagent.LogAgent/SendLog"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        headers.push(0); // literal, not indexed, new name (RFC 7541 6.2.2)
        for text in [name, value] {
            headers.push(u8::try_from(text.len()).expect("short"));
            headers.extend(text.bytes());
        }
    }
    push_frame(&mut bytes, 1, 4, 1, &headers); // HEADERS, END_HEADERS
    let mut message = vec![0];
    message.extend(length.to_be_bytes());
    message.resize(5 + sent, b'x');
    push_frame(&mut bytes, 0, 0, 1, &message); // DATA
    let mut stream = silent(socket);
    stream.write_all(&bytes).expect("write");
    stream
}

fn push_frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    to.extend(&length[1..]);
    to.extend([kind, flags]);
    to.extend(stream.to_be_bytes());
    to.extend(payload);
}
