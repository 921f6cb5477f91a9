//! HTTP/1.1 as a server speaks it, no more than the tests need and free of the
//! agent's own parser: what both got wrong alike would not show.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A request as it came over the wire.
#[derive(Debug)]
pub struct Message {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    raw: Option<Vec<u8>>,
    pub delay: Duration,
    pub ending: Ending,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Written whole; the connection stays.
    Whole,
    /// Written whole; then the connection is closed without a word about it.
    ThenClose,
    /// So many bytes of it are written, then the connection is reset.
    ResetAfter(usize),
    /// Byte by byte, with such a pause before each.
    Trickle(Duration),
    /// Not a byte; the connection is closed.
    Close,
    /// Not a byte, ever; the connection stays open.
    Never,
}

impl Answer {
    /// 200 with `{"ok":true}`.
    pub fn ok() -> Answer {
        Answer::status(200).body(br#"{"ok":true}"#)
    }

    pub fn status(status: u16) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            raw: None,
            delay: Duration::ZERO,
            ending: Ending::Whole,
        }
    }

    /// These very bytes; `status` is what the server's own log says.
    pub fn raw(status: u16, bytes: &[u8]) -> Answer {
        let mut answer = Answer::status(status);
        answer.raw = Some(bytes.to_vec());
        answer
    }

    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: &[u8]) -> Answer {
        self.body = body.to_vec();
        self
    }

    pub fn after(mut self, delay: Duration) -> Answer {
        self.delay = delay;
        self
    }

    pub fn then(mut self, ending: Ending) -> Answer {
        self.ending = ending;
        self
    }

    /// Gives the answer; false when the connection is to end.
    pub fn give(
        &self,
        stream: &mut &TcpStream,
        reader: &mut BufReader<&TcpStream>,
    ) -> io::Result<bool> {
        let bytes = self.bytes();
        match self.ending {
            Ending::Whole => {
                stream.write_all(&bytes)?;
                return Ok(true);
            }
            Ending::ThenClose => stream.write_all(&bytes)?,
            Ending::Trickle(pause) => {
                for byte in bytes {
                    std::thread::sleep(pause);
                    stream.write_all(&[byte])?;
                }
            }
            Ending::ResetAfter(length) => {
                stream.write_all(bytes.get(..length).unwrap_or(&bytes))?;
                // With a linger time of zero, close sends RST.
                rustix::net::sockopt::set_socket_linger(*stream, Some(Duration::ZERO))?;
            }
            Ending::Close => {}
            // Until the other side closes; a reset ends it as well.
            Ending::Never => drop(io::copy(reader, &mut io::sink())),
        }
        Ok(false)
    }

    /// The answer on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut bytes = format!("HTTP/1.1 {} As Planned\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        if !bodiless && !self.names_its_length() {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    fn names_its_length(&self) -> bool {
        self.headers.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length")
                || name.eq_ignore_ascii_case("transfer-encoding")
        })
    }
}

impl Message {
    /// Reads one request. None: the client closed between two requests.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Message>> {
        let Some(start) = read_line(from)? else {
            return Ok(None);
        };
        let mut words = start.split(' ');
        let (Some(method), Some(path), Some("HTTP/1.1"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(invalid(format!("request line {start:?}")));
        };
        let mut message = Message {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: read_headers(from)?,
            body: Vec::new(),
        };
        message.body = message.read_body(from)?;
        Ok(Some(message))
    }

    /// The value of the only header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} is there twice");
        Some(&value.1)
    }

    fn read_body(&self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        if let Some(coding) = self.header("transfer-encoding") {
            return match coding {
                "chunked" => read_chunks(from),
                other => Err(invalid(format!("transfer coding {other:?}"))),
            };
        }
        let length = match self.header("content-length") {
            Some(length) => length.parse().map_err(|_| invalid(length.to_owned()))?,
            None => 0,
        };
        read_exactly(from, length)
    }
}

fn read_headers(from: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid(format!("header {line:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = usize::from_str_radix(&line, 16).map_err(|_| invalid(line))?;
        body.extend(read_exactly(from, size)?);
        let end = read_line(from)?;
        if end.as_deref() != Some("") {
            return Err(invalid(format!("end of chunk {end:?}")));
        }
        if size == 0 {
            return Ok(body);
        }
    }
}

fn read_exactly(from: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A line without its CRLF; None at the end of the stream.
fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(Some(line.to_owned())),
        None => Err(invalid(format!("line {line:?} without CRLF"))),
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
