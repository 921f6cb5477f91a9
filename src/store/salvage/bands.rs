//! The order in which a file is scanned where there is no room for a copy beside it. LMDB
//! fills its pages only where keys come in order; in a file whose pages were used again
//! they do not, and a copy made in the file's order takes up to twice its room. So the keys
//! are cut into bands, and the file is scanned once for each.

use crate::limits::{SALVAGE_BANDS, SALVAGE_SAMPLES};

/// The bands of a file's keys.
pub(super) struct Bands {
    /// First keys of pages, as yet seen; `None` once the bands are known.
    sample: Option<Vec<u64>>,
    /// Of so many pages one is kept.
    step: usize,
    seen: usize,
    /// The last key of each band that is not through, the next one's last.
    ends: Vec<u64>,
    /// The last key of the bands that are through.
    done: u64,
}

impl Bands {
    /// All keys in one.
    pub(super) fn one() -> Bands {
        Bands {
            sample: None,
            step: 1,
            seen: 0,
            ends: vec![u64::MAX],
            done: 0,
        }
    }

    /// As many as there are to be, by the keys that [`Bands::see`] is told.
    pub(super) fn to_be_found() -> Bands {
        Bands {
            sample: Some(Vec::new()),
            ..Bands::one()
        }
    }

    /// True while the keys are looked at.
    pub(super) fn is_finding(&self) -> bool {
        self.sample.is_some()
    }

    /// Takes the first key of a page in.
    pub(super) fn see(&mut self, key: u64) {
        let Some(sample) = &mut self.sample else {
            return;
        };
        if self.seen.is_multiple_of(self.step) {
            sample.push(key);
        }
        self.seen += 1;
        if sample.len() == SALVAGE_SAMPLES {
            let mut number = 0;
            sample.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.step *= 2;
        }
    }

    /// Goes on at the file's end: with the first band once all keys were seen, then with the
    /// next; false after the last.
    pub(super) fn next(&mut self) -> bool {
        if let Some(mut sample) = self.sample.take() {
            sample.sort_unstable();
            let length = sample.len().div_ceil(SALVAGE_BANDS).max(1);
            let ends = sample
                .chunks(length)
                .skip(1)
                .filter_map(|part| part.first());
            self.ends.extend(ends.rev());
            return true;
        }
        self.done = self.ends.pop().unwrap_or(u64::MAX);
        !self.ends.is_empty()
    }

    /// The last key of the bands that are through.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// The last key of the band that is scanned for.
    pub(super) fn end(&self) -> u64 {
        self.ends.last().copied().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_in_one_band_or_in_some_that_follow_each_other() {
        for pages in [0, 1, 5, 100, 10_000] {
            let mut bands = Bands::to_be_found();
            (0..pages).for_each(|page| bands.see((page * 7919) % 10_007));
            assert!(bands.next());
            let mut done = 0;
            let mut count = 0;
            loop {
                assert!(bands.done() == done && bands.end() > done);
                done = bands.end();
                count += 1;
                if !bands.next() {
                    break;
                }
            }
            assert_eq!(done, u64::MAX);
            assert!(count <= SALVAGE_BANDS, "{count} of {pages}");
            assert!(
                pages < 100 || count > SALVAGE_BANDS / 2,
                "{count} of {pages}"
            );
        }
        let mut one = Bands::one();
        assert!(one.end() == u64::MAX && !one.next());
    }
}
