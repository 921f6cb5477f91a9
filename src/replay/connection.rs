//! One HTTP/1.1 connection and one exchange on it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HeaderMap, LOCATION};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::Body;
use super::stream::{Metered, Stream, Traffic};
use crate::limits::{
    ANSWER_BODY_KEPT, ANSWER_BODY_MAX, ANSWER_HEAD_MAX, ANSWER_HEADS_MAX, KEEP_ALIVE_SETTLE,
};

/// A connection and the task that drives it.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    traffic: Arc<Traffic>,
    task: JoinHandle<()>,
}

/// An answer that was read.
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body_start: Vec<u8>,
    /// The body was read to its end: the connection serves again.
    pub(super) whole: bool,
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
            .handshake(TokioIo::new(metered))
            .await
            .map_err(|error| chain(&error))?;
        let task = tokio::spawn(async move {
            // What went wrong reaches whoever waits for the answer.
            let _ = driver.await;
        });
        Ok(Connection {
            sender,
            traffic,
            task,
        })
    }

    /// Whether another request can go out: not once the server has closed, or sent
    /// what nobody has asked for.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.traffic.expect_quiet();
        self.sender.is_ready()
            || matches!(
                timeout(KEEP_ALIVE_SETTLE, self.sender.ready()).await,
                Ok(Ok(()))
            )
    }

    /// Sends `request` and reads its answer, which has to be whole `limit`
    /// after the last byte that the server let through.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
        limit: Duration,
    ) -> Result<Received, Broken> {
        let start = Instant::now();
        let traffic = Arc::clone(&self.traffic);
        let mut answer = std::pin::pin!(self.answer(request));
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

    async fn answer(&mut self, request: Request<Body>) -> Result<Received, Broken> {
        let before = self.traffic.received();
        // Answers like 103, which are none yet, could come for ever.
        self.traffic.let_in(ANSWER_HEADS_MAX);
        let response = match self.sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                return Err(Broken {
                    why: reason(&error),
                    // Cancelled is what never went out.
                    unanswered: error.is_canceled() || self.traffic.received() == before,
                });
            }
        };
        self.traffic.let_in(u64::MAX);
        let (head, mut body) = response.into_parts();
        let mut received = Received {
            status: head.status.as_u16(),
            headers: head.headers,
            body_start: Vec::new(),
            whole: true,
        };
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Broken {
                why: format!("answered {}, then: {}", received.status, chain(&error)),
                unanswered: false,
            })?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let room = ANSWER_BODY_KEPT - received.body_start.len();
            received.body_start.extend(data.iter().take(room));
            length += data.len();
            if length > ANSWER_BODY_MAX {
                received.whole = false;
                break;
            }
        }
        Ok(received)
    }
}

impl Drop for Connection {
    /// Closes the socket whatever the server does; hyper alone would first try
    /// to send what is left.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Received {
    /// The `Location` header, unmasked.
    pub(super) fn location(&self) -> Option<String> {
        let value = self.headers.get(LOCATION)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

/// Why an answer could not be read, for someone who does not know hyper.
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
