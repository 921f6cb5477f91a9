//! gRPC's answers: one message and its trailers, or a status alone.

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use prost::Message;
use tonic::Status;

/// A message as it goes over the wire: length-prefixed, uncompressed (gRPC over
/// HTTP/2: Length-Prefixed-Message).
#[must_use]
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

/// Answers a call: with a framed message and `grpc-status: 0`, or with the status
/// alone (gRPC over HTTP/2: Response, Trailers-Only).
///
/// # Errors
/// h2's, where the client or its connection is gone.
pub fn send(
    respond: &mut SendResponse<Bytes>,
    result: Result<Bytes, Status>,
) -> Result<(), h2::Error> {
    let message = match result {
        Ok(message) => message,
        Err(status) => return respond.send_response(status.into_http(), true).map(drop),
    };
    let mut head = Response::new(());
    head.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(message, false)?;
    stream.send_trailers(trailers)
}
