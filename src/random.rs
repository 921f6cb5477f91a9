//! Random numbers that keep agents apart: delays, names, a store's id. None is a secret.

use std::hash::{BuildHasher, RandomState};

/// A random number, made from the keys of the standard library's hash maps: the
/// system's random source seeds them, also where there is no `/dev`.
#[must_use]
pub fn number() -> u64 {
    RandomState::new().hash_one(())
}

/// As many random bytes as a store's id has.
#[must_use]
pub fn id() -> [u8; 16] {
    (u128::from(number()) << 64 | u128::from(number())).to_be_bytes()
}

/// A random number from 0 to below 1, for jitter: the rules take it as an argument.
#[must_use]
pub fn fraction() -> f64 {
    // The upper 53 bits are what an f64 holds without rounding.
    (number() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::{fraction, number};

    #[test]
    fn fractions_stay_in_range_and_spread() {
        let mut tenths = [0u32; 10];
        for _ in 0..10_000 {
            let fraction = fraction();
            assert!((0.0..1.0).contains(&fraction), "{fraction}");
            tenths[(fraction * 10.0) as usize] += 1;
        }
        // 1,000 expected in each; 800 is more than six deviations away.
        assert!(tenths.iter().all(|&count| count > 800), "{tenths:?}");
    }

    #[test]
    fn threads_have_numbers_of_their_own() {
        let threads = [(); 8].map(|()| std::thread::spawn(|| [number(), number()]));
        let mut numbers = threads.map(|thread| thread.join().unwrap()).concat();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 16);
    }
}
