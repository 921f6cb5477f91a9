//! What was measured, and how it is shown: figures with a unit, one Markdown table.

use std::collections::BTreeMap;

/// Names are cut to so many characters: those of symbols have no end.
const NAME_SHOWN: usize = 80;

/// What a figure counts, and so how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Kib,
    Count,
    PerSecond,
    Micros,
    Millis,
    /// Of a floor that was measured in the same run: the more, the better.
    Ratio,
}

/// One line of the table. Its name is that of its part, a `/`, and its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub name: String,
    pub unit: Unit,
    /// Sorted; empty where this system does not tell.
    samples: Vec<f64>,
}

impl Figure {
    /// n/a where the system did not tell once.
    pub fn new(
        name: impl Into<String>,
        unit: Unit,
        samples: impl IntoIterator<Item = Option<f64>>,
    ) -> Figure {
        let samples: Option<Vec<f64>> = samples.into_iter().collect();
        let mut samples = samples.unwrap_or_default();
        samples.sort_by(f64::total_cmp);
        let name = name.into();
        Figure {
            name,
            unit,
            samples,
        }
    }

    pub fn once(name: impl Into<String>, unit: Unit, value: Option<f64>) -> Figure {
        Figure::new(name, unit, [value])
    }

    pub fn median(&self) -> Option<f64> {
        self.samples.get(self.samples.len() / 2).copied()
    }

    /// What is measured by itself.
    pub fn part(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

pub type Figures = Vec<Figure>;

/// The figure of that name.
pub fn find<'a>(figures: &'a [Figure], name: &str) -> Option<&'a Figure> {
    figures.iter().find(|figure| figure.name == name)
}

/// The table of one kind of file.
pub fn markdown(
    kind: &str,
    head: &[Figure],
    base: &[Figure],
    budgets: &BTreeMap<String, f64>,
) -> String {
    let mut table = format!("| {kind} | budget | base | head | change |\n|---|--:|--:|--:|--:|\n");
    for figure in head {
        let unit = figure.unit;
        let show = |value: Option<f64>| value.map_or(String::new(), |it| number(unit, it));
        // A pipe would end the cell.
        let name: String = figure.name.chars().take(NAME_SHOWN).collect();
        let name = name.replace('|', "\\|");
        let mut budget = show(budgets.get(&figure.name).copied());
        if unit == Unit::Ratio && !budget.is_empty() {
            budget.insert_str(0, "≥ ");
        }
        let base = find(base, &figure.name).and_then(Figure::median);
        let both = base.zip(figure.median());
        let change = both.map_or(String::new(), |(base, head)| change(unit, base, head));
        let base = show(base);
        let head = match &*figure.samples {
            [] => "n/a".to_owned(),
            [one] => number(unit, *one),
            [low, .., high] => {
                let (low, high) = (number(unit, *low), number(unit, *high));
                format!("{} ({low} … {high})", show(figure.median()))
            }
        };
        table += &format!("| {name} | {budget} | {base} | {head} | {change} |\n");
    }
    table
}

/// With its sign and the part it is of the base.
fn change(unit: Unit, base: f64, head: f64) -> String {
    let by = head - base;
    if number(unit, head) == number(unit, base) {
        return "=".to_owned();
    }
    let sign = if by < 0.0 { "−" } else { "+" };
    let percent = (by / base * 100.0).abs();
    let part = (base != 0.0).then(|| format!(" ({sign}{percent:.1} %)"));
    sign.to_owned() + &number(unit, by.abs()) + &part.unwrap_or_default()
}

/// A figure as people read it.
pub fn number(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Bytes => thousands(value),
        Unit::Kib => format!("{} KiB", thousands(value)),
        Unit::Count if value.fract() != 0.0 => format!("{value:.1}"),
        Unit::Count => thousands(value),
        Unit::PerSecond => format!("{}/s", thousands(value)),
        Unit::Micros => format!("{value:.1} µs"),
        Unit::Millis => format!("{value:.1} ms"),
        Unit::Ratio => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        for (unit, value, shown) in [
            (Unit::Bytes, 1_226_312.0, "1,226,312"),
            (Unit::Kib, 2912.0, "2,912 KiB"),
            (Unit::Count, 0.4, "0.4"),
            (Unit::PerSecond, 12_345.6, "12,346/s"),
            (Unit::Ratio, 0.754, "0.75"),
        ] {
            assert_eq!(number(unit, value), shown);
        }
    }

    #[test]
    fn base_stands_beside_head_and_the_median_counts() {
        let figures = |total, rss: &[f64]| {
            let open = [Some(3.0), None, Some(3.0)];
            [
                Figure::once("size/total", Unit::Bytes, Some(total)),
                Figure::new("idle/RSS", Unit::Kib, rss.iter().copied().map(Some)),
                Figure::new("idle/descriptors", Unit::Count, open),
                Figure::once("replay/one", Unit::Ratio, Some(0.8)),
            ]
        };
        let head = figures(3048.0, &[9.0, 1.0, 2.0]);
        let base = figures(1000.0, &[2.0]);
        let budgets = [("size/total", 2_097_152.0), ("replay/one", 0.75)];
        let budgets = budgets.map(|(name, most)| (name.to_owned(), most));
        assert_eq!(
            markdown("x86_64-linux, static", &head, &base, &budgets.into()),
            "| x86_64-linux, static | budget | base | head | change |\n\
             |---|--:|--:|--:|--:|\n\
             | size/total | 2,097,152 | 1,000 | 3,048 | +2,048 (+204.8 %) |\n\
             | idle/RSS |  | 2 KiB | 2 KiB (1 KiB … 9 KiB) | = |\n\
             | idle/descriptors |  |  | n/a |  |\n\
             | replay/one | ≥ 0.75 | 0.80 | 0.80 | = |\n"
        );
    }
}
