//! The replay loop (spec 6): strictly in order, one request in flight.

use std::pin::pin;
use std::time::{Instant, SystemTime};

use tokio::time::sleep_until;

use crate::error::Result;
use crate::events::Events;
use crate::limits::LOCATION_KEPT;
use crate::log::FailureLog;
use crate::replay::body::body;
use crate::replay::breaks::Breaks;
use crate::replay::delivered::DeliveryTracker;
use crate::replay::dice::random;
use crate::replay::http::{Answer, Client, Delivery, Failure, Probe, Timeouts};
use crate::replay::pace::Pace;
use crate::replay::patience::Outcome;
use crate::replay::retry_after;
use crate::replay::route::Route;
use crate::replay::set_aside::{self, Refusal};
use crate::replay::verdict::{self, Verdict};
use crate::session::Session;
use crate::store::{self, Record};

/// Why a replay stopped.
pub enum Pause {
    /// The store is empty.
    Drained,
    /// The main server cannot be reached: why.
    Unreachable(String),
}

/// Sends what the store holds.
pub struct Replayer {
    client: Client,
    store: store::Handle,
    events: Events,
    session: Session,
    failure_log: FailureLog,
    api_key: String,
    /// Of the URLs, which no log may show.
    credentials: Vec<String>,
    tracker: DeliveryTracker,
    pace: Pace,
    breaks: Breaks,
    delivered: u64,
    set_aside: u64,
}

/// What became of one try.
enum Step {
    /// On to the next record.
    Next,
    /// The same record again, after the back-off.
    Again,
    Unreachable(String),
}

impl Replayer {
    /// A replayer that has sent nothing yet.
    #[must_use]
    pub fn new(
        route: Route,
        api_key: String,
        store: store::Handle,
        events: Events,
        session: Session,
    ) -> Replayer {
        Replayer {
            credentials: route.credentials(),
            client: Client::new(route, Timeouts::default()),
            tracker: DeliveryTracker::new(store.clone(), session.success_log()),
            store,
            events,
            failure_log: session.failure_log(),
            session,
            api_key,
            pace: Pace::new(),
            breaks: Breaks::default(),
            delivered: 0,
            set_aside: 0,
        }
    }

