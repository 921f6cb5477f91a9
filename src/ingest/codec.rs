//! Protobuf's messages for tonic, in buffers as small as they are.

use prost::Message;
use prost::bytes::Buf;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::ingest::metadata;
use crate::limits::{REQUEST_BUFFER, RESPONSE_BUFFER};
use crate::proto::logagent::{LogRequest, LogResponse};

/// `LogRequest` in, `LogResponse` out: `build.rs` names it to the generated service.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogCodec;

impl Codec for LogCodec {
    type Encode = LogResponse;
    type Decode = LogRequest;
    type Encoder = LogCodec;
    type Decoder = LogCodec;

    fn encoder(&mut self) -> LogCodec {
        LogCodec
    }

    fn decoder(&mut self) -> LogCodec {
        LogCodec
    }
}

impl Encoder for LogCodec {
    type Item = LogResponse;
    type Error = Status;

    fn encode(&mut self, response: LogResponse, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        response
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(RESPONSE_BUFFER, RESPONSE_BUFFER)
    }
}

impl Decoder for LogCodec {
    type Item = LogRequest;
    type Error = Status;

    /// The payload is a slice of the buffer that the request was read into.
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<LogRequest>, Status> {
        metadata::check(buffer.chunk())?;
        match LogRequest::decode(buffer) {
            Ok(request) => Ok(Some(request)),
            Err(error) => Err(Status::invalid_argument(error.to_string())),
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(REQUEST_BUFFER, REQUEST_BUFFER)
    }
}
