//! Walks HPACK header blocks (RFC 7541) and makes their `:authority` acceptable.
//!
//! gRPC clients on UNIX sockets send the socket's path as `:authority`, which
//! the `http` crate, and with it h2, refuses (spec 3). The values are
//! overwritten where they stand. As neither their encoded nor their decoded
//! length changes, the dynamic tables of both ends go on evicting alike.

use std::collections::VecDeque;
use std::mem;

use hyper::http::uri::Authority;

use super::huffman::{self, Invalid};
use crate::limits;

const AUTHORITY: &[u8] = b":authority";

/// Bytes of the names in the static table (RFC 7541 appendix A).
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14,
    16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10,
    25, 17, 10, 4, 3, 16,
];

/// What the length of an entry counts for beyond name and value (RFC 7541 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// What is to be known of a field's name.
#[derive(Debug, Clone, Copy)]
struct Name {
    /// Decoded bytes.
    length: usize,
    is_authority: bool,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    /// As RFC 7541 4.1 counts it.
    size: usize,
}

/// Walks the header blocks of one direction of a connection, in their order.
#[derive(Debug)]
pub struct Walker {
    /// Newest first, as the indices count them.
    entries: VecDeque<Entry>,
    /// The sum of their sizes; at most `size_max`.
    size: usize,
    /// What the client last announced.
    size_max: usize,
}

impl Default for Walker {
    fn default() -> Self {
        Walker {
            entries: VecDeque::new(),
            size: 0,
            size_max: limits::HPACK_TABLE_MAX,
        }
    }
}

impl Walker {
    /// Walks one whole header block and overwrites each `:authority` value that
    /// [`Authority`] would refuse.
    ///
    /// Two are left, and h2 refuses them: an empty one, and a Huffman-coded
    /// one of mostly non-ASCII bytes (see [`huffman::overwrite`]).
    ///
    /// # Errors
    /// The block breaks RFC 7541; the table is then of no more use.
    pub fn rewrite(&mut self, mut block: &mut [u8]) -> Result<(), Invalid> {
        while !block.is_empty() {
            self.field(&mut block)?;
        }
        Ok(())
    }

    /// One representation of RFC 7541 section 6.
    fn field(&mut self, rest: &mut &mut [u8]) -> Result<(), Invalid> {
        let first = byte(rest)?;
        if first & 0x80 != 0 {
            let index = integer(rest, first, 7)?;
            return self.name(index).map(|_| ());
        }
        if first & 0xe0 == 0x20 {
            // Where in a block this may stand is for h2 to judge.
            let size_max = integer(rest, first, 5)?;
            return self.resize(size_max);
        }
        let indexed = first & 0x40 != 0;
        let name = match integer(rest, first, if indexed { 6 } else { 4 })? {
            0 => Text::take(rest)?.name()?,
            index => self.name(index)?,
        };
        let mut value = Text::take(rest)?;
        if name.is_authority {
            value.make_authority()?;
        }
        if indexed {
            let size = name.length + value.length()? + ENTRY_OVERHEAD;
            self.insert(Entry { name, size });
        }
        Ok(())
    }

    fn name(&self, index: usize) -> Result<Name, Invalid> {
        let index = index.checked_sub(1).ok_or(Invalid)?;
        if let Some(length) = STATIC_NAMES.get(index) {
            return Ok(Name {
                length: usize::from(*length),
                is_authority: index == 0,
            });
        }
        let entry = self.entries.get(index - STATIC_NAMES.len());
        entry.map(|entry| entry.name).ok_or(Invalid)
    }

    fn resize(&mut self, size_max: usize) -> Result<(), Invalid> {
        if size_max > limits::HPACK_TABLE_MAX {
            return Err(Invalid);
        }
        self.size_max = size_max;
        self.evict(size_max);
        Ok(())
    }

    /// An entry larger than the table empties it (RFC 7541 4.4).
    fn insert(&mut self, entry: Entry) {
        self.evict(self.size_max.saturating_sub(entry.size));
        if entry.size <= self.size_max {
            self.size += entry.size;
            self.entries.push_front(entry);
        }
    }

    fn evict(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else {
                break;
            };
            self.size -= oldest.size;
        }
    }
}

/// A string literal (RFC 7541 5.2), where it stands.
struct Text<'a> {
    huffman: bool,
    encoded: &'a mut [u8],
}

impl<'a> Text<'a> {
    fn take(rest: &mut &'a mut [u8]) -> Result<Self, Invalid> {
        let first = byte(rest)?;
        let length = integer(rest, first, 7)?;
        Ok(Text {
            huffman: first & 0x80 != 0,
            encoded: take(rest, length)?,
        })
    }

    fn decode(&self, each: &mut dyn FnMut(u8)) -> Result<(), Invalid> {
        if self.huffman {
            return huffman::decode(self.encoded, each);
        }
        self.encoded.iter().for_each(|byte| each(*byte));
        Ok(())
    }

    /// Decoded bytes.
    fn length(&self) -> Result<usize, Invalid> {
        if !self.huffman {
            return Ok(self.encoded.len());
        }
        let mut length = 0;
        self.decode(&mut |_| length += 1)?;
        Ok(length)
    }

    fn name(&self) -> Result<Name, Invalid> {
        let (mut length, mut same) = (0, true);
        self.decode(&mut |byte| {
            same &= AUTHORITY.get(length) == Some(&byte);
            length += 1;
        })?;
        Ok(Name {
            length,
            is_authority: same && length == AUTHORITY.len(),
        })
    }

    fn make_authority(&mut self) -> Result<(), Invalid> {
        if !self.huffman {
            if Authority::try_from(&*self.encoded).is_err() {
                self.encoded.iter_mut().for_each(make_unreserved);
            }
            return Ok(());
        }
        let mut value = Vec::new();
        self.decode(&mut |byte| value.push(byte))?;
        if Authority::try_from(value.as_slice()).is_err() {
            huffman::overwrite(self.encoded, value.len());
        }
        Ok(())
    }
}

/// Leaves only what RFC 3986 2.3 reserves for nothing: no separator, no escape,
/// so that any string of it is a host.
fn make_unreserved(byte: &mut u8) {
    if !byte.is_ascii_alphanumeric() && !b"-._~".contains(byte) {
        *byte = b'-';
    }
}

fn take<'a>(rest: &mut &'a mut [u8], length: usize) -> Result<&'a mut [u8], Invalid> {
    let whole = mem::take(rest);
    let (taken, left) = whole.split_at_mut_checked(length).ok_or(Invalid)?;
    *rest = left;
    Ok(taken)
}

fn byte(rest: &mut &mut [u8]) -> Result<u8, Invalid> {
    take(rest, 1)?.first().copied().ok_or(Invalid)
}

/// The integer (RFC 7541 5.1) that begins in the low `prefix` bits of `first`.
fn integer(rest: &mut &mut [u8], first: u8, prefix: u32) -> Result<usize, Invalid> {
    let mask = 0xff >> (8 - prefix);
    let mut value = usize::from(first & mask);
    if value < usize::from(mask) {
        return Ok(value);
    }
    // h2 takes four further bytes and no more; they cannot overflow.
    for shift in [0, 7, 14, 21] {
        let byte = byte(rest)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Invalid)
}

#[cfg(test)]
#[path = "hpack_tests.rs"]
mod tests;
