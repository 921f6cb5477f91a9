//! The Huffman code of HPACK strings (RFC 7541 section 5.2 and appendix B).

/// A header block that RFC 7541 does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid;

/// Bits of each symbol's code, as in RFC 7541 appendix B; the last one is EOS.
/// The code is canonical: shorter codes come first, and those of one length in
/// the order of their symbols. So the lengths are all there is to know.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The longest code, in bits.
const LONGEST: usize = 30;

/// The codes of one length.
#[derive(Clone, Copy)]
struct Row {
    /// The first of them.
    first: u32,
    /// How many there are.
    count: u32,
    /// Where their symbols begin in [`Code::symbols`].
    start: u32,
}

struct Code {
    /// Indexed by length in bits.
    rows: [Row; LONGEST + 1],
    /// All symbols in the order of their codes.
    symbols: [u16; LENGTHS.len()],
}

static CODE: Code = derive();

#[allow(clippy::indexing_slicing)] // at compile time
const fn derive() -> Code {
    let none = Row {
        first: 0,
        count: 0,
        start: 0,
    };
    let mut code = Code {
        rows: [none; LONGEST + 1],
        symbols: [0; LENGTHS.len()],
    };
    let (mut next, mut rank, mut length) = (0, 0, 1);
    while length <= LONGEST {
        next <<= 1;
        let start = rank;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[rank] = symbol as u16;
                rank += 1;
            }
            symbol += 1;
        }
        let count = (rank - start) as u32;
        code.rows[length] = Row {
            first: next,
            count,
            start: start as u32,
        };
        next += count;
        length += 1;
    }
    code
}

/// The symbol whose code begins `bits` (left-aligned, `count` of them valid),
/// and the length of that code; none where the bits end before a code does.
fn symbol(bits: u64, count: u32) -> Option<(u16, u32)> {
    for (row, length) in CODE.rows.iter().zip(0..=count) {
        let Some(prefix) = bits.checked_shr(u64::BITS - length) else {
            continue; // length 0
        };
        let Some(rank) = (prefix as u32).checked_sub(row.first) else {
            continue;
        };
        if rank < row.count {
            let symbol = CODE.symbols.get((row.start + rank) as usize)?;
            return Some((*symbol, length));
        }
    }
    None
}

/// Decodes a string and hands over each of its bytes.
///
/// # Errors
/// EOS in the string, or padding that is not fewer than eight one-bits
/// (RFC 7541 section 5.2).
pub fn decode(encoded: &[u8], each: &mut dyn FnMut(u8)) -> Result<(), Invalid> {
    let (mut bits, mut count) = (0_u64, 0_u32);
    let mut bytes = encoded.iter();
    loop {
        while count <= u64::BITS - 8 {
            let Some(&byte) = bytes.next() else { break };
            bits |= u64::from(byte) << (u64::BITS - 8 - count);
            count += 8;
        }
        let Some((symbol, length)) = symbol(bits, count) else {
            break;
        };
        each(u8::try_from(symbol).map_err(|_| Invalid)?);
        bits <<= length;
        count -= length;
    }
    if count < 8 && bits.leading_ones() >= count {
        Ok(())
    } else {
        Err(Invalid)
    }
}

