//! What may not grow, and by how much it may: over the base, and over the budgets of
//! section 9 of the behaviour contract.

use std::collections::BTreeMap;
use std::path::Path;

use crate::table::{Figure, Unit, find, number};

const TOTAL: &str = "size/total";
/// Bytes that a file may grow over the base: sizes come out the same each time, but
/// for another path in a panic message.
const SIZE_TOLERANCE: f64 = 8.0 * 1024.0;
/// Memory may grow by this part of the base …
const MEMORY_TOLERANCE: f64 = 0.1;
/// … at least by so many KiB for what the process owns: medians of five lie within
/// 12 KiB of each other …
const OWN_TOLERANCE: f64 = 48.0;
/// … and for what counts mapped files too: the kernel maps what lies around a page
/// with it, and medians of five lie within 200 KiB of each other.
const MAPPED_TOLERANCE: f64 = 256.0;
/// KiB by which memory may miss a budget: two pages, as the stack holds the
/// environment and the heap the folder's path.
const BUDGET_NOISE: f64 = 8.0;
/// What has grown most, that is named.
const NAMED: usize = 8;

/// The most that figures may be, each in its own unit (a ratio: the least), as the
/// file at `path` has them for this kind of file, for this system or for any.
pub fn budgets(path: &Path, kind: &str) -> Result<BTreeMap<String, f64>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let all = serde_json::from_str::<BTreeMap<String, BTreeMap<String, f64>>>(&text);
    let mut budgets = all.map_err(|error| failed(&error))?;
    budgets.retain(|name, _| [kind, std::env::consts::OS, "any"].contains(&&**name));
    Ok(budgets.into_values().flatten().collect())
}

/// Everything that is over its budget or has grown too much; and what has a budget in
/// a part that was measured, and could not be told. Each begins with the figure's name.
pub fn faults(head: &[Figure], base: &[Figure], budgets: &BTreeMap<String, f64>) -> Vec<String> {
    let median = |figures, name| find(figures, name).and_then(Figure::median);
    let mut faults = Vec::new();
    for name in budgets.keys() {
        let part = name.split('/').next();
        if head.iter().any(|figure| Some(figure.part()) == part) && median(head, name).is_none() {
            faults.push(format!("{name}: could not be told, and has a budget"));
        }
    }
    for figure in head.iter().filter(|figure| is_gated(figure)) {
        let name = &figure.name;
        let noise = match figure.unit {
            Unit::Kib => BUDGET_NOISE,
            _ => 0.0,
        };
        let budget = budgets.get(name).map(|most| (*most, noise));
        let base = median(base, name).map(|base| (base, tolerance(figure, base)));
        for (limit, what) in [(budget, "over the budget of"), (base, "over the base of")] {
            if let (Some(now), Some((limit, tolerance))) = (figure.median(), limit)
                && now > limit + tolerance
            {
                let show = |value| number(figure.unit, value);
                let (now, by, limit) = (show(now), show(now - limit), show(limit));
                let tolerance = show(tolerance);
                faults.push(format!(
                    "{name}: {now}, {by} {what} {limit}, tolerated {tolerance}"
                ));
            }
        }
    }
    faults
}

/// Of each gated figure the smaller one of two measurements.
pub fn keep_smaller(head: &mut [Figure], again: &[Figure]) {
    for figure in head.iter_mut().filter(|figure| is_gated(figure)) {
        let other = find(again, &figure.name).filter(|other| other.median().is_some());
        if let Some(other) = other
            && figure.median().is_none_or(|one| other.median() < Some(one))
        {
            *figure = other.clone();
        }
    }
}

/// The sections and crates that have grown most.
pub fn grown(head: &[Figure], base: &[Figure]) -> Vec<String> {
    let mut grown = Vec::new();
    // Of a base that is stripped nothing is known.
    let is_known = |part| base.iter().any(|figure| figure.part() == part);
    for figure in head.iter().filter(|figure| figure.name != TOTAL) {
        let was = find(base, &figure.name).and_then(Figure::median);
        let by = figure.median().unwrap_or_default() - was.unwrap_or_default();
        if matches!(figure.part(), "size" | "crate") && is_known(figure.part()) && by > 0.0 {
            grown.push((by, &figure.name));
        }
    }
    grown.sort_by(|(one, _), (two, _)| two.total_cmp(one));
    let show = |(by, name)| format!("{name} +{}", number(Unit::Bytes, by));
    grown.into_iter().take(NAMED).map(show).collect()
}

/// Whether a figure is a promise about the agent alone, and not about the machine's
/// speed.
fn is_gated(figure: &Figure) -> bool {
    figure.unit == Unit::Kib || matches!(&*figure.name, TOTAL | "idle/threads")
}

