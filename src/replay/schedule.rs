//! When the record at hand is sent again, and when that has gone on for long enough
//! (spec 6). Pure: the caller brings the clock and the random number.

use std::time::{Duration, Instant};

use super::backoff::{Backoff, doubled};
use super::disposition::Disposition;
use super::patience::{Outcome, Patience};
use crate::limits::{BREAKS_MIN, BREAKS_TIME_MAX, BREAKS_TIME_MIN};

/// Patience and back-off of one replay, and what they set for the record at hand.
#[derive(Debug, Default)]
pub struct RetrySchedule {
    patience: Patience,
    backoff: Backoff,
    /// No record is sent before this.
    not_before: Option<Instant>,
    /// Tries of the record at hand that broke off in a row, and the first of them.
    broken: Option<(Instant, u32)>,
    /// Records that were set aside for that.
    set_aside_broken: u32,
}

impl RetrySchedule {
    /// When the record at hand may be sent; `None` is at once.
    #[must_use]
    pub fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// What follows from an answer that came at `now` and asked to wait for
    /// `asked`; `random` gives a number from 0 to 1 where one is needed. After
    /// [`Outcome::SetAside`] the caller reports with [`RetrySchedule::set_aside`] or
    /// [`RetrySchedule::not_now`] what became of it.
    #[must_use]
    pub fn answered(
        &mut self,
        disposition: Disposition,
        asked: Option<Duration>,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Outcome {
        self.broken = None;
        let outcome = self.patience.judge(disposition, now);
        match outcome {
            Outcome::Delivered => {
                self.patience.delivered();
                self.backoff.reset();
                self.not_before = None;
            }
            Outcome::SetAside => {}
            Outcome::RetryUntil(_) => self.wait(asked, now, random()),
        }
        outcome
    }

    /// The record at hand is set aside after `disposition`; the next one follows.
    pub fn set_aside(&mut self, disposition: Disposition) {
        self.patience.set_aside(disposition);
        self.not_before = None;
    }

    /// A record that could not be set aside: it is tried again, and a patience that is over
    /// does not cut the delay to none.
    pub fn not_now(&mut self, now: Instant, random: f64) {
        let _ = self.patience.judge(Disposition::NotNow, now);
        self.wait(None, now, random);
    }

    /// A try of the record at hand broke off without an answer at `now`. True where enough of
    /// them did, over long enough, that the record is to be set aside, so that one that the
    /// server dies of does not hold all others for ever: the caller reports with
    /// [`RetrySchedule::set_aside_broken`].
    #[must_use]
    pub fn broke_off(&mut self, now: Instant, random: f64) -> bool {
        let (first, tries) = self.broken.unwrap_or((now, 0));
        self.broken = Some((first, tries + 1));
        let time = doubled(BREAKS_TIME_MIN, self.set_aside_broken, BREAKS_TIME_MAX);
        self.not_now(now, random);
        tries + 1 >= BREAKS_MIN && now.saturating_duration_since(first) >= time
    }

    /// Whether the last try of the record at hand broke off.
    #[must_use]
    pub fn has_broken_off(&self) -> bool {
        self.broken.is_some()
    }

    /// The record at hand is set aside for that, after [`RetrySchedule::set_aside`]. The next one has twice the time, up to
    /// [`BREAKS_TIME_MAX`]: a server that is sick breaks off every try.
    pub fn set_aside_broken(&mut self) {
        self.broken = None;
        self.set_aside_broken = self.set_aside_broken.saturating_add(1);
    }

    fn wait(&mut self, asked: Option<Duration>, now: Instant, random: f64) {
        let delay = self.backoff.next(random, asked);
        self.not_before = Some(now + self.patience.cap(now, delay));
    }
}

#[cfg(test)]
mod tests {
    use super::RetrySchedule;
    use crate::replay::disposition::Disposition::{self, Delivered, Doubtful, NotNow, Refused};
    use crate::replay::patience::Outcome;
    use std::time::{Duration, Instant};

