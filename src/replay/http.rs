//! The HTTP/1.1 client: one keep-alive connection, one request in flight.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::header::{
    self, ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, RETRY_AFTER,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::time::timeout;

use super::USER_AGENT;
use super::body::{Body, Payload};
use super::connect::Connector;
use super::connection::{BodyEnd, Connection, Received};
use super::disposition::{self, Disposition};
use super::redact::Redactor;
use super::route::Route;
use super::server::Peer;
use crate::limits::{
    ANSWER_BODY_KEPT, ANSWER_BODY_TIMEOUT, ANSWER_TIMEOUT, CONNECT_TIMEOUT, KEEP_ALIVE_SETTLE,
    LOCATION_KEPT, PROBE_REDIRECTS, PROBE_TIMEOUT,
};

const API_KEY: HeaderName = HeaderName::from_static("datanadhi-api-key");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const AGENT: HeaderValue = HeaderValue::from_static(USER_AGENT);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ANYTHING: HeaderValue = HeaderValue::from_static("*/*");

/// How long the client waits.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, from the name's resolution to the TLS handshake.
    pub connect: Duration,
    /// For the head of the answer, from the last byte that could be sent.
    pub answer: Duration,
    /// For a probe, redirects included, up to the head of the last answer.
    pub probe: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: CONNECT_TIMEOUT,
            answer: ANSWER_TIMEOUT,
            probe: PROBE_TIMEOUT,
        }
    }
}

/// A record on its way to the main server (spec 6).
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    /// `DATANADHI-API-KEY`.
    pub api_key: &'a str,
    /// The record's own key, which no text may show, whichever it goes with.
    pub own_api_key: &'a str,
    /// `Idempotency-Key`, with its quotes.
    pub idempotency_key: &'a str,
    /// What [`super::body::body`] made.
    pub body: &'a Payload,
}

/// What the main server said, without the secrets that it may have quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After` as it came.
    pub retry_after: Option<Vec<u8>>,
    /// `Date`: by the server's own clock, which a date in `Retry-After` is by, too.
    pub date: Option<SystemTime>,
    /// `Location`, cut at [`LOCATION_KEPT`].
    pub location: Option<String>,
    /// The first [`ANSWER_BODY_KEPT`] bytes of the body.
    pub body_start: String,
    /// Why the body could not be read to its end, as one line.
    pub broken: Option<String>,
}

/// Why there is no answer. The text is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or no answer whose head could be read: the record may have
    /// arrived.
    Unreachable(String),
    /// The record cannot be sent by HTTP at all; nothing was sent.
    Unsendable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Unreachable(why) | Failure::Unsendable(why)) = self;
        f.write_str(why)
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A 2xx.
    Healthy,
    /// Anything else, with the reason as one line.
    Unhealthy(String),
}

/// The client of the one main server. Needs a tokio runtime with time and I/O;
/// dropping a future of it drops the connection that it used.
pub struct Client {
    route: Route,
    timeouts: Timeouts,
    connector: Connector,
    kept: Option<Connection>,
    /// A 2xx counts by its head: its body may never come, and is waited for only so that the
    /// connection serves again.
    pub(super) head_decides: bool,
    /// Of the URLs' credentials and the agent's key.
    redactor: Redactor,
    /// The same with the key of the last record.
    with_key: Option<(String, Arc<Redactor>)>,
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(route: impl Into<Route>, timeouts: Timeouts) -> Client {
        let route = route.into();
        Client {
            redactor: Redactor::new(route.secrets()),
            route,
            timeouts,
            connector: Connector::default(),
            kept: None,
            head_decides: false,
            with_key: None,
        }
    }

    /// Shows a further secret in no text from now on.
    pub fn hide(&mut self, secret: &str) {
        self.redactor = std::mem::take(&mut self.redactor).and(secret);
        self.with_key = None;
    }

    /// Asks whether the main server is healthy (spec 5.2).
    pub async fn probe(&mut self) -> Probe {
        // Boxed, here and below: the lifecycle's future, always there, would hold its room.
        match Box::pin(self.probe_once()).await {
            Ok(()) => Probe::Healthy,
            Err(why) => Probe::Unhealthy(self.shown_reason(&why, &self.redactor)),
        }
    }

