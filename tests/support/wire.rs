//! What clients put on the wire: recordings, frames, and a small HPACK encoder.

use std::collections::VecDeque;

/// Frame types and flags of RFC 9113 section 6.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITY: u8 = 0x20;

pub const PATH: &str = "/logagent.LogAgent/SendLog";

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap();
    digits.chunks(2).map(byte).collect()
}

pub fn recording(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings");
    hex(&std::fs::read_to_string(format!("{folder}/{name}.hex")).unwrap())
}

pub fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes());
    let at = at.expect("the recording holds the authority");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// Takes the first whole frame.
    pub fn take(input: &mut Vec<u8>) -> Option<Frame> {
        let &[l0, l1, l2, kind, flags, s0, s1, s2, s3] = input.first_chunk()?;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let frame = Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
            payload: input.get(9..9 + length)?.to_vec(),
        };
        input.drain(..9 + length);
        Some(frame)
    }
}

/// RFC 9113 3.4.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The preface and an empty SETTINGS frame.
pub fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A connection of requests without bodies.
pub fn connection(blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = opening();
    for (block, stream) in blocks.iter().zip((1..).step_by(2)) {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, block));
    }
    bytes
}

/// `:method POST`, `:scheme http`, `:path /a` by the static table, and more.
pub fn request(rest: &[u8]) -> Vec<u8> {
    let mut block = hex("8386 0402 2f61");
    block.extend(rest);
    block
}

/// A literal without indexing whose name is entry 1 of the static table.
pub fn plain_authority(value: &[u8]) -> Vec<u8> {
    let mut field = vec![0x01];
    Encoder::string(&mut field, value, false);
    field
}

#[derive(Clone, Copy, PartialEq)]
pub enum Form {
    /// By index alone where the table has the field, else `Indexing`.
    Index,
    Indexing,
    Without,
    Never,
}

/// An HPACK encoder (RFC 7541) that lets the caller choose each field's form.
pub struct Encoder {
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    size: usize,
    size_max: usize,
}

impl Encoder {
    pub fn new() -> Self {
        Encoder {
            table: VecDeque::new(),
            size: 0,
            size_max: 4096,
        }
    }

    pub fn entries(&self) -> usize {
        self.table.len()
    }

    pub fn resize(&mut self, out: &mut Vec<u8>, size_max: usize) {
        self.size_max = size_max;
        Self::integer(out, 0x20, 5, size_max);
        self.evict(size_max);
    }

    /// `named` refers to the name by index where the table has it.
    pub fn field(
        &mut self,
        out: &mut Vec<u8>,
        (name, value): (&[u8], &[u8]),
        form: Form,
        named: bool,
        huffman: bool,
    ) {
        let whole = self.table.iter().position(|(n, v)| n == name && v == value);
        if let (Form::Index, Some(at)) = (form, whole) {
            return Self::integer(out, 0x80, 7, at + 62);
        }
        let name_at = self.table.iter().position(|(n, _)| n == name);
        let name_at = name_at.filter(|_| named).map_or(0, |at| at + 62);
        match form {
            Form::Index | Form::Indexing => Self::integer(out, 0x40, 6, name_at),
            Form::Without => Self::integer(out, 0, 4, name_at),
            Form::Never => Self::integer(out, 0x10, 4, name_at),
        }
        if name_at == 0 {
            Self::string(out, name, huffman);
        }
        Self::string(out, value, huffman);
        if matches!(form, Form::Index | Form::Indexing) {
            let size = name.len() + value.len() + 32;
            self.evict(self.size_max.saturating_sub(size));
            if size <= self.size_max {
                self.size += size;
                self.table.push_front((name.to_vec(), value.to_vec()));
            }
        }
    }

    fn evict(&mut self, size: usize) {
        while self.size > size {
            let (name, value) = self.table.pop_back().unwrap();
            self.size -= name.len() + value.len() + 32;
        }
    }

    pub fn integer(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
        let mask = (1_usize << prefix) - 1;
        if value < mask {
            return out.push(first | u8::try_from(value).unwrap());
        }
        out.push(first | u8::try_from(mask).unwrap());
        let mut rest = value - mask;
        while rest >= 128 {
            out.push(0x80 | (rest % 128) as u8);
            rest /= 128;
        }
        out.push(rest as u8);
    }

    pub fn string(out: &mut Vec<u8>, text: &[u8], huffman: bool) {
        let bytes = if huffman { encode(text) } else { text.to_vec() };
        Self::integer(out, if huffman { 0x80 } else { 0 }, 7, bytes.len());
        out.extend(bytes);
    }
}

/// RFC 7541 appendix B for printable ASCII, the symbols grouped by code length:
/// length in bits, first code, symbols in the order of their codes.
const HUFFMAN: [(usize, u32, &str); 11] = [
    (5, 0x0, "012aceiost"),
    (6, 0x14, " %-./3456789=A_bdfghlmnpru"),
    (7, 0x5c, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, 0xf8, "&*,;XZ"),
    (10, 0x3f8, "!\"()?"),
    (11, 0x7fa, "'+|"),
    (12, 0xffa, "#>"),
    (13, 0x1ff9, "$@[]~"),
    (14, 0x3ffc, "^}"),
    (15, 0x7ffc, "<`{"),
    (19, 0x7fff0, "\\"),
];

fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = String::new();
    for byte in text {
        let code = |(length, first, symbols): &(usize, u32, &str)| {
            let at = symbols.bytes().position(|symbol| symbol == *byte)?;
            Some((*length, first + u32::try_from(at).unwrap()))
        };
        let (length, code) = HUFFMAN.iter().find_map(code).expect("printable ASCII");
        bits.push_str(&format!("{code:0length$b}"));
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
    (0..bits.len()).step_by(8).map(byte).collect()
}

/// All ways to cut in two, and byte by byte.
pub fn cuts(bytes: &[u8]) -> impl Iterator<Item = Vec<Vec<u8>>> + '_ {
    let two = (1..bytes.len()).map(|at| vec![bytes[..at].to_vec(), bytes[at..].to_vec()]);
    two.chain([bytes.chunks(1).map(<[u8]>::to_vec).collect()])
}
