//! What a request carries besides its record is small, or it is refused: two
//! bytes on the wire can be a pipeline of 24 bytes once decoded, and the budget
//! of spec 3 counts bytes on the wire.

use tonic::Status;

use crate::limits::{METADATA_MAX, PIPELINES_MAX};

/// Field numbers of `LogRequest` in `proto/logagent.proto`.
const PIPELINES: u64 = 2;
const API_KEY: u64 = 3;

/// Wire types of protobuf's encoding.
const VARINT: u64 = 0;
const I64: u64 = 1;
const LEN: u64 = 2;
const I32: u64 = 5;

/// Looks through an encoded `LogRequest`. One that breaks protobuf's rules
/// passes: decoding tells what is wrong with it, and stops there as well.
///
/// # Errors
/// RESOURCE_EXHAUSTED for more than [`PIPELINES_MAX`] pipelines, or more than
/// [`METADATA_MAX`] bytes of them and the API key.
pub fn check(message: &[u8]) -> Result<(), Status> {
    let (mut pipelines, mut bytes) = (0_usize, 0_usize);
    for (field, length) in (Fields { rest: message }) {
        if field == PIPELINES {
            pipelines += 1;
        }
        if field == PIPELINES || field == API_KEY {
            bytes = bytes.saturating_add(length);
        }
    }
    if pipelines > PIPELINES_MAX {
        return Err(Status::resource_exhausted(format!(
            "the request names {pipelines} pipelines, the limit is {PIPELINES_MAX}"
        )));
    }
    if bytes > METADATA_MAX {
        return Err(Status::resource_exhausted(format!(
            "pipelines and api_key have {bytes} bytes, the limit is {METADATA_MAX}"
        )));
    }
    Ok(())
}

/// The number and length of every length-delimited field.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Iterator for Fields<'_> {
    type Item = (u64, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = self.varint()?;
            match key & 7 {
                VARINT => drop(self.varint()?),
                I64 => self.skip(8)?,
                I32 => self.skip(4)?,
                LEN => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    self.skip(length)?;
                    return Some((key >> 3, length));
                }
                // The marks of a group, around fields of other numbers.
                _ => {}
            }
        }
    }
}

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.rest = self.rest.get(length..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::logagent::LogRequest;
    use prost::Message;

    fn request(pipelines: usize, name: usize, api_key: usize) -> Vec<u8> {
        let request = LogRequest {
            json_data: vec![b'1'; 100_000].into(),
            pipelines: vec!["p".repeat(name); pipelines],
            api_key: "k".repeat(api_key),
        };
        request.encode_to_vec()
    }

    #[test]
    fn only_metadata_counts_and_only_so_much_fits() {
        let odd = [
            0x20, 0x81, 0x01, 0x29, 1, 2, 3, 4, 5, 6, 7, 8, 0x35, 1, 2, 3, 4,
        ];
        for (case, message, fits) in [
            ("nothing", Vec::new(), true),
            ("a usual one", request(3, 20, 40), true),
            ("as many as may be", request(PIPELINES_MAX, 1, 0), true),
            ("one too many", request(PIPELINES_MAX + 1, 0, 0), false),
            ("as long as may be", request(1, METADATA_MAX - 9, 9), true),
            ("a byte too long", request(1, METADATA_MAX - 9, 10), false),
            (
                "behind fields of other kinds",
                [&odd[..], &request(PIPELINES_MAX + 1, 0, 0)].concat(),
                false,
            ),
            ("cut off", request(1, METADATA_MAX, 0)[..200].to_vec(), true),
            ("a varint without end", vec![0xff; 20], true),
        ] {
            assert_eq!(check(&message).is_ok(), fits, "{case}");
        }
    }

    #[test]
    fn what_decodes_is_seen_whole() {
        // Whatever prost finds, this finds too: in any order, and twice.
        let twice = [request(2, 5, 3), request(1, 5, 0)].concat();
        let decoded = LogRequest::decode(twice.as_slice()).unwrap();
        let seen: Vec<_> = Fields { rest: &twice }.collect();
        let pipelines = seen.iter().filter(|(field, _)| *field == PIPELINES);
        assert_eq!(pipelines.count(), decoded.pipelines.len());
    }
}
