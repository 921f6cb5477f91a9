//! Follows the HTTP/2 frames that a client sends (RFC 9113 section 4) and hands
//! each whole header block to the [`Walker`].

use std::fmt;
use std::ops::Range;

use super::hpack::Walker;
use super::huffman::Invalid;
use crate::limits;

/// What a client sends first (RFC 9113 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's header (RFC 9113 4.1).
const HEAD: usize = 9;

/// Of no known type: such frames are ignored (RFC 9113 4.1).
const UNKNOWN: u8 = 0xff;

/// Where a frame's header has its type.
const TYPE_AT: usize = 3;

/// Frame types and flags of RFC 9113 section 6.
const HEADERS: u8 = 0x1;
const PUSH_PROMISE: u8 = 0x5;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A header block that takes more than [`limits::HEADER_BLOCK_MAX`] bytes, its
/// frames' headers and padding included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max = limits::HEADER_BLOCK_MAX;
        write!(f, "a header block of more than {max} bytes")
    }
}

impl std::error::Error for TooLarge {}

#[derive(Debug)]
enum State {
    /// In the client preface, of which so many bytes have passed.
    Preface(usize),
    /// At the header of a frame, or in a header block.
    Head(Block),
    /// In the payload of a frame that is of no interest; so many bytes to come.
    Payload(usize),
    /// The client broke the protocol: h2 gets to see how, and answers it.
    GivenUp,
}

/// What has come of a header block since the last released byte.
#[derive(Debug, Default)]
struct Block {
    /// The stream of the HEADERS frame, once that is known.
    stream: Option<u32>,
    /// Bytes of the whole frames that have been looked at.
    scanned: usize,
    /// Nothing can be done before so many bytes are there.
    needed: usize,
}

/// What is to be done with the bytes at hand.
enum Scanned {
    /// They are not enough.
    Wait,
    /// A frame of no interest with a payload of so many bytes.
    Other(usize),
    /// The same, and it concerns the window of that stream.
    StreamWindow(usize, u32),
    /// The first so many bytes are a whole header block, of that stream.
    Block(usize, u32),
    /// No client may send this.
    Violation,
}

/// Follows the frames of one client.
#[derive(Debug)]
pub struct Follower {
    state: State,
    /// The client's first frame has passed.
    begun: bool,
    walker: Walker,
    /// The connection is asked to end. A client may then begin a stream that crosses
    /// h2's last GOAWAY. h2 ignores that, as RFC 9113 6.8 has it, but takes a
    /// WINDOW_UPDATE for it as a breach of the protocol that costs the connection and
    /// every call in flight. Answers are so short that none waits for one.
    pub is_ending: bool,
    /// The last stream that was begun before.
    last_stream: u32,
}

impl Default for Follower {
    fn default() -> Self {
        Follower {
            state: State::Preface(0),
            begun: false,
            walker: Walker::default(),
            is_ending: false,
            last_stream: 0,
        }
    }
}

impl Follower {
    /// Rewrites the header blocks in `bytes`, which begin with what the last
    /// call did not release. Answers how many leading bytes may be released;
    /// the others are to be fed again, with more behind them.
    ///
    /// # Errors
    /// A header block is too large to be held back.
    pub fn feed(&mut self, bytes: &mut [u8]) -> Result<usize, TooLarge> {
        let mut released = 0;
        while let Some(rest) = bytes.get_mut(released..).filter(|rest| !rest.is_empty()) {
            released += match self.step(rest)? {
                Some(more) => more,
                None => break,
            };
        }
        Ok(released)
    }

    /// How many of `rest` may be released, which may be none while the state
    /// moves on; nothing where more bytes are needed.
    fn step(&mut self, rest: &mut [u8]) -> Result<Option<usize>, TooLarge> {
        match &mut self.state {
            State::GivenUp => Ok(Some(rest.len())),
            State::Preface(seen) => {
                let expected = PREFACE.iter().skip(*seen);
                let count = expected.len().min(rest.len());
                if !expected.zip(rest.iter()).all(|(a, b)| a == b) {
                    self.state = State::GivenUp;
                    return Ok(Some(0));
                }
                *seen += count;
                if *seen == PREFACE.len() {
                    self.state = State::Head(Block::default());
                }
                Ok(Some(count))
            }
            State::Payload(left) => {
                let count = rest.len().min(*left);
                *left -= count;
                if *left == 0 {
                    self.begun = true;
                    self.state = State::Head(Block::default());
                }
                Ok(Some(count))
            }
            State::Head(block) => match block.scan(rest)? {
                Scanned::Wait => Ok(None),
                Scanned::Other(payload) => {
                    self.state = State::Payload(payload);
                    Ok(Some(HEAD))
                }
                Scanned::StreamWindow(payload, stream) => {
                    if self.is_ending
                        && stream > self.last_stream
                        && let Some(kind) = rest.get_mut(TYPE_AT)
                    {
                        *kind = UNKNOWN;
                    }
                    self.state = State::Payload(payload);
                    Ok(Some(HEAD))
                }
                Scanned::Block(length, stream) => {
                    if !self.is_ending {
                        self.last_stream = self.last_stream.max(stream);
                    }
                    let whole = rest.get_mut(..length).unwrap_or_default();
                    self.begun = true;
                    self.state = match rewrite(&mut self.walker, whole) {
                        Ok(()) => State::Head(Block::default()),
                        Err(Invalid) => State::GivenUp,
                    };
                    Ok(Some(length))
                }
                Scanned::Violation => {
                    self.state = State::GivenUp;
                    Ok(Some(0))
                }
            },
        }
    }

