//! How long a doubtful record is tried before it is set aside (spec 6,
//! "Patience"). Pure: the caller brings the clock.

use std::time::{Duration, Instant};

use super::backoff::doubled;
use super::disposition::Disposition;
use crate::limits::{PATIENCE_AFTER_DELIVERED, PATIENCE_MAX, PATIENCE_MIN, REFUSALS_TRUSTED};

/// What to do with the record that was just answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is delivered.
    Delivered,
    /// It is set aside, and the next one is due.
    SetAside,
    /// It is tried again, until this instant or, without one, for ever.
    RetryUntil(Option<Instant>),
}

/// The patience of one record, from its first doubtful answer on.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// The last answer was doubtful.
    Running { deadline: Instant },
    /// The last answer was "not now", and that time does not count.
    Frozen { left: Duration },
}

/// The rule's memory over the records of one replay.
#[derive(Debug, Default)]
pub struct Patience {
    /// The record before this one was delivered.
    after_delivered: bool,
    /// Doubtful records given up since the last delivered one, without one that
    /// followed it directly: a lone poison record does not make the server sick.
    given_up: u32,
    /// Refusals in a row without a 2xx.
    refusals: u32,
    /// Of the record at hand; `None` before its first doubtful answer.
    clock: Option<Clock>,
}

impl Patience {
    /// The rule before the first record.
    #[must_use]
    pub fn new() -> Patience {
        Patience::default()
    }

    /// The record at hand was delivered; the next one follows.
    pub fn delivered(&mut self) {
        *self = Patience {
            after_delivered: true,
            ..Patience::default()
        };
    }

    /// The record at hand was set aside after `disposition`; the next one follows.
    /// A record that the agent itself cannot send counts as refused.
    pub fn set_aside(&mut self, disposition: Disposition) {
        let trusted = self.refusals < REFUSALS_TRUSTED;
        let clock = self.clock.take();
        if disposition == Disposition::Doubtful || (!trusted && clock.is_some()) {
            if !self.after_delivered {
                self.given_up = self.given_up.saturating_add(1);
            }
        } else {
            self.refusals = self.refusals.saturating_add(1);
        }
        self.after_delivered = false;
    }

    /// What follows from an answer to the record at hand. After
    /// [`Outcome::Delivered`] and [`Outcome::SetAside`] the caller reports what
    /// became of it; until then it stays the record at hand.
    #[must_use]
    pub fn judge(&mut self, disposition: Disposition, now: Instant) -> Outcome {
        match disposition {
            Disposition::Delivered => Outcome::Delivered,
            Disposition::Refused if self.refusals < REFUSALS_TRUSTED => Outcome::SetAside,
            Disposition::Refused | Disposition::Doubtful => self.doubt(now),
            Disposition::NotNow => {
                if let Some(Clock::Running { deadline }) = self.clock {
                    let left = deadline.saturating_duration_since(now);
                    self.clock = Some(Clock::Frozen { left });
                }
                Outcome::RetryUntil(None)
            }
        }
    }

    /// `delay`, clipped so that the last try falls at the end of the patience.
    #[must_use]
    pub fn cap(&self, now: Instant, delay: Duration) -> Duration {
        match self.clock {
            Some(Clock::Running { deadline }) => delay.min(deadline.saturating_duration_since(now)),
            Some(Clock::Frozen { .. }) | None => delay,
        }
    }

    fn doubt(&mut self, now: Instant) -> Outcome {
        let deadline = match self.clock {
            None => now + self.whole(),
            Some(Clock::Running { deadline }) if now < deadline => deadline,
            Some(Clock::Frozen { left }) if !left.is_zero() => now + left,
            Some(_) => return Outcome::SetAside,
        };
        self.clock = Some(Clock::Running { deadline });
        Outcome::RetryUntil(Some(deadline))
    }

