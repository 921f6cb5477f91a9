//! What is counted over the time.

use super::server::{Reply, SECOND, Time};

/// The requests of one second.
#[derive(Debug, Default, Clone, Copy)]
pub struct Second {
    pub probes: u64,
    pub records: f64,
}

impl Second {
    pub fn all(&self) -> f64 {
        self.probes as f64 + self.records
    }
}

/// The requests of a whole simulation.
#[derive(Debug, Default)]
pub struct Tally {
    pub seconds: Vec<Second>,
    pub delivered: u64,
    pub drained: Time,
}

impl Tally {
    fn second(&mut self, at: Time) -> &mut Second {
        let at = usize::try_from(at / SECOND).expect("64 bits");
        if at >= self.seconds.len() {
            self.seconds.resize(at + 1, Second::default());
        }
        &mut self.seconds[at]
    }

    pub fn probe(&mut self, at: Time) {
        self.second(at).probes += 1;
    }

    pub fn record(&mut self, at: Time, reply: Reply) {
        self.second(at).records += 1.0;
        if let Reply::Served { at } = reply {
            self.delivered += 1;
            self.drained = self.drained.max(at);
        }
    }

    /// `agents` come once in each `period` from `from` until `until`.
    pub fn hot(&mut self, agents: usize, period: Time, from: Time, until: Time) {
        let mut from = from;
        while agents > 0 && from < until {
            let end = until.min((from / SECOND + 1) * SECOND);
            let rounds = (end - from) as f64 / period as f64;
            self.second(from).records += agents as f64 * rounds;
            from = end;
        }
    }

    /// The last of those tries is counted twice: it is a `record` as well.
    pub fn hot_try_taken(&mut self, at: Time) {
        self.second(at).records -= 1.0;
    }

    /// The seconds of a time, whole ones.
    pub fn between(&self, from: Time, until: Time) -> &[Second] {
        let at = |time: Time| {
            let second = usize::try_from(time / SECOND).expect("64 bits");
            second.min(self.seconds.len())
        };
        &self.seconds[at(from)..at(until)]
    }

    /// All requests that arrived, probes and records.
    pub fn requests(&self) -> f64 {
        self.seconds.iter().map(Second::all).sum()
    }
}

/// The mean of some numbers, and the largest of them.
pub fn mean_and_peak(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut count, mut sum, mut peak) = (0.0, 0.0, 0.0_f64);
    for number in numbers {
        count += 1.0;
        sum += number;
        peak = peak.max(number);
    }
    (sum / count, peak)
}
