//! The delays between two tries and between two probes. The random number is
//! an argument, so that the rules are pure.

use std::time::Duration;

use crate::limits::{
    BACKOFF_FLOOR, BACKOFF_MAX, BACKOFF_MIN, PROBE_DELAY_MAX, PROBE_DELAY_MIN, RETRY_AFTER_MAX,
};

/// The back-off of one record: full jitter (spec 6).
#[derive(Debug, Default)]
pub struct Backoff {
    /// Tries that failed since the last [`Backoff::reset`].
    tries: u32,
}

impl Backoff {
    /// A back-off before its first failure.
    #[must_use]
    pub fn new() -> Backoff {
        Backoff::default()
    }

    /// The delay before the next try: `random` (0 to 1) of a ceiling that
    /// doubles, on top of what the server asked for. Never under
    /// [`BACKOFF_FLOOR`]. Of a `Retry-After` at most [`RETRY_AFTER_MAX`] counts, and
    /// the ceiling is at least half of that, up to [`BACKOFF_MAX`]: a date is the
    /// same for a whole fleet, and so is the longest wait.
    #[must_use]
    pub fn next(&mut self, random: f64, retry_after: Option<Duration>) -> Duration {
        let retry_after = retry_after.map(|asked| asked.min(RETRY_AFTER_MAX));
        let spread = retry_after.unwrap_or_default() / 2;
        let ceiling = doubled(BACKOFF_MIN, self.tries, BACKOFF_MAX).max(spread.min(BACKOFF_MAX));
        self.tries = self.tries.saturating_add(1);
        let jitter = ceiling.mul_f64(fraction(random)).max(BACKOFF_FLOOR);
        match retry_after {
            Some(floor) => floor + jitter,
            None => jitter,
        }
    }

    /// Starts over: the record was delivered.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// The delay after probe `n` (from 0): doubling from [`PROBE_DELAY_MIN`] to
/// [`PROBE_DELAY_MAX`], times 0.5 to 1.5 by `random` (0 to 1) (spec 5.2).
#[must_use]
pub fn probe_delay(n: u32, random: f64) -> Duration {
    doubled(PROBE_DELAY_MIN, n, PROBE_DELAY_MAX).mul_f64(0.5 + fraction(random))
}

/// The delays between the probes of one outage. Where a replay broke off, the
/// first one comes before the first probe: a server that answers probes and
/// nothing else is not asked at once again.
#[derive(Debug, Default)]
pub struct Probes {
    /// Delays given out so far.
    delays: u32,
}

impl Probes {
    /// Before the first delay.
    #[must_use]
    pub fn new() -> Probes {
        Probes::default()
    }

    /// The delay before the next probe; `random` is from 0 to 1.
    #[must_use]
    pub fn next(&mut self, random: f64) -> Duration {
        let delay = probe_delay(self.delays, random);
        self.delays = self.delays.saturating_add(1);
        delay
    }
}

/// `first * 2^n`, at most `most`.
pub(super) fn doubled(first: Duration, n: u32, most: Duration) -> Duration {
    // 2^20 times the shortest delay is past every `most`.
    first.saturating_mul(1 << n.min(20)).min(most)
}

/// `random` forced into 0 to 1; NaN, which `mul_f64` panics on, is 0.
fn fraction(random: f64) -> f64 {
    if random.is_nan() {
        0.0
    } else {
        random.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Probes, probe_delay};
    use crate::limits::{BACKOFF_FLOOR, RETRY_AFTER_MAX};
    use std::time::Duration;

    const ALMOST_ONE: f64 = 1.0 - f64::EPSILON;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_ceiling_doubles_to_thirty_seconds() {
        let ceilings = [
            500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000,
        ];
        let mut full = Backoff::new();
        let mut half = Backoff::new();
        for ceiling in ceilings {
            assert_eq!(full.next(1.0, None), ms(ceiling));
            assert_eq!(half.next(0.5, None), ms(ceiling / 2));
        }
        full.reset();
        assert_eq!(full.next(1.0, None), ms(500));
    }

    #[test]
    fn no_number_of_tries_overflows() {
        let mut backoff = Backoff { tries: u32::MAX };
        assert_eq!(backoff.next(1.0, None), ms(30_000));
        assert_eq!(backoff.next(1.0, None), ms(30_000));
        assert_eq!(probe_delay(u32::MAX, 0.5), ms(5_000));
    }

    #[test]
    fn never_under_the_floor_even_with_zero_jitter() {
        for random in [0.0, 0.09, -1.0, f64::NAN, f64::NEG_INFINITY] {
            for retry_after in [None, Some(Duration::ZERO)] {
                assert_eq!(
                    Backoff::new().next(random, retry_after),
                    BACKOFF_FLOOR,
                    "{random}"
                );
            }
        }
        assert_eq!(Backoff::new().next(f64::INFINITY, None), ms(500));
    }

    #[test]
    fn retry_after_is_a_floor_of_ten_minutes_at_most_with_jitter_on_top() {
        for (asked, random, expected) in [
            (ms(0), 0.5, ms(250)),
            (ms(7_000), 0.0, ms(7_050)),
            (ms(1_000), 1.0, ms(1_500)),
            (ms(7_000), 0.5, ms(8_750)),
            (ms(7_000), 1.0, ms(10_500)),
            (ms(60_000), 1.0, ms(90_000)),
            (ms(500_000), 1.0, ms(530_000)),
            (ms(599_800), 1.0, ms(629_800)),
            (RETRY_AFTER_MAX, 0.0, ms(600_050)),
            (RETRY_AFTER_MAX, 0.5, ms(615_000)),
            (Duration::MAX, 1.0, ms(630_000)),
        ] {
            let delay = Backoff::new().next(random, Some(asked));
            assert_eq!(delay, expected, "{asked:?} {random}");
        }
    }

    #[test]
    fn probes_slow_down_to_five_seconds_give_or_take_half() {
        let mut probes = Probes::new();
        for (n, middle) in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]
            .into_iter()
            .enumerate()
        {
            let n = n as u32;
            assert_eq!(probes.next(0.5), ms(middle));
            assert_eq!(probe_delay(n, 0.0), ms(middle / 2));
            assert_eq!(probe_delay(n, 0.5), ms(middle));
            assert!(probe_delay(n, ALMOST_ONE) <= ms(middle * 3 / 2));
            assert!(probe_delay(n, ALMOST_ONE) > ms(middle * 3 / 2 - 1));
        }
    }
}