    /// The patience that a record at this place has from its start.
    fn whole(&self) -> Duration {
        if self.after_delivered {
            PATIENCE_AFTER_DELIVERED
        } else {
            doubled(PATIENCE_MIN, self.given_up, PATIENCE_MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Patience};
    use crate::replay::disposition::Disposition::{self, Delivered, Doubtful, NotNow, Refused};
    use std::time::{Duration, Instant};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Answers `disposition` to the record at hand until it is gone, each try at
    /// the end of the patience; returns for how many seconds it was tried.
    fn spend(patience: &mut Patience, disposition: Disposition, now: &mut Instant) -> u64 {
        let start = *now;
        loop {
            match patience.judge(disposition, *now) {
                Outcome::Delivered => patience.delivered(),
                Outcome::SetAside => patience.set_aside(disposition),
                Outcome::RetryUntil(until) => {
                    *now += patience.cap(*now, seconds(100_000));
                    assert_eq!(until, Some(*now), "the last try falls at the end");
                    continue;
                }
            }
            return (*now - start).as_secs();
        }
    }

    #[test]
    fn patience_with_each_record_of_a_sequence() {
        const D: Disposition = Delivered;
        const R: Disposition = Refused;
        const X: Disposition = Doubtful;
        let table: &[(&str, &[(Disposition, u64)])] = &[
            ("nothing yet", &[(X, 10)]),
            ("after delivered", &[(D, 0), (X, 2)]),
            (
                "a poison record costs 2 s each time",
                &[(D, 0), (X, 2), (D, 0), (X, 2), (D, 0), (X, 2)],
            ),
            (
                "a sick server from the start",
                &[
                    (X, 10),
                    (X, 20),
                    (X, 40),
                    (X, 80),
                    (X, 160),
                    (X, 320),
                    (X, 640),
                    (X, 1280),
                    (X, 2560),
                    (X, 3600),
                    (X, 3600),
                ],
            ),
            (
                "a sick server after a good one",
                &[(D, 0), (X, 2), (X, 10), (X, 20), (X, 40)],
            ),
            (
                "a 2xx resets all",
                &[(X, 10), (X, 20), (D, 0), (X, 2), (X, 10), (X, 20)],
            ),
            ("refused, then doubtful", &[(R, 0), (X, 10), (X, 20)]),
            (
                "delivered, refused, then doubtful",
                &[(D, 0), (R, 0), (X, 10), (X, 20)],
            ),
            (
                "a refused one between keeps the level and does not double it",
                &[(X, 10), (R, 0), (X, 20), (R, 0), (R, 0), (X, 40)],
            ),
            (
                "delivered, doubtful, refused, doubtful",
                &[(D, 0), (X, 2), (R, 0), (X, 10), (X, 20)],
            ),
        ];
        for (name, sequence) in table {
            let mut patience = Patience::new();
            let mut now = Instant::now();
            for (place, (disposition, expected)) in sequence.iter().enumerate() {
                let tried = spend(&mut patience, *disposition, &mut now);
                assert_eq!(tried, *expected, "{name}, record {place}");
                now += seconds(1_000);
            }
        }
    }

    #[test]
    fn the_seventeenth_refusal_in_a_row_is_doubtful() {
        // What lies between two refusals, and what the 17th of them then costs.
        for (between, expected) in [
            (None, [10, 20, 40]),
            // 16 doubtful ones were given up by then.
            (Some(Doubtful), [3600, 3600, 3600]),
        ] {
            let mut patience = Patience::new();
            let mut now = Instant::now();
            for refusal in 1..=16 {
                let tried = spend(&mut patience, Refused, &mut now);
                assert_eq!(tried, 0, "refusal {refusal}");
                if let Some(disposition) = between {
                    spend(&mut patience, disposition, &mut now);
                }
            }
            for expected in expected {
                assert_eq!(spend(&mut patience, Refused, &mut now), expected);
            }
            spend(&mut patience, Delivered, &mut now);
            for refusal in 1..=16 {
                let tried = spend(&mut patience, Refused, &mut now);
                assert_eq!(tried, 0, "refusal {refusal} after a 2xx");
            }
            assert_eq!(spend(&mut patience, Refused, &mut now), 10);
        }
    }

    #[test]
    fn a_record_that_cannot_be_sent_never_doubles_the_patience() {
        let mut patience = Patience::new();
        for _ in 0..20 {
            patience.set_aside(Refused);
        }
        let mut now = Instant::now();
        assert_eq!(spend(&mut patience, Doubtful, &mut now), 10);
    }

    #[test]
    fn time_of_not_now_does_not_count() {
        let start = Instant::now();
        let at = |second| start + seconds(second);
        let until = |second| Outcome::RetryUntil(Some(at(second)));
        let for_ever = Outcome::RetryUntil(None);
        // Each step: second, answer, what follows, what is left of a long delay.
        let long = seconds(10_000);
        type Steps<'a> = &'a [(u64, Disposition, Outcome, Duration)];
        let table: &[(&str, Steps)] = &[
            (
                "before the first doubtful answer",
                &[
                    (0, NotNow, for_ever, long),
                    (5_000, NotNow, for_ever, long),
                    (5_000, Doubtful, until(5_010), seconds(10)),
                    (5_010, Doubtful, Outcome::SetAside, Duration::ZERO),
                ],
            ),
            (
                "frozen in the middle",
                &[
                    (0, Doubtful, until(10), seconds(10)),
                    (4, NotNow, for_ever, long),
                    (1_000, NotNow, for_ever, long),
                    (2_000, Doubtful, until(2_006), seconds(6)),
                    (2_003, Doubtful, until(2_006), seconds(3)),
                    (2_005, NotNow, for_ever, long),
                    (3_000, Doubtful, until(3_001), seconds(1)),
                    (3_001, Doubtful, Outcome::SetAside, Duration::ZERO),
                ],
            ),
            (
                "nothing left when it thaws",
                &[
                    (0, Doubtful, until(10), seconds(10)),
                    (10, NotNow, for_ever, long),
                    (900, NotNow, for_ever, long),
                    (901, Doubtful, Outcome::SetAside, long),
                ],
            ),
            (
                "a slow answer past the end",
                &[
                    (0, Doubtful, until(10), seconds(10)),
                    (19, Doubtful, Outcome::SetAside, Duration::ZERO),
                ],
            ),
            (
                "delivered on the last try",
                &[
                    (0, Doubtful, until(10), seconds(10)),
                    (11, Delivered, Outcome::Delivered, Duration::ZERO),
                ],
            ),
            (
                "refused while in doubt",
                &[
                    (0, Doubtful, until(10), seconds(10)),
                    (1, Refused, Outcome::SetAside, seconds(9)),
                ],
            ),
        ];
        for (name, steps) in table {
            let mut patience = Patience::new();
            for (second, disposition, expected, left) in *steps {
                let outcome = patience.judge(*disposition, at(*second));
                assert_eq!(outcome, *expected, "{name}, second {second}");
                let capped = patience.cap(at(*second), long);
                assert_eq!(capped, *left, "{name}, second {second}");
            }
        }
    }

    #[test]
    fn a_short_delay_is_not_stretched() {
        let mut patience = Patience::new();
        let now = Instant::now();
        assert_eq!(patience.cap(now, seconds(600)), seconds(600));
        let _ = patience.judge(Doubtful, now);
        assert_eq!(patience.cap(now, seconds(3)), seconds(3));
        assert_eq!(patience.cap(now, seconds(600)), seconds(10));
    }
}
