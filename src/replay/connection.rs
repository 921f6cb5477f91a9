//! One HTTP/1.1 connection and one exchange on it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HeaderMap, LOCATION};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::Body;
use super::stream::{Metered, Stream, Traffic};
use crate::limits::{ANSWER_BODY_KEPT, ANSWER_BODY_MAX, ANSWER_HEAD_MAX, KEEP_ALIVE_SETTLE};

/// A connection and the task that drives it.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    traffic: Arc<Traffic>,
    task: JoinHandle<()>,
}

/// An answer as far as it was read.
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body_start: Vec<u8>,
    pub(super) body_end: BodyEnd,
}

/// How the reading of a body ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// At its end, after a head that every client reads alike: the connection serves again.
    Reusable,
    /// At its end, or at [`ANSWER_BODY_MAX`].
    Read,
    /// Before: why, as one line.
    Broken(String),
}

/// An exchange that ended without an answer.
pub(super) struct Broken {
    pub(super) why: String,
    /// The server cannot have begun to answer.
    pub(super) unanswered: bool,
}

impl Connection {
    pub(super) async fn over(stream: Stream) -> Result<Connection, String> {
        let (metered, traffic) = Metered::new(stream);
        let (sender, driver) = Builder::new()
            .title_case_headers(true)
            .max_buf_size(ANSWER_HEAD_MAX)
            // Lines that other clients take or skip are no reason to send a record for
            // ever; [`HeadScan`](super::head::HeadScan) finds them.
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|error| chain(&error))?;
        let task = tokio::spawn(async move {
            // The exchange at hand gets the error, too.
            let _ = driver.await;
        });
        Ok(Connection {
            sender,
            traffic,
            task,
        })
    }

    /// Whether another request can go out: not once the server has closed, or sent
    /// what no request has asked for.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.traffic.expect_quiet();
        self.sender.is_ready()
            || matches!(
                timeout(KEEP_ALIVE_SETTLE, self.sender.ready()).await,
                Ok(Ok(()))
            )
    }

    /// Sends `request` and reads the head of its answer, which has to be there `limit`
    /// after the last byte that the server let through.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
        limit: Duration,
    ) -> Result<Response<Incoming>, Broken> {
        let start = Instant::now();
        let traffic = Arc::clone(&self.traffic);
        let mut answer = std::pin::pin!(self.head(request));
        loop {
            let deadline = traffic.sent_at().max(start) + limit;
            match timeout_at(deadline, answer.as_mut()).await {
                Ok(answer) => return answer,
                Err(_) if traffic.sent_at() + limit > deadline => {}
                Err(_) => {
                    return Err(Broken {
                        why: format!("timed out after {limit:?} while waiting for the answer"),
                        unanswered: false,
                    });
                }
            }
        }
    }

    async fn head(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Broken> {
        let before = self.traffic.received();
        self.traffic.expect_head();
        let answer = self.sender.send_request(request).await;
        answer.map_err(|error| Broken {
            why: reason(&error),
            // Cancelled is what never went out.
            unanswered: error.is_canceled() || self.traffic.received() == before,
        })
    }

    /// Reads the body of an answer, for `limit` at most.
    pub(super) async fn body(&mut self, response: Response<Incoming>, limit: Duration) -> Received {
        let (head, mut body) = response.into_parts();
        let mut start = Vec::new();
        let read = timeout(limit, read(&mut body, &mut start)).await;
        let body_end = match read {
            Ok(BodyEnd::Reusable) if self.traffic.head_was_odd() => BodyEnd::Read,
            Ok(end) => end,
            Err(_) => BodyEnd::Broken(format!("not through after {limit:?}")),
        };
        Received {
            status: head.status.as_u16(),
            headers: head.headers,
            body_start: start,
            body_end,
        }
    }
}

/// Reads a body to its end, and keeps its `start`.
async fn read(body: &mut Incoming, start: &mut Vec<u8>) -> BodyEnd {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return BodyEnd::Broken(chain(&error)),
        };
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let room = ANSWER_BODY_KEPT - start.len();
        start.extend(data.iter().take(room));
        length += data.len();
        if length > ANSWER_BODY_MAX {
            return BodyEnd::Read;
        }
    }
    BodyEnd::Reusable
}

impl Drop for Connection {
    /// Closes the socket whatever the server does; hyper alone would first try
    /// to send what is left.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Received {
    /// Why the body was not read to its end.
    pub(super) fn broken(&self) -> Option<String> {
        match &self.body_end {
            BodyEnd::Broken(why) => Some(why.clone()),
            BodyEnd::Reusable | BodyEnd::Read => None,
        }
    }

    /// The `Location` header, unmasked.
    pub(super) fn location(&self) -> Option<String> {
        let value = self.headers.get(LOCATION)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

/// Says why an answer could not be read, in words that need no knowledge of hyper.
fn reason(error: &hyper::Error) -> String {
    let why = chain(error);
    if !error.is_parse() {
        return why;
    }
    let kib = ANSWER_HEAD_MAX / 1024;
    format!("the answer is no valid HTTP/1.1 with a head of {kib} KiB and 100 lines at most: {why}")
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
