//! The gRPC service `logagent.LogAgent` (spec 3): from a request to the writer
//! and back.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderName, HeaderValue};
use serde::de::IgnoredAny;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::ingest::admission::Call;
use crate::limits::IDEMPOTENCY_KEY_MAX;
use crate::proto::logagent::log_agent_server::LogAgent;
use crate::proto::logagent::{LogRequest, LogResponse};
use crate::proto::store::StoredRecord;
use crate::store;

/// The path of the one method.
pub const SEND_LOG: &str = "/logagent.LogAgent/SendLog";
/// What a client may name its record by.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Answers calls.
pub struct IngestService {
    store: store::Handle,
}

impl IngestService {
    /// A service that stores through `store`.
    #[must_use]
    pub fn new(store: store::Handle) -> IngestService {
        IngestService { store }
    }
}

#[tonic::async_trait]
impl LogAgent for IngestService {
    async fn send_log(
        &self,
        mut request: Request<LogRequest>,
    ) -> Result<Response<LogResponse>, Status> {
        let call = request.extensions_mut().remove::<Arc<Call>>();
        let call = call.ok_or_else(|| Status::internal("a call that was not admitted"))?;
        call.came();
        let idempotency_key = idempotency_key(request.metadata())?;
        let record = to_record(request.into_inner(), idempotency_key)?;
        let stored = self.store.insert(record, call.take_reserved()).await;
        stored.map_err(to_status)?;
        call.stored();
        Ok(Response::new(LogResponse {
            success: true,
            message: "stored".into(),
        }))
    }
}

/// What the client wants its record to be known by; empty when it does not say.
fn idempotency_key(metadata: &MetadataMap) -> Result<String, Status> {
    let Some(key) = metadata.get(IDEMPOTENCY_KEY.as_str()) else {
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
fn to_record(request: LogRequest, idempotency_key: String) -> Result<StoredRecord, Status> {
    let LogRequest {
        json_data,
        pipelines,
        api_key,
    } = request;
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