    /// How many bytes it takes, with those not released, before feeding can
    /// release another; 0 where any byte will do.
    #[must_use]
    pub fn needed(&self) -> usize {
        match &self.state {
            State::Head(block) => block.needed.max(HEAD),
            State::Preface(_) | State::Payload(_) | State::GivenUp => 0,
        }
    }

    /// The client preface has not come whole; the SETTINGS frame at its end is
    /// part of it (RFC 9113 3.4).
    #[must_use]
    pub fn in_preface(&self) -> bool {
        match self.state {
            State::Preface(_) => true,
            State::Head(_) => !self.begun,
            State::Payload(left) => !self.begun && left > 0,
            State::GivenUp => false,
        }
    }

    /// Lets everything pass from here on.
    pub fn give_up(&mut self) {
        self.state = State::GivenUp;
    }
}

impl Block {
    fn scan(&mut self, bytes: &[u8]) -> Result<Scanned, TooLarge> {
        loop {
            if bytes.len() < self.needed {
                return Ok(Scanned::Wait);
            }
            let Some(head) = bytes.get(self.scanned..).and_then(Head::parse) else {
                self.needed = self.scanned + HEAD;
                return Ok(Scanned::Wait);
            };
            match (self.stream, head.kind) {
                (None, HEADERS) if head.stream != 0 => {}
                (Some(stream), CONTINUATION) if head.stream == stream => {}
                (Some(_), _) | (None, HEADERS | PUSH_PROMISE | CONTINUATION) => {
                    return Ok(Scanned::Violation);
                }
                (None, WINDOW_UPDATE) if head.stream != 0 => {
                    return Ok(Scanned::StreamWindow(head.length, head.stream));
                }
                (None, _) => return Ok(Scanned::Other(head.length)),
            }
            let end = self.scanned + HEAD + head.length;
            if end > limits::HEADER_BLOCK_MAX {
                return Err(TooLarge);
            }
            if bytes.len() < end {
                self.needed = end;
                return Ok(Scanned::Wait);
            }
            if head.has(END_HEADERS) {
                return Ok(Scanned::Block(end, head.stream));
            }
            self.stream = Some(head.stream);
            self.scanned = end;
        }
    }
}

/// A frame's header.
struct Head {
    /// Bytes of the payload.
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Head> {
        let [l0, l1, l2, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD>()?;
        Some(Head {
            length: usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff, // the first bit is reserved
        })
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Where in a HEADERS frame the field block fragment is (RFC 9113 6.2).
    fn fragment(&self, frame: &[u8]) -> Result<Range<usize>, Invalid> {
        let (mut start, mut end) = (HEAD, HEAD + self.length);
        if self.has(PADDED) {
            let padding = frame.get(start..end).and_then(<[u8]>::first);
            let padding = usize::from(*padding.ok_or(Invalid)?);
            end = end.checked_sub(padding).ok_or(Invalid)?;
            start += 1;
        }
        if self.has(PRIORITY) {
            start += 5;
        }
        if start <= end {
            Ok(start..end)
        } else {
            Err(Invalid)
        }
    }
}

/// Rewrites a whole header block in its frames.
fn rewrite(walker: &mut Walker, frames: &mut [u8]) -> Result<(), Invalid> {
    let head = Head::parse(frames).ok_or(Invalid)?;
    let first = head.fragment(frames)?;
    if head.has(END_HEADERS) {
        return walker.rewrite(frames.get_mut(first).ok_or(Invalid)?);
    }
    // Fields may run over the ends of frames, so the fragments are joined, and
    // put back where they were.
    let mut at = HEAD + head.length;
    let mut fragments = vec![first];
    while let Some(head) = frames.get(at..).and_then(Head::parse) {
        let start = at + HEAD;
        at = start + head.length;
        fragments.push(start..at);
    }
    let mut block = Vec::new();
    for fragment in &fragments {
        block.extend_from_slice(frames.get(fragment.clone()).ok_or(Invalid)?);
    }
    walker.rewrite(&mut block)?;
    let mut bytes = block.into_iter();
    for fragment in fragments {
        for (to, from) in frames
            .get_mut(fragment)
            .ok_or(Invalid)?
            .iter_mut()
            .zip(&mut bytes)
        {
            *to = from;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