    /// Closes the kept connection and keeps nothing of the last record.
    pub fn disconnect(&mut self) {
        self.kept = None;
        self.with_key = None;
    }

    /// Sends a record: `POST <prefix>/log`.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] without a readable answer,
    /// [`Failure::Unsendable`] where a header cannot hold what it should.
    pub async fn post(&mut self, delivery: Delivery<'_>) -> Result<Answer, Failure> {
        let redactor = self.redactor_with(delivery.own_api_key);
        Box::pin(self.deliver(delivery, &redactor))
            .await
            .map_err(|failure| match failure {
                Failure::Unreachable(why) => {
                    Failure::Unreachable(self.shown_reason(&why, &redactor))
                }
                unsendable => unsendable,
            })
    }

    /// The redactor of a record with that key, which most have in common.
    fn redactor_with(&mut self, api_key: &str) -> Arc<Redactor> {
        match &self.with_key {
            Some((key, redactor)) if key == api_key => Arc::clone(redactor),
            _ => {
                let redactor = Arc::new(self.redactor.clone().and(api_key));
                self.with_key = Some((api_key.to_owned(), Arc::clone(&redactor)));
                redactor
            }
        }
    }

    /// A reason without the secrets that a peer may have quoted, and with the proxy that may
    /// be its cause.
    fn shown_reason(&self, why: &str, redactor: &Redactor) -> String {
        self.route
            .attribute_to_proxy(redactor.redact(why.as_bytes(), false))
    }

