//! A record that the server dies of (spec 6): its tries break off without an answer,
//! one after the other, while probes find the server healthy. Pure: the caller brings
//! the clock.

use std::time::{Duration, Instant};

use crate::limits::{BREAKS_MIN, BREAKS_TIME_MAX, BREAKS_TIME_MIN};

/// Counts the tries of the record at hand that broke off in a row.
#[derive(Debug)]
pub struct Breaks {
    /// The record's key, its first such try and their number.
    tries: Option<(u64, Instant, u32)>,
    /// The time over which they have to go on.
    time: Duration,
}

impl Default for Breaks {
    fn default() -> Breaks {
        Breaks {
            tries: None,
            time: BREAKS_TIME_MIN,
        }
    }
}

impl Breaks {
    /// A try of record `key` broke off at `now`; true where the record is to be set
    /// aside, so that it does not hold all others for ever.
    #[must_use]
    pub fn broke_off(&mut self, key: u64, now: Instant) -> bool {
        let (first, tries) = match self.tries {
            Some((before, first, tries)) if before == key => (first, tries + 1),
            _ => (now, 1),
        };
        self.tries = Some((key, first, tries));
        tries >= BREAKS_MIN && now.saturating_duration_since(first) >= self.time
    }

    /// The server has answered the record at hand.
    pub fn answered(&mut self) {
        self.tries = None;
    }

    /// A record is set aside for that: the next one has twice the time, up to
    /// [`BREAKS_TIME_MAX`], for a server that is sick breaks off whatever it gets.
    pub fn set_aside(&mut self) {
        self.tries = None;
        self.time = (self.time * 2).min(BREAKS_TIME_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::Breaks;
    use std::time::{Duration, Instant};

    enum Step {
        /// A try of that record breaks off after so many seconds in all.
        Breaks(u64, u64, bool),
        Answered,
        SetAside,
    }
    use Step::{Answered, Breaks as Off, SetAside};

    #[test]
    fn five_tries_in_a_row_over_a_minute_and_twice_that_after_each_set_aside() {
        let table: &[(&str, &[Step])] = &[
            (
                "five over a minute",
                &[
                    Off(1, 0, false),
                    Off(1, 1, false),
                    Off(1, 2, false),
                    Off(1, 59, false),
                    Off(1, 60, true),
                ],
            ),
            (
                "many within a minute",
                &[
                    Off(1, 0, false),
                    Off(1, 1, false),
                    Off(1, 2, false),
                    Off(1, 3, false),
                    Off(1, 4, false),
                    Off(1, 5, false),
                    Off(1, 61, true),
                ],
            ),
            ("few over an hour", &[Off(1, 0, false), Off(1, 3600, false)]),
            (
                "an answer between",
                &[
                    Off(1, 0, false),
                    Off(1, 20, false),
                    Off(1, 40, false),
                    Off(1, 60, false),
                    Answered,
                    Off(1, 80, false),
                ],
            ),
            (
                "another record",
                &[
                    Off(1, 0, false),
                    Off(1, 20, false),
                    Off(1, 40, false),
                    Off(1, 60, false),
                    Off(2, 80, false),
                ],
            ),
            (
                "twice the time",
                &[
                    SetAside,
                    Off(1, 0, false),
                    Off(1, 1, false),
                    Off(1, 2, false),
                    Off(1, 3, false),
                    Off(1, 119, false),
                    Off(1, 120, true),
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
                    Off(1, 0, false),
                    Off(1, 1, false),
                    Off(1, 2, false),
                    Off(1, 3, false),
                    Off(1, 3599, false),
                    Off(1, 3600, true),
                ],
            ),
        ];
        for (name, steps) in table {
            let start = Instant::now();
            let mut breaks = Breaks::default();
            for step in *steps {
                match step {
                    Off(key, second, expected) => {
                        let now = start + Duration::from_secs(*second);
                        let aside = breaks.broke_off(*key, now);
                        assert_eq!(aside, *expected, "{name}, second {second}");
                    }
                    Answered => breaks.answered(),
                    SetAside => breaks.set_aside(),
                }
            }
        }
    }
}
