//! Takes a gRPC request's message off the wire within the budget (spec 3): its
//! bytes are reserved by the length it declares, before they are read.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tonic::Status;

use crate::ingest::budget::Budget;
use crate::limits::{BODY_STALL, MESSAGE_MAX};

/// Bytes before a gRPC message: a flag and the length.
const PREFIX_LEN: usize = 5;

/// Reads the one message of a unary call. Its bytes stay reserved as long as
/// the permit lives. `crowded` tells whether somebody waits for what this call
/// holds; `progress` is called for every piece that comes.
///
/// # Errors
/// RESOURCE_EXHAUSTED for a message over [`MESSAGE_MAX`], UNIMPLEMENTED for a
/// compressed one, INVALID_ARGUMENT for a broken one, DEADLINE_EXCEEDED for one
/// that stalls while others wait, CANCELLED when the client went away.
pub async fn receive(
    body: &mut Incoming,
    budget: &Budget,
    crowded: impl Fn() -> bool,
    progress: impl Fn(),
) -> Result<(Bytes, OwnedSemaphorePermit), Status> {
    let mut start = BytesMut::new();
    while start.len() < PREFIX_LEN {
        match next_data(body, &crowded).await? {
            Some(data) => start.extend_from_slice(&data),
            None => return Err(Status::invalid_argument("the request has no message")),
        }
    }
    let flag = start.get_u8();
    let length = start.get_u32() as usize;
    if flag != 0 {
        return Err(Status::unimplemented(
            "compressed messages are not supported",
        ));
    }
    if length > MESSAGE_MAX {
        return Err(Status::resource_exhausted(format!(
            "the message has {length} bytes, the limit is {MESSAGE_MAX}"
        )));
    }
    let permit = budget
        .reserve(length)
        .await
        .ok_or_else(|| Status::unavailable("the agent is leaving"))?;
    let mut message = BytesMut::with_capacity(length);
    message.extend_from_slice(&start);
    drop(start);
    while message.len() <= length {
        match next_data(body, &crowded).await? {
            Some(data) => {
                progress();
                message.extend_from_slice(&data);
            }
            None if message.len() == length => return Ok((message.freeze(), permit)),
            None => break,
        }
    }
    Err(Status::invalid_argument(format!(
        "the request declares a message of {length} bytes and holds {}",
        message.len()
    )))
}

/// The body's next bytes, `None` at its end.
async fn next_data(
    body: &mut Incoming,
    crowded: &impl Fn() -> bool,
) -> Result<Option<Bytes>, Status> {
    loop {
        match timeout(BODY_STALL, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(error))) => return Err(Status::cancelled(format!("request: {error}"))),
            Ok(None) => return Ok(None),
            Err(_) if crowded() => {
                return Err(Status::deadline_exceeded(
                    "the request made no progress while others waited",
                ));
            }
            Err(_) => {}
        }
    }
}
