//! The report as one Markdown table.

use std::collections::BTreeMap;

use crate::budget::Budgets;
use crate::figures::{Figure, Flavour, Report, Unit};

/// Crates, and symbols, that are listed.
const LARGEST: usize = 20;
/// Symbols are cut to so many characters: a table must stay readable.
const SYMBOL_SHOWN: usize = 70;

/// Both flavours below each other: budget, base, head and what has changed.
pub fn markdown(head: &Report, base: &Report, budgets: &Budgets) -> String {
    let mut lines = vec![
        "| figure | budget | base | head | change |".to_owned(),
        "|---|--:|--:|--:|--:|".to_owned(),
    ];
    let nothing = Flavour::default();
    for (name, head) in &head.flavours {
        let base = base.flavours.get(name).unwrap_or(&nothing);
        let mut group = "";
        for figure in &head.figures {
            if figure.group() != group {
                group = figure.group();
                lines.push(title(&format!("{group}, {name}")));
            }
            let budget = budgets.of(name, &figure.name);
            lines.push(line(figure, base.figure(&figure.name), budget));
        }
        lines.extend(largest("crates", name, &head.crates, &base.crates));
        lines.extend(largest("symbols", name, &head.symbols, &base.symbols));
    }
    lines.join("\n") + "\n"
}

fn title(text: &str) -> String {
    format!("| **{text}** | | | | |")
}

fn line(head: &Figure, base: Option<&Figure>, budget: Option<f64>) -> String {
    let unit = head.unit;
    let base = base.and_then(Figure::median);
    let (shown, change) = match head.value {
        None => ("n/a".to_owned(), String::new()),
        Some(value) => {
            let mut shown = number(unit, value.median);
            if value.samples > 1 {
                let (low, high) = (number(unit, value.low), number(unit, value.high));
                shown += &format!(" ({} of {low} … {high})", value.samples);
            }
            (
                shown,
                base.map_or(String::new(), |base| change(unit, base, value.median)),
            )
        }
    };
    // A part of a floor is to be reached, all else is not to be passed.
    let least = if unit == Unit::Ratio { "≥ " } else { "" };
    let budget = budget.map_or(String::new(), |budget| {
        format!("{least}{}", number(unit, budget))
    });
    let base = base.map_or(String::new(), |base| number(unit, base));
    format!(
        "| {} | {budget} | {base} | {shown} | {change} |",
        head.row()
    )
}

/// The largest of head; then whatever else has moved, and by how much.
fn largest(
    what: &str,
    flavour: &str,
    head: &BTreeMap<String, u64>,
    base: &BTreeMap<String, u64>,
) -> Vec<String> {
    if head.is_empty() {
        return Vec::new();
    }
    let bytes = |of: &BTreeMap<String, u64>, name: &str| of.get(name).copied().unwrap_or(0);
    let mut names: Vec<&String> = head.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(head[*name]));
    names.truncate(LARGEST);
    if !base.is_empty() {
        let listed = names.clone();
        let mut moved: Vec<&String> = head
            .keys()
            .chain(base.keys().filter(|name| !head.contains_key(*name)))
            .filter(|name| !listed.contains(name) && bytes(head, name) != bytes(base, name))
            .collect();
        moved.sort_by_key(|name| std::cmp::Reverse(bytes(head, name).abs_diff(bytes(base, name))));
        names.extend(moved.into_iter().take(LARGEST));
    }
    let lines = names.into_iter().map(|name| {
        let head = bytes(head, name) as f64;
        let known = !base.is_empty();
        let base = bytes(base, name) as f64;
        let (base_shown, change) = match known {
            true => (number(Unit::Bytes, base), change(Unit::Bytes, base, head)),
            false => (String::new(), String::new()),
        };
        format!(
            "| `{}` | | {base_shown} | {} | {change} |",
            shortened(name),
            number(Unit::Bytes, head)
        )
    });
    let title = title(&format!("largest {what}, {flavour}"));
    [title].into_iter().chain(lines).collect()
}

fn shortened(name: &str) -> String {
    let mut shown: String = name.chars().take(SYMBOL_SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    // Would end the cell.
    shown.replace('|', "\\|")
}

/// With its sign and the part it is of the base; nothing for nothing.
fn change(unit: Unit, base: f64, head: f64) -> String {
    let by = head - base;
    if number(unit, head) == number(unit, base) {
        return "=".to_owned();
    }
    let sign = if by < 0.0 { "−" } else { "+" };
    let part = match base == 0.0 {
        true => String::new(),
        false => format!(" ({sign}{:.1} %)", (by / base * 100.0).abs()),
    };
    format!("{sign}{}{part}", number(unit, by.abs()))
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
        let table = [
            (Unit::Bytes, 1_226_312.0, "1,226,312"),
            (Unit::Bytes, 999.0, "999"),
            (Unit::Kib, 2912.0, "2,912 KiB"),
            (Unit::Count, 3.0, "3"),
            (Unit::Count, 0.4, "0.4"),
            (Unit::PerSecond, 12_345.6, "12,346/s"),
            (Unit::Micros, 19.96, "20.0 µs"),
            (Unit::Ratio, 0.754, "0.75"),
        ];
        for (unit, value, shown) in table {
            assert_eq!(number(unit, value), shown);
        }
    }

    #[test]
    fn base_stands_beside_head() {
        let mut head = Report::default();
        let mut base = Report::default();
        for (report, total, h2) in [(&mut base, 1000.0, 10), (&mut head, 3048.0, 5)] {
            let flavour = report.flavour("default");
            flavour.extend([
                Figure::once("size/total", Unit::Bytes, Some(total)),
                Figure::once("memory/idle: PSS", Unit::Kib, None),
                Figure::once("speed/one", Unit::Ratio, Some(0.8)),
            ]);
            flavour.crates.insert("h2".to_owned(), h2);
        }
        let budgets = serde_json::json!({"default": {"size/total": 2097152, "speed/one": 0.75}});
        let budgets = Budgets::from_json(&budgets).unwrap();
        let table = markdown(&head, &base, &budgets);
        for line in [
            "| **size, default** | | | | |",
            "| total | 2,097,152 | 1,000 | 3,048 | +2,048 (+204.8 %) |",
            "| idle: PSS |  |  | n/a |  |",
            "| one | ≥ 0.75 | 0.80 | 0.80 | = |",
            "| **largest crates, default** | | | | |",
            "| `h2` | | 10 | 5 | −5 (−50.0 %) |",
        ] {
            assert!(table.lines().any(|found| found == line), "{line}\n{table}");
        }
    }

    #[test]
    fn a_crate_that_is_gone_is_listed() {
        let of = |name: &str| BTreeMap::from([(name.to_owned(), 7)]);
        let lines = largest("crates", "default", &of("new"), &of("old"));
        assert_eq!(lines[1], "| `new` | | 0 | 7 | +7 |");
        assert_eq!(lines[2], "| `old` | | 7 | 0 | −7 (−100.0 %) |");
    }
}
