//! The gRPC service `logagent.LogAgent` (spec 3): from a request to the writer
//! and back.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use hyper::Request;
use hyper::header::{HeaderMap, HeaderValue};
use prost::Message;
use serde::de::IgnoredAny;
use tonic::Status;

use crate::error::Error;
use crate::ingest::activity::Activity;
use crate::ingest::budget::Budget;
use crate::ingest::request::receive;
use crate::ingest::{labels, reply};
use crate::limits::{IDEMPOTENCY_KEY_MAX, PATH_SHOWN};
use crate::proto::logagent::{LogRequest, LogResponse};
use crate::proto::store::StoredRecord;
use crate::store;

const SEND_LOG: &str = "/logagent.LogAgent/SendLog";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Answers calls.
pub struct LogAgent {
    store: store::Handle,
    budget: Budget,
    activity: Arc<Activity>,
    /// The answer to every call that succeeds.
    stored: Bytes,
}

impl LogAgent {
    /// A service that stores through `store`.
    #[must_use]
    pub fn new(store: store::Handle, activity: Arc<Activity>) -> LogAgent {
        LogAgent {
            store,
            budget: Budget::default(),
            activity,
            stored: reply::frame(&LogResponse {
                success: true,
                message: "stored".into(),
            }),
        }
    }

    /// Answers one call, unless its client resets it first. `crowded` tells
    /// whether somebody waits for this one's connection.
    pub async fn call(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        crowded: impl Fn() -> bool,
    ) {
        self.activity.touch();
        let work = async {
            let path = request.uri().path();
            if path != SEND_LOG {
                let shown = path.get(..path.floor_char_boundary(PATH_SHOWN));
                let shown = shown.unwrap_or_default();
                let why = format!("{shown} is not a method of this agent; {SEND_LOG} is");
                return Err(Status::unimplemented(why));
            }
            self.send_log(request, crowded).await
        };
        if let Some(result) = unless_reset(&mut respond, work).await {
            // Where the client is gone, there is nobody to tell.
            let _ = reply::send(&mut respond, result);
        }
    }

    async fn send_log(
        &self,
        request: Request<RecvStream>,
        crowded: impl Fn() -> bool,
    ) -> Result<Bytes, Status> {
        let (head, mut body) = request.into_parts();
        let idempotency_key = idempotency_key(&head.headers)?;
        // Up to 16 KiB, which is not to be kept while the call waits.
        drop(head);
        let progress = || self.activity.touch();
        let (message, reserved) = receive(&mut body, &self.budget, crowded, progress).await?;
        let _in_flight = self.activity.call();
        drop(body);
        let record = to_record(message, idempotency_key)?;
        self.store
            .insert(record, reserved)
            .await
            .map_err(to_status)?;
        self.activity.acknowledge();
        Ok(self.stored.clone())
    }
}

/// Does `work`, but no further once the client has reset its call: `None` then.
async fn unless_reset<T>(
    respond: &mut SendResponse<Bytes>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    })
    .await
}

/// What the client wants its record to be known by; empty when it does not say.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Status> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(String::new());
    };
    if key.len() > IDEMPOTENCY_KEY_MAX {
        let length = key.len();
        return Err(Status::invalid_argument(format!(
            "idempotency-key: {length} bytes, the limit is {IDEMPOTENCY_KEY_MAX}"
        )));
    }
    match key.to_str() {
        Ok(key) => Ok(key.to_owned()),
        Err(_) => Err(Status::invalid_argument("idempotency-key: not ASCII")),
    }
}

/// Checks a request and makes of it what is stored; the payload stays where it
/// is.
fn to_record(message: Bytes, idempotency_key: String) -> Result<StoredRecord, Status> {
    labels::check(&message)?;
    let LogRequest {
        json_data,
        pipelines,
        api_key,
    } = LogRequest::decode(message).map_err(|e| Status::invalid_argument(e.to_string()))?;
    check_json(&json_data)?;
    if HeaderValue::from_str(&api_key).is_err() {
        return Err(Status::invalid_argument(
            "api_key: cannot be sent as an HTTP header",
        ));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let received_at = since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0));
    Ok(StoredRecord {
        json_data,
        pipelines,
        api_key,
        received_at,
        idempotency_key,
        crc32: 0,
    })
}

/// Any one JSON value is taken, however deep or large its numbers (RFC 8259);
/// it is only looked at, never rewritten.
fn check_json(json: &[u8]) -> Result<(), Status> {
    let invalid = |why: String| Status::invalid_argument(format!("json_data: {why}"));
    let text = std::str::from_utf8(json).map_err(|e| invalid(e.to_string()))?;
    serde_json::from_str::<IgnoredAny>(text)
        .map(drop)
        .map_err(|e| invalid(e.to_string()))
}

fn to_status(error: Error) -> Status {
    match error {
        Error::Full(why) => Status::resource_exhausted(why),
        other => Status::unavailable(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn one_json_value_of_any_kind_is_taken() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for good in [
            "null",
            " 1 ",
            "\"a\"",
            "[]",
            "{\"a\":1,\"a\":2}",
            "1e400",
            "-0.0E-999",
            "123456789012345678901234567890",
            "\"\\ud800\"",
            "\"\u{2028}\"",
            deep.as_str(),
        ] {
            assert!(check_json(good.as_bytes()).is_ok(), "{good:.40}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_position() {
        for (bad, position) in [
            (b"".as_slice(), "line 1 column 0"),
            (b"{", "line 1 column 1"),
            (b"{} {}", "line 1 column 4"),
            (b"{\"a\":01}", "column 7"),
            (b"nul", "column 3"),
            (b"\"a\nb\"", "line 1 column 2"),
            (b"\"\xff\"", "index 1"),
            (b"\xef\xbb\xbf{}", "column 1"),
            (b"{\"a\":NaN}", "column 6"),
        ] {
            let status = check_json(bad).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains(position), "{}", status.message());
        }
    }
}
