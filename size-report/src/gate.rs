//! What may not grow, and by how much it may.

use std::collections::BTreeMap;

use crate::budget::{Budgets, is_gated};
use crate::figures::{Figure, Flavour, Report, Unit};
use crate::table::number;

/// Bytes that a binary may grow over the baseline: sizes come out the same each
/// time, but for another toolchain or another path in a panic message.
const SIZE_TOLERANCE: f64 = 8.0 * 1024.0;
/// Memory may grow by this part of the baseline …
const MEMORY_TOLERANCE: f64 = 0.1;
/// … at least by so many KiB for what the process owns: medians of five lie
/// within 12 KiB of each other …
const OWN_TOLERANCE: f64 = 48.0;
/// … and for what counts mapped files too: the kernel maps what lies around a
/// page with it, and medians of five lie within 200 KiB of each other.
const MAPPED_TOLERANCE: f64 = 256.0;
/// KiB by which memory may miss a budget: two pages, as the stack holds the
/// environment and the heap the folder's path.
const BUDGET_NOISE: f64 = 8.0;
/// What has grown most, that a fault names.
const NAMED: usize = 5;

/// Everything that is over its budget, or has grown too much.
pub fn faults(head: &Report, base: &Report, budgets: &Budgets) -> Vec<String> {
    let nothing = Flavour::default();
    let mut faults = Vec::new();
    for (name, head) in &head.flavours {
        let base = base.flavours.get(name).unwrap_or(&nothing);
        for figure in head.figures.iter().filter(|figure| is_gated(&figure.name)) {
            let over = over_budget(figure, budgets.of(name, &figure.name));
            let grown = grown(figure, base.median(&figure.name));
            let names = match grown.is_some() && figure.unit == Unit::Bytes {
                true => what_grew(head, base),
                false => String::new(),
            };
            let found = over.into_iter().chain(grown.map(|grown| grown + &names));
            faults.extend(found.map(|what| format!("{name}, {}: {what}", figure.name)));
        }
    }
    faults
}

/// Flavours that the base knows nothing of: only their budgets can be checked.
pub fn without_base<'a>(head: &'a Report, base: &Report) -> Vec<&'a str> {
    let known = |name: &&String| !base.flavours.contains_key(*name);
    head.flavours
        .keys()
        .filter(known)
        .map(String::as_str)
        .collect()
}

fn over_budget(figure: &Figure, budget: Option<f64>) -> Option<String> {
    let (median, budget) = figure.median().zip(budget)?;
    let show = |value| number(figure.unit, value);
    let noise = match figure.unit {
        Unit::Kib => BUDGET_NOISE,
        _ => 0.0,
    };
    (median > budget + noise).then(|| {
        format!(
            "{} is over the budget of {} by {}",
            show(median),
            show(budget),
            show(median - budget)
        )
    })
}

fn grown(figure: &Figure, base: Option<f64>) -> Option<String> {
    let (median, base) = figure.median().zip(base)?;
    let tolerance = tolerance(&figure.name, base)?;
    let show = |value| number(figure.unit, value);
    (median > base + tolerance).then(|| {
        format!(
            "{} has grown by {} over the baseline of {}; {} are tolerated",
            show(median),
            show(median - base),
            show(base),
            show(tolerance)
        )
    })
}

/// How much a figure may grow, in its own unit; None: it is not compared. PSS
/// and the file-backed part depend on what else the machine runs; what is mapped
/// under load, and what the allocator has kept of large records, on the moment.
fn tolerance(figure: &str, base: f64) -> Option<f64> {
    let memory = |least: f64| Some(least.max(base * MEMORY_TOLERANCE));
    let (moment, field) = figure.rsplit_once(": ").unwrap_or((figure, ""));
    let at_rest = moment == "memory/idle" || moment.starts_with("memory/standby");
    // How many connections there were at once, too.
    let of_large = moment.starts_with("memory/24") || moment.starts_with("memory/32");
    match field {
        "" if figure == "size/total" => Some(SIZE_TOLERANCE),
        "anonymous" | "private dirty" if !of_large => memory(OWN_TOLERANCE),
        "RSS" if at_rest => memory(MAPPED_TOLERANCE),
        "VmHWM" => memory(MAPPED_TOLERANCE),
        _ => None,
    }
}

