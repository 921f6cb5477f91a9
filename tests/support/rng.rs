//! Random numbers that a seed brings back.

/// The seed of every random trial, so that a failure can be played again.
const SEED: &str = "ECHOPOST_SEED";
/// By how much more of them there are than in every check, as at night.
const ROUNDS: &str = "ECHOPOST_ROUNDS";

/// splitmix64.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    /// With the seed that the environment names, or else 1.
    pub fn seeded() -> Rng {
        let seed = variable(SEED, 1);
        println!("{SEED}={seed}");
        Rng(seed)
    }

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

    /// The same, for a place among so many.
    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("64 bits")
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// True in `chances` of `of` cases.
    pub fn chance(&mut self, chances: u64, of: u64) -> bool {
        self.below(of) < chances
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Cuts into parts of 1 to `longest` bytes.
    pub fn cut(&mut self, bytes: &[u8], longest: usize) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (part, after) = rest.split_at((1 + self.index(longest)).min(rest.len()));
            parts.push(part.to_vec());
            rest = after;
        }
        parts
    }
}

/// So many rounds of a random trial as every check has, or a multiple of them.
pub fn rounds(usual: usize) -> usize {
    usual * usize::try_from(variable(ROUNDS, 1)).expect("64 bits")
}

fn variable(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}"))
    })
}
