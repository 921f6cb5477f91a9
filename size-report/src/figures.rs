//! What was measured: figures by name, for each flavour of the agent.

use std::collections::BTreeMap;

use crate::budget::is_gated;

/// The groups of the report, in the table's order.
const GROUPS: [&str; 5] = ["size", "memory", "process", "start", "speed"];

/// What a figure counts, and so how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Kib,
    Count,
    PerSecond,
    Micros,
    Millis,
    /// Of a floor that was measured in the same run.
    Ratio,
}

/// The median of some samples, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Value {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    pub samples: usize,
}

/// One line of the report. The part of the name before the first `/` is the
/// group it is printed in.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub name: String,
    pub unit: Unit,
    /// None: this system does not tell.
    pub value: Option<Value>,
}

/// All that is known of one flavour of the agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flavour {
    pub figures: Vec<Figure>,
    /// Bytes by crate, of code and constant data. Empty: the file has no symbols.
    pub crates: BTreeMap<String, u64>,
    /// Bytes by symbol, the instances of a generic one together.
    pub symbols: BTreeMap<String, u64>,
}

/// Flavours by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    pub flavours: BTreeMap<String, Flavour>,
}

impl Value {
    /// None for no samples, or where the system did not tell once.
    pub fn of(samples: &[Option<f64>]) -> Option<Value> {
        let mut sorted: Vec<f64> = samples.iter().copied().collect::<Option<_>>()?;
        sorted.sort_by(f64::total_cmp);
        Some(Value {
            median: *sorted.get(sorted.len() / 2)?,
            low: *sorted.first()?,
            high: *sorted.last()?,
            samples: sorted.len(),
        })
    }
}

impl Figure {
    pub fn new(name: impl Into<String>, unit: Unit, samples: &[Option<f64>]) -> Figure {
        Figure {
            name: name.into(),
            unit,
            value: Value::of(samples),
        }
    }

    /// A figure that is what it is: one sample tells.
    pub fn once(name: impl Into<String>, unit: Unit, value: Option<f64>) -> Figure {
        Figure::new(name, unit, &[value])
    }

    pub fn group(&self) -> &str {
        self.name.split_once('/').map_or("", |(group, _)| group)
    }

    /// The name within its group.
    pub fn row(&self) -> &str {
        self.name
            .split_once('/')
            .map_or(&*self.name, |(_, row)| row)
    }

    pub fn median(&self) -> Option<f64> {
        self.value.map(|value| value.median)
    }
}

impl Flavour {
    pub fn extend(&mut self, figures: impl IntoIterator<Item = Figure>) {
        self.figures.extend(figures);
    }

    /// Puts each group together; within one, the order stays.
    pub fn sort_by_group(&mut self) {
        self.figures
            .sort_by_key(|figure| GROUPS.iter().position(|group| *group == figure.group()));
    }

    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    pub fn median(&self, name: &str) -> Option<f64> {
        self.figure(name)?.median()
    }
}

impl Report {
    /// That flavour, empty when it is new.
    pub fn flavour(&mut self, name: &str) -> &mut Flavour {
        self.flavours.entry(name.to_owned()).or_default()
    }

    /// Of each gated figure the smaller one of two measurements.
    pub fn keep_smaller(&mut self, again: &Report) {
        for (name, flavour) in &mut self.flavours {
            let again = again.flavours.get(name);
            let gated = flavour.figures.iter_mut();
            for figure in gated.filter(|figure| is_gated(&figure.name)) {
                let other = again.and_then(|again| again.figure(&figure.name)?.value);
                if let Some((one, other)) = figure.value.zip(other)
                    && other.median < one.median
                {
                    figure.value = Some(other);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_median_and_no_sample_is_no_value() {
        let table: [(&[Option<f64>], Option<f64>); 5] = [
            (&[], None),
            (&[Some(3.0)], Some(3.0)),
            (&[Some(9.0), Some(1.0), Some(2.0)], Some(2.0)),
            (&[Some(1.0), None, Some(2.0)], None),
            (
                &[Some(5.0), Some(4.0), Some(1.0), Some(2.0), Some(3.0)],
                Some(3.0),
            ),
        ];
        for (samples, median) in table {
            assert_eq!(Value::of(samples).map(|v| v.median), median, "{samples:?}");
        }
        let report = |values: [Option<f64>; 3]| {
            let mut report = Report::default();
            let names = ["memory/a", "memory/b", "speed/c"];
            let figures = names.into_iter().zip(values);
            let figures = figures.map(|(name, value)| Figure::once(name, Unit::Kib, value));
            report.flavour("default").extend(figures);
            report
        };
        let mut kept = report([Some(9.0), Some(1.0), Some(9.0)]);
        kept.keep_smaller(&report([Some(8.0), None, Some(1.0)]));
        assert_eq!(kept, report([Some(8.0), Some(1.0), Some(9.0)]));
        let value = Value::of(&[Some(9.0), Some(1.0), Some(2.0)]).unwrap();
        assert_eq!((value.low, value.high, value.samples), (1.0, 9.0, 3));
    }
}