/// Sections and crates, those that have grown most first.
fn what_grew(head: &Flavour, base: &Flavour) -> String {
    let sections = |flavour: &Flavour| -> BTreeMap<String, u64> {
        let sizes = flavour
            .figures
            .iter()
            .filter(|figure| figure.group() == "size");
        let parts = sizes.filter(|figure| figure.row() != "total");
        parts
            .filter_map(|figure| Some((figure.row().to_owned(), figure.median()? as u64)))
            .collect()
    };
    let mut names = String::new();
    for (what, head, base) in [
        ("section", &sections(head), &sections(base)),
        ("crate", &head.crates, &base.crates),
    ] {
        if base.is_empty() {
            continue;
        }
        let by = |name: &String| head[name].saturating_sub(base.get(name).copied().unwrap_or(0));
        let mut grown: Vec<_> = head.keys().filter(|name| by(name) > 0).collect();
        grown.sort_by_key(|name| std::cmp::Reverse(by(name)));
        for name in grown.into_iter().take(NAMED) {
            let by = number(Unit::Bytes, by(name) as f64);
            names += &format!("; {what} {name} +{by}");
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(figures: &[(&str, Unit, f64)], crates: &[(&str, u64)]) -> Report {
        let mut report = Report::default();
        let flavour = report.flavour("default");
        for (name, unit, value) in figures {
            flavour.extend([Figure::once(*name, *unit, Some(*value))]);
        }
        flavour.crates = crates
            .iter()
            .map(|(name, size)| ((*name).to_owned(), *size))
            .collect();
        report
    }

    fn verdict(
        name: &str,
        unit: Unit,
        base: Option<f64>,
        budget: Option<f64>,
        head: f64,
    ) -> String {
        let base = base.map_or(Report::default(), |base| report(&[(name, unit, base)], &[]));
        let budgets = match budget {
            Some(most) => serde_json::json!({"default": {name: most}}),
            None => serde_json::json!({}),
        };
        let budgets = Budgets::from_json(&budgets).unwrap();
        faults(&report(&[(name, unit, head)], &[]), &base, &budgets).join("\n")
    }

    #[test]
    fn what_passes_and_what_does_not() {
        const SIZE: &str = "size/total";
        const OWN: &str = "memory/idle: anonymous";
        const RSS: &str = "memory/idle: RSS";
        let (bytes, kib) = (Unit::Bytes, Unit::Kib);
        // figure, unit, base, budget, head: part of the fault, none when it passes.
        #[rustfmt::skip]
        let table = [
            (SIZE, bytes, Some(1000.0), None, 1000.0 + 8192.0, ""),
            (SIZE, bytes, Some(1000.0), None, 1001.0 + 8192.0, "grown by 8,193 over the baseline of 1,000"),
            (SIZE, bytes, Some(9000.0), None, 10.0, ""),
            (SIZE, bytes, None, Some(500.0), 500.0, ""),
            (SIZE, bytes, None, Some(500.0), 501.0, "over the budget of 500 by 1"),
            // A baseline over the budget is no excuse.
            (SIZE, bytes, Some(600.0), Some(500.0), 600.0, "over the budget"),
            (OWN, kib, Some(100.0), None, 148.0, ""),
            (OWN, kib, Some(100.0), None, 149.0, "grown by 49 KiB"),
            (OWN, kib, Some(1000.0), None, 1100.0, ""),
            (OWN, kib, Some(1000.0), None, 1101.0, "100 KiB are tolerated"),
            (RSS, kib, Some(2000.0), None, 2256.0, ""),
            (RSS, kib, Some(2000.0), None, 2257.0, "grown by 257 KiB"),
            (RSS, kib, Some(2000.0), Some(2100.0), 2108.0, ""),
            (RSS, kib, Some(2000.0), Some(2100.0), 2109.0, "over the budget of 2,100 KiB by 9 KiB"),
            ("memory/64 in flight: RSS", kib, Some(1.0), None, 9999.0, ""),
            ("memory/24 × 3.9 MB: VmHWM", kib, Some(20_000.0), None, 22_001.0, "2,000 KiB are tolerated"),
            ("memory/24 × 3.9 MB: anonymous", kib, Some(1.0), None, 9999.0, ""),
            ("memory/backlog of 7: anonymous", kib, Some(900.0), None, 991.0, "grown by 91 KiB"),
            ("memory/backlog of 7: RSS", kib, Some(1.0), None, 9999.0, ""),
            ("memory/idle: PSS", kib, Some(1.0), None, 9999.0, ""),
            ("size/.text", bytes, Some(1.0), None, 9999.0, ""),
            ("process/threads", Unit::Count, Some(1.0), Some(1.0), 2.0, "over the budget of 1 by 1"),
            // Times are printed, and are no fault.
            ("start/socket", Unit::Millis, Some(1.0), Some(20.0), 99.0, ""),
            ("speed/replay: records", Unit::PerSecond, Some(1.0), Some(1.0), 99.0, ""),
        ];
        for (name, unit, base, budget, head, part) in table {
            let verdict = verdict(name, unit, base, budget, head);
            match part {
                "" => assert_eq!(verdict, "", "{name} {head}"),
                part => assert!(
                    verdict.contains(part) && verdict.contains(name),
                    "{verdict:?}"
                ),
            }
        }
    }

    #[test]
    fn a_larger_binary_is_told_by_section_and_crate() {
        let of = |total, text, h2| {
            let sizes = [
                ("size/total", Unit::Bytes, total),
                ("size/.text", Unit::Bytes, text),
                ("size/.rodata", Unit::Bytes, 10.0),
            ];
            report(&sizes, &[("h2", h2), ("http", 7)])
        };
        let base = of(1000.0, 500.0, 100);
        let faults = faults(&of(11000.0, 9500.0, 9100), &base, &Budgets::default());
        assert_eq!(
            faults,
            [
                "default, size/total: 11,000 has grown by 10,000 over the baseline of 1,000; \
              8,192 are tolerated; section .text +9,000; crate h2 +9,000"
            ]
        );
    }

    #[test]
    fn what_the_system_does_not_tell_is_no_fault() {
        let mut head = Report::default();
        let unknown = Figure::once("memory/idle: RSS", Unit::Kib, None);
        head.flavour("default").extend([unknown]);
        let base = report(&[("memory/idle: RSS", Unit::Kib, 1.0)], &[]);
        assert_eq!(faults(&head, &base, &Budgets::default()), [""; 0]);
        assert_eq!(without_base(&head, &Report::default()), ["default"]);
        assert_eq!(without_base(&head, &base), [""; 0]);
    }
}