    /// Records delivered and set aside since the start.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.delivered, self.set_aside)
    }

    /// Asks whether the main server is healthy.
    pub async fn probe(&mut self) -> Probe {
        match self.client.probe().await {
            Probe::Healthy => Probe::Healthy,
            // It may quote what a server says, which knows all of that.
            Probe::Unhealthy(why) => Probe::Unhealthy(self.masked(&why, &self.api_key)),
        }
    }

    /// Closes the connection to the server, if there is one.
    pub fn disconnect(&mut self) {
        self.client.disconnect();
    }

    /// Deletes what is done with.
    pub async fn flush(&mut self) {
        self.tracker.flush().await;
    }

    /// Sends records until there are none or the server is gone.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::error::Error::Closed) when the store is.
    pub async fn run(&mut self) -> Result<Pause> {
        loop {
            let batch = self.store.read().await?;
            if batch.is_empty() {
                self.tracker.flush().await;
                return Ok(Pause::Drained);
            }
            for record in batch {
                if let Err(why) = self.settle(&record).await {
                    self.tracker.flush().await;
                    return Ok(Pause::Unreachable(why));
                }
            }
        }
    }

    /// Tries a record until it is delivered or set aside.
    ///
    /// # Errors
    /// Why the server cannot be reached.
    async fn settle(&mut self, record: &Record) -> std::result::Result<(), String> {
        loop {
            if let Some(at) = self.pace.not_before() {
                self.tracker.meanwhile(pin!(sleep_until(at.into()))).await;
            }
            match self.try_once(record).await {
                Step::Next => return Ok(()),
                Step::Again => {}
                Step::Unreachable(why) => return Err(why),
            }
        }
    }

    async fn try_once(&mut self, record: &Record) -> Step {
        let Ok(content) = &record.content else {
            let refusal = Refusal {
                status: None,
                answer: b"the stored record fails its checksum",
                secrets: &[],
            };
            return self.set_aside(record, Verdict::Refused, &refusal).await;
        };
        let api_key = match content.api_key.as_str() {
            "" => self.api_key.clone(),
            own => own.to_owned(),
        };
        let body = body(&content.pipelines, content.json_data.clone());
        let delivery = Delivery {
            api_key: &api_key,
            idempotency_key: &record.idempotency_key,
            body: &body,
        };
        let answer = {
            let post = pin!(self.client.post(delivery));
            self.tracker.meanwhile(post).await
        };
        match answer {
            Ok(answer) => {
                self.breaks.answered();
                self.heed(record, &answer, &api_key).await
            }
            Err(Failure::Unsendable(why)) => {
                let refusal = Refusal {
                    status: None,
                    answer: why.as_bytes(),
                    secrets: &self.secrets(&api_key),
                };
                self.set_aside(record, Verdict::Refused, &refusal).await
            }
            Err(Failure::Unreachable(why)) => {
                // It may quote what a server says, which knows all of that.
                let why = self.masked(&why, &api_key);
                self.events.emit(
                    "main_unreachable",
                    &[("error", (&why).into()), ("key", record.key.into())],
                );
                if self.breaks.broke_off(record.key, Instant::now()) {
                    return self.set_aside_broken(record, &why).await;
                }
                self.pace.not_now(Instant::now(), random());
                Step::Unreachable(why)
            }
        }
    }

    /// Does what the server's answer asks for.
    async fn heed(&mut self, record: &Record, answer: &Answer, api_key: &str) -> Step {
        let verdict = match answer.status {
            // An agent that was started without the key must not set everything aside.
            401 if api_key.is_empty() => {
                self.events.emit("no_api_key", &[]);
                Verdict::NotNow
            }
            status => verdict::of_status(status),
        };
        let now = answer.date.unwrap_or_else(SystemTime::now);
        let asked = answer
            .retry_after
            .as_deref()
            .and_then(|value| retry_after::parse(value, now));
        match self.pace.answered(verdict, asked, Instant::now(), random) {
            Outcome::Delivered => {
                self.delivered += 1;
                self.finish(record, true).await
            }
            Outcome::SetAside => {
                let refusal = Refusal {
                    status: Some(answer.status),
                    answer: &answer.body_start,
                    secrets: &self.secrets(api_key),
                };
                self.set_aside(record, verdict, &refusal).await
            }
            Outcome::RetryUntil(_) => {
                self.report(answer, api_key);
                Step::Again
            }
        }
    }

    /// A record that the server dies of, it seems.
    async fn set_aside_broken(&mut self, record: &Record, why: &str) -> Step {
        let refusal = Refusal {
            status: None,
            answer: why.as_bytes(),
            secrets: &[],
        };
        let step = self.set_aside(record, Verdict::Doubtful, &refusal).await;
        if let Step::Next = step {
            self.breaks.set_aside();
        }
        step
    }

    async fn finish(&mut self, record: &Record, delivered: bool) -> Step {
        self.tracker.add(record.key, delivered).await;
        Step::Next
    }

    /// Keeps a record for the operator. Where even that fails, it stays in the
    /// store and is tried again.
    async fn set_aside(&mut self, record: &Record, verdict: Verdict, why: &Refusal<'_>) -> Step {
        let status = u64::from(why.status.unwrap_or(0));
        if let Err(error) = self.log_failure(record, why) {
            let text = error.to_string();
            self.events
                .emit("set_aside_failed", &[("error", (&text).into())]);
            self.pace.not_now(Instant::now(), random());
            return Step::Again;
        }
        self.events.emit(
            "record_set_aside",
            &[("key", record.key.into()), ("status", status.into())],
        );
        self.pace.set_aside(verdict);
        self.set_aside += 1;
        self.finish(record, false).await
    }

    fn log_failure(&mut self, record: &Record, why: &Refusal) -> std::io::Result<()> {
        if let Err(value) = &record.content {
            self.session.keep_damaged(record.key, value)?;
        }
        self.failure_log.append(&set_aside::line(record, why))
    }

    /// What went out with a record and no log may show.
    fn secrets(&self, api_key: &str) -> Vec<String> {
        let api_key = std::iter::once(api_key.to_owned());
        api_key.chain(self.credentials.iter().cloned()).collect()
    }

    /// What a server says, cut at [`LOCATION_KEPT`] or shorter, as an event may.
    fn masked(&self, text: &str, api_key: &str) -> String {
        set_aside::without(text, &self.secrets(api_key), LOCATION_KEPT)
    }

    fn report(&self, answer: &Answer, api_key: &str) {
        let status = u64::from(answer.status).into();
        match &answer.location {
            Some(location) if (300..400).contains(&answer.status) => {
                let location = self.masked(location, api_key);
                self.events.emit(
                    "main_redirects",
                    &[("status", status), ("location", (&location).into())],
                );
            }
            _ => self
                .events
                .emit("main_not_taking_logs", &[("status", status)]),
        }
    }
}
