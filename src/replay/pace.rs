//! When the record at hand is sent again (spec 6). Pure: the caller brings the
//! clock and the random number.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::patience::{Outcome, Patience};
use super::verdict::Verdict;

/// Patience and back-off of one replay, and what they set for the record at hand.
#[derive(Debug, Default)]
pub struct Pace {
    patience: Patience,
    backoff: Backoff,
    /// No record is sent before this.
    not_before: Option<Instant>,
}

impl Pace {
    /// The pace before the first record.
    #[must_use]
    pub fn new() -> Pace {
        Pace::default()
    }

    /// When the record at hand may be sent; `None` is at once.
    #[must_use]
    pub fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// What follows from an answer that came at `now` and asked to wait for
    /// `asked`; `random` gives a number from 0 to 1 where one is needed. After [`Outcome::SetAside`] the caller
    /// reports with [`Pace::set_aside`] or [`Pace::not_now`] what became of it.
    #[must_use]
    pub fn answered(
        &mut self,
        verdict: Verdict,
        asked: Option<Duration>,
        now: Instant,
        random: impl FnOnce() -> f64,
    ) -> Outcome {
        let outcome = self.patience.judge(verdict, now);
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

    /// The record at hand is set aside after `verdict`; the next one follows.
    pub fn set_aside(&mut self, verdict: Verdict) {
        self.patience.set_aside(verdict);
        self.not_before = None;
    }

    /// No answer, or a record that could not be set aside: it is tried again,
    /// and a patience that is over does not cut the delay to none.
    pub fn not_now(&mut self, now: Instant, random: f64) {
        let _ = self.patience.judge(Verdict::NotNow, now);
        self.wait(None, now, random);
    }

    fn wait(&mut self, asked: Option<Duration>, now: Instant, random: f64) {
        let delay = self.backoff.next(random, asked);
        self.not_before = Some(now + self.patience.cap(now, delay));
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use crate::replay::patience::Outcome;
    use crate::replay::verdict::Verdict::{self, Delivered, Doubtful, NotNow, Refused};
    use std::time::{Duration, Instant};

    #[test]
    fn the_next_try_by_answer() {
        // Each step: the answer, what it asked for in s, and when the next try
        // is due in ms; none is at once. The dice always say 1.
        type Steps<'a> = &'a [(Option<Verdict>, Option<u64>, Option<u64>)];
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
            let mut pace = Pace::new();
            for (verdict, asked, due) in *steps {
                match verdict {
                    Some(verdict) => {
                        let asked = asked.map(Duration::from_secs);
                        let outcome = pace.answered(*verdict, asked, now, || 1.0);
                        if outcome == Outcome::SetAside {
                            pace.set_aside(*verdict);
                        }
                    }
                    None => pace.not_now(now, 1.0),
                }
                let expected = due.map(|ms| now + Duration::from_millis(ms));
                assert_eq!(pace.not_before(), expected, "{name}, {verdict:?}");
            }
        }
    }

    #[test]
    fn a_record_that_cannot_be_set_aside_is_not_tried_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new();
        let _ = pace.answered(Doubtful, None, start, || 1.0);
        let late = start + Duration::from_secs(20);
        let outcome = pace.answered(Doubtful, None, late, || 1.0);
        assert_eq!(outcome, Outcome::SetAside);
        pace.not_now(late, 1.0);
        assert_eq!(pace.not_before(), Some(late + Duration::from_secs(1)));
    }
}