/// How much a gated figure may grow over the base.
fn tolerance(figure: &Figure, base: f64) -> f64 {
    let is_own = figure.name.ends_with("anonymous") || figure.name.ends_with("private dirty");
    match figure.unit {
        Unit::Kib if is_own => OWN_TOLERANCE.max(base * MEMORY_TOLERANCE),
        Unit::Kib => MAPPED_TOLERANCE.max(base * MEMORY_TOLERANCE),
        Unit::Bytes => SIZE_TOLERANCE,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_does_not() {
        const OWN: &str = "idle/anonymous";
        const RSS: &str = "idle/RSS";
        let (bytes, kib, count) = (Unit::Bytes, Unit::Kib, Unit::Count);
        // figure, unit, base, budget, head: part of the fault, none when it passes.
        #[rustfmt::skip]
        let table = [
            (TOTAL, bytes, Some(1000.0), None, 1000.0 + 8192.0, ""),
            (TOTAL, bytes, Some(1000.0), None, 1001.0 + 8192.0, "9,193, 8,193 over the base of 1,000, tolerated 8,192"),
            (TOTAL, bytes, None, Some(500.0), 500.0, ""),
            (TOTAL, bytes, None, Some(500.0), 501.0, "1 over the budget of 500"),
            // A base over the budget is no excuse.
            (TOTAL, bytes, Some(600.0), Some(500.0), 600.0, "over the budget"),
            ("size/.text", bytes, Some(1.0), None, 99999.0, ""),
            (OWN, kib, Some(100.0), None, 148.0, ""),
            (OWN, kib, Some(100.0), None, 149.0, "49 KiB over the base of 100 KiB"),
            (OWN, kib, Some(1000.0), None, 1100.0, ""),
            (OWN, kib, Some(1000.0), None, 1101.0, "tolerated 100 KiB"),
            ("standby/after a life, private dirty", kib, Some(100.0), None, 149.0, "49 KiB over the base of 100 KiB"),
            (RSS, kib, Some(2000.0), None, 2256.0, ""),
            (RSS, kib, Some(2000.0), None, 2257.0, "257 KiB over the base"),
            (RSS, kib, Some(2000.0), Some(2100.0), 2108.0, ""),
            (RSS, kib, Some(2000.0), Some(2100.0), 2109.0, "9 KiB over the budget of 2,100 KiB"),
            ("large/VmHWM", kib, Some(20_000.0), None, 22_001.0, "tolerated 2,000 KiB"),
            ("idle/threads", count, None, Some(1.0), 2.0, "1 over the budget of 1"),
            // Times and speeds are printed, and are no fault.
            ("start/socket", Unit::Millis, Some(1.0), Some(20.0), 99.0, ""),
            ("replay/records", Unit::PerSecond, Some(9.0), None, 1.0, ""),
        ];
        for (name, unit, base, budget, head, part) in table {
            let budgets = BTreeMap::from_iter(budget.map(|most| (name.to_owned(), most)));
            let base = base.map(|base| Figure::once(name, unit, Some(base)));
            let head = [Figure::once(name, unit, Some(head))];
            let faults = faults(&head, base.as_slice(), &budgets);
            match part {
                "" => assert_eq!(faults, [""; 0], "{head:?}"),
                part => assert!(
                    matches!(&*faults, [fault] if fault.starts_with(name) && fault.contains(part)),
                    "{faults:?}"
                ),
            }
        }
    }

    #[test]
    fn a_budget_that_cannot_be_held_against_anything_is_a_fault() {
        let budgets = BTreeMap::from([("idle/RSS".to_owned(), 1.0)]);
        let of = |name, value| [Figure::once(name, Unit::Kib, value)];
        let count = |head: &[Figure]| faults(head, &[], &budgets).len();
        assert_eq!(count(&of("idle/RSS", None)), 1);
        assert_eq!(count(&of("idle/rss", Some(1.0))), 1);
        assert_eq!(count(&of("large/VmHWM", None)), 0);
        // Without a budget, what the system does not tell is none.
        let faults = faults(&of("idle/RSS", None), &[], &BTreeMap::new());
        assert_eq!(faults, [""; 0]);
    }

    #[test]
    fn the_smaller_of_two_measurements_counts_where_it_is_gated() {
        let figures = |idle, rate| {
            let rate = Figure::once("replay/records", Unit::PerSecond, Some(rate));
            [Figure::once("idle/RSS", Unit::Kib, idle), rate]
        };
        let mut head = figures(Some(9.0), 9.0);
        keep_smaller(&mut head, &figures(Some(8.0), 1.0));
        keep_smaller(&mut head, &figures(None, 1.0));
        assert_eq!(head, figures(Some(8.0), 9.0));
    }

    #[test]
    fn what_has_grown_is_named_the_most_first() {
        let of = |sizes: [(&str, f64); 4]| {
            sizes.map(|(name, bytes)| Figure::once(name, Unit::Bytes, Some(bytes)))
        };
        let base = of([
            (TOTAL, 1.),
            ("size/a", 1.),
            ("crate/b", 9.),
            ("crate/c", 3.),
        ]);
        let head = of([
            (TOTAL, 9.),
            ("size/a", 5.),
            ("crate/b", 9.),
            ("crate/d", 8.),
        ]);
        assert_eq!(grown(&head, &base), ["crate/d +8", "size/a +4"]);
    }
}
