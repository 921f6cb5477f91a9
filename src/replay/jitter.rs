//! The one source of randomness of the delays; the rules themselves take the
//! number as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// A random number from 0 to below 1.
#[must_use]
pub fn random() -> f64 {
    match getrandom::u64() {
        // The upper 53 bits are what an f64 holds without rounding.
        Ok(bits) => (bits >> 11) as f64 / (1u64 << 53) as f64,
        // Jitter needs no secrecy: the clock spreads a fleet well enough.
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.5, |now| f64::from(now.subsec_nanos()) / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::random;

    #[test]
    fn numbers_stay_in_range_and_spread() {
        let mut tenths = [0u32; 10];
        for _ in 0..10_000 {
            let number = random();
            assert!((0.0..1.0).contains(&number), "{number}");
            tenths[(number * 10.0) as usize] += 1;
        }
        // 1,000 expected in each; 800 is more than six deviations away.
        assert!(tenths.iter().all(|&count| count > 800), "{tenths:?}");
    }
}
