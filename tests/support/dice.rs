//! Random numbers that a seed brings back.

/// splitmix64.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end`, without `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in `chances` of `of` cases.
    pub fn roll(&mut self, chances: u64, of: u64) -> bool {
        self.below(of) < chances
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// A seed: that of the environment, so that a failure can be played again, or
/// `usual`. Printed either way.
pub fn seed(variable: &str, usual: u64) -> u64 {
    let seed = std::env::var(variable).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|error| panic!("{variable}={text}: {error}"))
    });
    println!("{variable}={seed}");
    seed
}

/// A seed that is another one in each run.
pub fn now() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed();
    now.expect("a clock after 1970").subsec_nanos().into()
}