/// Overwrites an encoded string of `symbols` symbols with one of as many bytes
/// that decodes to as many symbols, all of them `~` or `0`: both may stand in
/// an authority, and their codes differ by 8 bits, so that a mix of them fits
/// any number of bytes to within the padding.
///
/// Answers false and changes nothing where the symbols are longer than 13 bits
/// on average, the length of `~`: no symbol that an authority may hold is
/// longer. That takes a string of mostly non-ASCII or control bytes.
pub fn overwrite(encoded: &mut [u8], symbols: usize) -> bool {
    const TILDE_BITS: usize = 13; // 1111111111101
    const TILDE_ZERO: usize = 11; // the one zero in it
    const ZERO_BITS: usize = 5; // 00000
    let Some(spare) = (encoded.len() * 8).checked_sub(symbols * ZERO_BITS) else {
        return false;
    };
    let tildes = spare / (TILDE_BITS - ZERO_BITS);
    if tildes > symbols {
        return false;
    }
    encoded.fill(0xff);
    let mut clear = |bit: usize| {
        if let Some(byte) = encoded.get_mut(bit / 8) {
            *byte &= !(0x80 >> (bit % 8));
        }
    };
    for tilde in 0..tildes {
        clear(tilde * TILDE_BITS + TILDE_ZERO);
    }
    let zeros = tildes * TILDE_BITS;
    for bit in zeros..zeros + (symbols - tildes) * ZERO_BITS {
        clear(bit);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoded: &[u8]) -> Result<Vec<u8>, Invalid> {
        let mut text = Vec::new();
        decode(encoded, &mut |byte| text.push(byte))?;
        Ok(text)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// The code of every symbol as appendix B counts it, written bit by bit.
    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let at = CODE.symbols.iter().position(|s| *s == u16::from(*byte));
            let rank = u32::try_from(at.unwrap()).unwrap();
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let row = CODE.rows[length];
            bits.push_str(&format!("{:0length$b}", row.first + rank - row.start));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).unwrap();
        (0..bits.len()).step_by(8).map(byte).collect()
    }

    #[test]
    fn the_derived_code_is_that_of_the_rfc() {
        // The first code of each length, from RFC 7541 appendix B.
        let first = [
            (5, 0x0),
            (6, 0x14),
            (7, 0x5c),
            (8, 0xf8),
            (10, 0x3f8),
            (11, 0x7fa),
            (12, 0xffa),
            (13, 0x1ff8),
            (14, 0x3ffc),
            (15, 0x7ffc),
            (19, 0x7fff0),
            (20, 0xfffe6),
            (21, 0x1fffdc),
            (22, 0x3fffd2),
            (23, 0x7fffd8),
            (24, 0xffffea),
            (25, 0x1ffffec),
            (26, 0x3ffffe0),
            (27, 0x7ffffde),
            (28, 0xfffffe2),
            (30, 0x3ffffffc),
        ];
        for (length, code) in first {
            assert_eq!(CODE.rows[length].first, code, "{length} bits");
        }
        let used = CODE.rows.iter().filter(|row| row.count > 0).count();
        assert_eq!(used, first.len());
        assert_eq!(CODE.symbols[256], 256, "EOS is the last code");
    }

    #[test]
    fn decodes_the_strings_of_the_rfc() {
        // RFC 7541 appendix C.4 and C.6.
        for (encoded, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            (
                "d07abe941054d444a8200595040b8166e082a62d1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (
                "9d29ad171863c78f0b97c8e9ae82ae43d3",
                "https://www.example.com",
            ),
            ("", ""),
        ] {
            assert_eq!(
                decoded(&hex(encoded)).unwrap(),
                text.as_bytes(),
                "{encoded}"
            );
        }
    }

    #[test]
    fn every_byte_survives_a_round_trip() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encoded(&all)).unwrap(), all);
        for byte in 0..=255 {
            assert_eq!(decoded(&encoded(&[byte])).unwrap(), [byte]);
        }
    }

    #[test]
    fn refuses_what_the_rfc_refuses() {
        for (case, encoded) in [
            ("eight bits of padding", "ff"),
            ("eight bits of padding after a symbol", "07ff"),
            ("padding with a zero", "00"),
            ("padding that ends in a zero", "06"),
            ("EOS", "ffffffff"),
            ("a code cut short", "ffff"),
        ] {
            assert_eq!(decoded(&hex(encoded)), Err(Invalid), "{case}");
        }
    }

    #[test]
    fn overwrites_at_equal_length() {
        for text in [
            "/tmp/a b.sock",
            "/",
            "%",
            "////////",
            "/run/user/1000/app/.datanadhi/data-nadhi-agent.sock",
            "/tmp/stra\u{df}e/data-nadhi-agent.sock",
            "\\~~~|||<<<>>>",
        ] {
            let mut string = encoded(text.as_bytes());
            let length = string.len();
            assert!(overwrite(&mut string, text.len()), "{text}");
            let after = decoded(&string).unwrap();
            assert_eq!((string.len(), after.len()), (length, text.len()), "{text}");
            assert!(after.iter().all(|byte| b"~0".contains(byte)), "{text}");
        }
    }

    #[test]
    fn leaves_what_cannot_be_overwritten() {
        let text = [0xe4, 0xb8, 0xad, 0xe6, 0x96, 0x87];
        let mut string = encoded(&text);
        let before = string.clone();
        assert!(!overwrite(&mut string, text.len()));
        assert_eq!(string, before);
        assert!(
            !overwrite(&mut [0], 2),
            "no string of one byte has two symbols"
        );
    }
}