    async fn deliver(
        &mut self,
        delivery: Delivery<'_>,
        redactor: &Redactor,
    ) -> Result<Answer, Failure> {
        let path = self.route.server().log.clone();
        let (connection, response) = self.head(&path, Some(delivery)).await?;
        let received = self.read(connection, response, true).await;
        self.confirm(received.status).await?;
        let broken = received.broken();
        let is_cut = broken.is_some() || received.body_start.len() == ANSWER_BODY_KEPT;
        Ok(Answer {
            status: received.status,
            retry_after: received
                .headers
                .get(RETRY_AFTER)
                .map(|value| value.as_bytes().to_vec()),
            date: received
                .headers
                .get(DATE)
                .and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok()),
            location: received.location().map(|text| shown(&text, redactor)),
            body_start: match disposition::of_status(received.status) {
                Disposition::Delivered => String::new(), // shown nowhere
                _ => redactor.redact(&received.body_start, is_cut),
            },
            broken,
        })
    }

    /// Makes sure that an answer that a record may be set aside for is the main
    /// server's: a proxy that cannot reach it answers in its own name, and not
    /// always with one of the statuses for that.
    async fn confirm(&mut self, status: u16) -> Result<(), Failure> {
        let harmless = matches!(
            disposition::of_status(status),
            Disposition::Delivered | Disposition::NotNow
        );
        if harmless || self.route.forwarder().is_none() {
            return Ok(());
        }
        self.probe_once().await.map_err(|why| {
            Failure::Unreachable(format!("answered {status}, and the probe after it: {why}"))
        })
    }

    /// A probe; why the server is not healthy. A 2xx counts by its head.
    async fn probe_once(&mut self) -> Result<(), String> {
        let limit = self.timeouts.probe;
        let (connection, response) = timeout(limit, self.follow_redirects())
            .await
            .unwrap_or_else(|_| Err(self.connector.too_late(limit)))?;
        self.read(connection, response, false).await;
        Ok(())
    }

    /// A probe up to the head of a 2xx.
    async fn follow_redirects(&mut self) -> Result<(Connection, Response<Incoming>), String> {
        let mut path = self.route.server().health.clone();
        for _ in 0..=PROBE_REDIRECTS {
            let (connection, response) = self
                .head(&path, None)
                .await
                .map_err(|failure| failure.to_string())?;
            if response.status().is_success() {
                return Ok((connection, response));
            }
            let received = self.read(connection, response, false).await;
            let status = received.status;
            match received.location() {
                Some(location) if matches!(status, 301 | 302 | 303 | 307 | 308) => {
                    path = self.route.server().redirected(&location).ok_or_else(|| {
                        // What a login page is told about the way back tells the operator
                        // nothing.
                        let target = location.split('?').next().unwrap_or_default();
                        let target = shown(target, &self.redactor);
                        format!("answered {status} to another server, not followed: {target}")
                    })?;
                }
                _ => return Err(format!("answered {status}")),
            }
        }
        Err(format!("more than {PROBE_REDIRECTS} redirects"))
    }

    /// One request and the head of its answer.
    async fn head(
        &mut self,
        path: &Uri,
        delivery: Option<Delivery<'_>>,
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        let (connection, response) = self.send(path, delivery).await?;
        // Never the main server's (RFC 9110, 15.5.8).
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && self.route.forwarder().is_some()
        {
            let why = "it wants other credentials (407)".to_owned();
            return Err(Failure::Unreachable(why));
        }
        Ok((connection, response))
    }

    /// Sends a request on the kept connection if it still lives.
    async fn send(
        &mut self,
        path: &Uri,
        delivery: Option<Delivery<'_>>,
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        let mut request = self.request(path, delivery)?;
        if let Some(mut connection) = self.take_kept().await {
            match connection.send(request, self.timeouts.answer).await {
                Ok(response) => return Ok((connection, response)),
                // The server closed it while it was idle.
                Err(broken) if broken.unanswered => request = self.request(path, delivery)?,
                Err(broken) => return Err(Failure::Unreachable(broken.why)),
            }
        }
        let mut connection = self.open().await.map_err(Failure::Unreachable)?;
        match connection.send(request, self.timeouts.answer).await {
            Ok(response) => Ok((connection, response)),
            Err(broken) => Err(Failure::Unreachable(broken.why)),
        }
    }

    async fn open(&mut self) -> Result<Connection, String> {
        let connecting = self.connector.connect(&self.route, self.timeouts.connect);
        Connection::over(connecting.await?).await
    }

    /// The kept connection if it is ready. It is taken, so that it goes with a
    /// future that is dropped half-way.
    async fn take_kept(&mut self) -> Option<Connection> {
        let mut connection = self.kept.take()?;
        connection.is_ready().await.then_some(connection)
    }

    /// Reads the rest of an answer and keeps the connection for the next request. Not
    /// after a record that was not taken: there are servers that turn one away without
    /// having read it, and then take the rest of it for the next request, which they
    /// refuse (Python's `http.server` leaves that to its user).
    async fn read(
        &mut self,
        mut connection: Connection,
        response: Response<Incoming>,
        is_record: bool,
    ) -> Received {
        let limit = match self.head_decides {
            true => KEEP_ALIVE_SETTLE,
            false => ANSWER_BODY_TIMEOUT,
        };
        let received = connection.body(response, limit).await;
        let taken = !is_record || (200..300).contains(&received.status);
        if taken && received.body_end == BodyEnd::Reusable {
            self.kept = Some(connection);
        }
        received
    }

    fn request(
        &self,
        path: &Uri,
        delivery: Option<Delivery<'_>>,
    ) -> Result<Request<Body>, Failure> {
        let body = delivery.map_or_else(Body::default, |delivery| delivery.body.to_body());
        let mut request = Request::new(body);
        *request.uri_mut() = self.route.target(path);
        let headers = request.headers_mut();
        headers.insert(HOST, self.route.server().host_header.clone());
        headers.insert(header::USER_AGENT, AGENT);
        // Without it, some firewalls take the request for an attack.
        headers.insert(ACCEPT, ANYTHING);
        if let Some(value) = self.route.server().peer.authorization() {
            headers.insert(AUTHORIZATION, value.clone());
        }
        if let Some(value) = self.route.forwarder().and_then(Peer::authorization) {
            headers.insert(PROXY_AUTHORIZATION, value.clone());
        }
        if let Some(delivery) = delivery {
            headers.insert(CONTENT_TYPE, JSON);
            headers.insert(API_KEY, sensitive("api_key", delivery.api_key)?);
            let key = sensitive("idempotency key", delivery.idempotency_key)?;
            headers.insert(IDEMPOTENCY_KEY, key);
            *request.method_mut() = Method::POST;
        }
        Ok(request)
    }
}

fn sensitive(name: &str, text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Failure::Unsendable(format!("no HTTP header can hold its {name}")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A `Location` as an event may print it.
fn shown(location: &str, redactor: &Redactor) -> String {
    let end = location.floor_char_boundary(LOCATION_KEPT);
    let start = location.get(..end).unwrap_or_default();
    redactor.redact(start.as_bytes(), end < location.len())
}