    #[test]
    fn the_next_try_by_answer() {
        // Each step: the answer, what it asked for in s, and when the next try
        // is due in ms; none is at once. With the whole jitter.
        type Steps<'a> = &'a [(Option<Disposition>, Option<u64>, Option<u64>)];
        let table: &[(&str, Steps)] = &[
            ("delivered", &[(Some(Delivered), None, None)]),
            (
                "only a 2xx resets the back-off",
                &[
                    (Some(NotNow), None, Some(500)),
                    (None, None, Some(1_000)),
                    (Some(Refused), None, None),
                    (Some(NotNow), None, Some(2_000)),
                    (Some(Delivered), None, None),
                    (Some(NotNow), None, Some(500)),
                ],
            ),
            (
                "the patience ends what the server asked for",
                &[
                    (Some(Doubtful), Some(3), Some(4_500)),
                    (Some(Doubtful), Some(60), Some(10_000)),
                    (Some(NotNow), Some(60), Some(90_000)),
                ],
            ),
        ];
        for (name, steps) in table {
            let now = Instant::now();
            let mut schedule = RetrySchedule::default();
            for (disposition, asked, due) in *steps {
                match disposition {
                    Some(disposition) => {
                        let asked = asked.map(Duration::from_secs);
                        let outcome = schedule.answered(*disposition, asked, now, || 1.0);
                        if outcome == Outcome::SetAside {
                            schedule.set_aside(*disposition);
                        }
                    }
                    None => schedule.not_now(now, 1.0),
                }
                let expected = due.map(|ms| now + Duration::from_millis(ms));
                assert_eq!(schedule.not_before(), expected, "{name}, {disposition:?}");
            }
        }
    }

    #[test]
    fn a_record_that_cannot_be_set_aside_is_not_tried_at_once() {
        let start = Instant::now();
        let mut schedule = RetrySchedule::default();
        let _ = schedule.answered(Doubtful, None, start, || 1.0);
        let late = start + Duration::from_secs(20);
        let outcome = schedule.answered(Doubtful, None, late, || 1.0);
        assert_eq!(outcome, Outcome::SetAside);
        schedule.not_now(late, 1.0);
        assert_eq!(schedule.not_before(), Some(late + Duration::from_secs(1)));
    }

    enum Try {
        /// One that breaks off, after so many seconds in all; whether that is enough.
        Off(u64, bool),
        Answered,
        SetAside,
    }
    use Try::{Answered, Off, SetAside};

    #[test]
    fn five_tries_in_a_row_over_a_minute_and_twice_that_after_each_set_aside() {
        let table: &[(&str, &[Try])] = &[
            (
                "five over a minute",
                &[
                    Off(0, false),
                    Off(1, false),
                    Off(2, false),
                    Off(59, false),
                    Off(60, true),
                ],
            ),
            (
                "many within a minute",
                &[
                    Off(0, false),
                    Off(1, false),
                    Off(2, false),
                    Off(3, false),
                    Off(4, false),
                    Off(5, false),
                    Off(61, true),
                ],
            ),
            ("few over an hour", &[Off(0, false), Off(3600, false)]),
            (
                "an answer between",
                &[
                    Off(0, false),
                    Off(20, false),
                    Off(40, false),
                    Off(60, false),
                    Answered,
                    Off(80, false),
                ],
            ),
            (
                "twice the time",
                &[
                    SetAside,
                    Off(0, false),
                    Off(1, false),
                    Off(2, false),
                    Off(3, false),
                    Off(119, false),
                    Off(120, true),
                ],
            ),
            (
                "an hour at most",
                &[
                    SetAside,
                    SetAside,
                    SetAside,
                    SetAside,
                    SetAside,
                    SetAside,
                    SetAside,
                    Off(0, false),
                    Off(1, false),
                    Off(2, false),
                    Off(3, false),
                    Off(3599, false),
                    Off(3600, true),
                ],
            ),
        ];
        for (name, steps) in table {
            let start = Instant::now();
            let mut schedule = RetrySchedule::default();
            for step in *steps {
                match step {
                    Off(second, expected) => {
                        let now = start + Duration::from_secs(*second);
                        let enough = schedule.broke_off(now, 1.0);
                        assert_eq!(enough, *expected, "{name}, second {second}");
                        assert!(schedule.not_before() > Some(now), "{name}");
                    }
                    Answered => {
                        let _ = schedule.answered(NotNow, None, start, || 1.0);
                    }
                    SetAside => schedule.set_aside_broken(),
                }
            }
        }
    }
}
