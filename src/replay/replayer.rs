//! The replay loop (spec 6): strictly in order, one request in flight.

use std::pin::pin;
use std::time::{Instant, SystemTime};

use tokio::time::sleep_until;

use crate::error::Result;
use crate::events::Events;
use crate::log::FailureLog;
use crate::proto::store::StoredRecord;
use crate::random;
use crate::replay::api_keys::ApiKeys;
use crate::replay::body::body;
use crate::replay::delivered::DeliveryTracker;
use crate::replay::disposition::{self, Disposition};
use crate::replay::http::{Answer, Client, Delivery, Failure, Probe, Timeouts};
use crate::replay::patience::Outcome;
use crate::replay::retry_after;
use crate::replay::route::Route;
use crate::replay::schedule::RetrySchedule;
use crate::replay::set_aside;
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
    api_keys: ApiKeys,
    /// The record whose last 2xx broke off.
    cut_off: Option<u64>,
    tracker: DeliveryTracker,
    schedule: RetrySchedule,
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
        let mut client = Client::new(route, Timeouts::default());
        client.hide(&api_key);
        Replayer {
            client,
            tracker: DeliveryTracker::new(store.clone(), session.success_log()),
            store,
            events,
            failure_log: session.failure_log(),
            session,
            api_keys: ApiKeys::new(api_key),
            cut_off: None,
            schedule: RetrySchedule::default(),
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
        self.client.probe().await
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
                if let Err(why) = self.deliver_or_set_aside(&record).await {
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
    async fn deliver_or_set_aside(&mut self, record: &Record) -> std::result::Result<(), String> {
        loop {
            if let Some(at) = self.schedule.not_before() {
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
            let why = "the stored record fails its checksum";
            return self
                .set_aside(record, Disposition::Refused, None, why)
                .await;
        };
        let is_earlier = self.store.is_earlier(record.key);
        let api_key = self
            .api_keys
            .for_record(record.key, is_earlier, &content.api_key)
            .to_owned();
        let answer = match self.post(record, content, &api_key).await {
            Ok(answer) => answer,
            Err(step) => return step,
        };
        let disposition = match answer.status {
            // An agent that was started without the key must not set everything aside.
            401 if api_key.is_empty() => {
                self.events.emit("no_api_key", &[]);
                Disposition::NotNow
            }
            status => disposition::of_status(status),
        };
        if disposition == Disposition::Delivered && !self.counts(record, &answer) {
            return Step::Again;
        }
        let now = answer.date.unwrap_or_else(SystemTime::now);
        let asked = answer
            .retry_after
            .as_deref()
            .and_then(|value| retry_after::parse(value, now));
        match self
            .schedule
            .answered(disposition, asked, Instant::now(), random::fraction)
        {
            Outcome::Delivered => {
                self.note_replaced(record, &content.api_key);
                self.delivered += 1;
                self.finish(record, true).await
            }
            Outcome::SetAside => {
                let is_unauthorized = answer.status == 401;
                if is_unauthorized && self.api_keys.try_agents(record.key, is_earlier, &api_key) {
                    // Once: its patience stays over.
                    return Step::Again;
                }
                self.set_aside_for(record, disposition, &answer).await
            }
            Outcome::RetryUntil(_) => {
                self.report(&answer);
                Step::Again
            }
        }
    }

    /// Sends a record; what to do where there is no answer.
    async fn post(
        &mut self,
        record: &Record,
        content: &StoredRecord,
        api_key: &str,
    ) -> std::result::Result<Answer, Step> {
        if self.schedule.has_broken_off() {
            // On a kept connection, which may have been closed while idle, it would go out
            // twice.
            self.client.disconnect();
        }
        let body = body(&content.pipelines, content.json_data.clone());
        let delivery = Delivery {
            api_key,
            own_api_key: &content.api_key,
            idempotency_key: &record.idempotency_key,
            body: &body,
        };
        let answer = {
            let post = pin!(self.client.post(delivery));
            self.tracker.meanwhile(post).await
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(Failure::Unsendable(why)) => Err(self
                .set_aside(record, Disposition::Refused, None, &why)
                .await),
            Err(Failure::Unreachable(why)) => {
                self.events.emit(
                    "main_unreachable",
                    &[("error", (&why).into()), ("key", record.key.into())],
                );
                if self.schedule.broke_off(Instant::now(), random::fraction()) {
                    return Err(self.set_aside_broken(record, &why).await);
                }
                Err(Step::Unreachable(why))
            }
        }
    }

    /// Whether a 2xx counts: one whose body breaks off is sent for once more, and where that
    /// breaks off, too, the head decides from then on (spec 6).
    fn counts(&mut self, record: &Record, answer: &Answer) -> bool {
        let Some(why) = &answer.broken else {
            return true;
        };
        if !self.client.head_decides && self.cut_off.replace(record.key) == Some(record.key) {
            self.client.head_decides = true;
            self.events.emit(
                "main_answers_break_off",
                &[
                    ("error", why.into()),
                    ("status", u64::from(answer.status).into()),
                ],
            );
        }
        self.client.head_decides
    }

    /// Has what else was left under that key go like a record that was just taken.
    fn note_replaced(&mut self, record: &Record, own: &str) {
        if self.api_keys.taken(record.key, own) {
            self.client.hide(own);
            let fields = [("key", record.key.into())];
            self.events.emit("api_key_replaced", &fields);
        }
    }

    /// A record that the server dies of, it seems.
    async fn set_aside_broken(&mut self, record: &Record, why: &str) -> Step {
        let step = self
            .set_aside(record, Disposition::Doubtful, None, why)
            .await;
        if let Step::Next = step {
            self.schedule.set_aside_broken();
        }
        step
    }

    async fn set_aside_for(
        &mut self,
        record: &Record,
        disposition: Disposition,
        answer: &Answer,
    ) -> Step {
        let status = Some(answer.status);
        self.set_aside(record, disposition, status, &answer.body_start)
            .await
    }

    async fn finish(&mut self, record: &Record, delivered: bool) -> Step {
        self.tracker.add(record.key, delivered).await;
        Step::Next
    }

    /// Keeps a record for the operator, with the answer or the agent's own reason. Where even
    /// that fails, it stays in the store and is tried again.
    async fn set_aside(
        &mut self,
        record: &Record,
        disposition: Disposition,
        status: Option<u16>,
        answer: &str,
    ) -> Step {
        if let Err(error) = self.log_failure(record, status, answer) {
            let text = error.to_string();
            self.events
                .emit("set_aside_failed", &[("error", (&text).into())]);
            self.schedule.not_now(Instant::now(), random::fraction());
            return Step::Again;
        }
        let shown = u64::from(status.unwrap_or(0));
        self.events.emit(
            "record_set_aside",
            &[("key", record.key.into()), ("status", shown.into())],
        );
        self.schedule.set_aside(disposition);
        self.set_aside += 1;
        self.finish(record, false).await
    }

    fn log_failure(
        &mut self,
        record: &Record,
        status: Option<u16>,
        answer: &str,
    ) -> std::io::Result<()> {
        if let Err(value) = &record.content {
            self.session.keep_damaged(record.key, value)?;
        }
        self.failure_log
            .append(&set_aside::line(record, status, answer))
    }

    fn report(&self, answer: &Answer) {
        let status = u64::from(answer.status).into();
        match &answer.location {
            Some(location) if (300..400).contains(&answer.status) => self.events.emit(
                "main_redirects",
                &[("status", status), ("location", location.into())],
            ),
            _ => self
                .events
                .emit("main_not_taking_logs", &[("status", status)]),
        }
    }
}
