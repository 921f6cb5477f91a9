//! The baseline file: the budgets, and figures by target and flavour. `--json`
//! prints such figures.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use crate::budget::Budgets;
use crate::figures::{Figure, Flavour, Report, Unit, Value};

const UNITS: [(&str, Unit); 7] = [
    ("bytes", Unit::Bytes),
    ("KiB", Unit::Kib),
    ("count", Unit::Count),
    ("1/s", Unit::PerSecond),
    ("us", Unit::Micros),
    ("ms", Unit::Millis),
    ("ratio", Unit::Ratio),
];

/// The target that this tool, and so the agent beside it, is built for.
pub fn target() -> String {
    let arch = std::env::consts::ARCH;
    match (std::env::consts::OS, cfg!(target_env = "musl")) {
        ("macos", _) => format!("{arch}-apple-darwin"),
        ("linux", false) => format!("{arch}-unknown-linux-gnu"),
        ("linux", true) => format!("{arch}-unknown-linux-musl"),
        (os, _) => format!("{arch}-unknown-{os}"),
    }
}

/// The figures that the file holds for [`target`]; none where it holds none.
///
/// # Errors
/// The file is there and cannot be read.
pub fn load(path: &Path) -> Result<Report, String> {
    match read(path)?.get(&target()) {
        None => Ok(Report::default()),
        Some(figures) => from_json(figures).map_err(|why| format!("{}: {why}", path.display())),
    }
}

/// The budgets that the file states.
///
/// # Errors
/// The file is there and cannot be read.
pub fn budgets(path: &Path) -> Result<Budgets, String> {
    let file = read(path)?;
    Budgets::from_json(file.get("budgets").unwrap_or(&Json::Null))
        .map_err(|why| format!("{}: {why}", path.display()))
}

/// Puts what was measured into the file; what was not stays as it is, and so do the
/// budgets. Times and speeds of this machine would tell nothing on another, or on
/// a busier day, and are left out.
///
/// # Errors
/// The file cannot be read or written.
pub fn update(path: &Path, measured: &Report) -> Result<(), String> {
    let mut all = read(path)?;
    let mut kept = load(path)?;
    for (name, flavour) in &measured.flavours {
        merge(kept.flavour(name), flavour);
    }
    all.insert(target(), to_json(&kept));
    let text = format!("{:#}\n", Json::Object(all));
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn merge(kept: &mut Flavour, measured: &Flavour) {
    let lasting = |figure: &&Figure| matches!(figure.unit, Unit::Bytes | Unit::Kib | Unit::Count);
    for figure in measured.figures.iter().filter(lasting) {
        match kept.figures.iter_mut().find(|old| old.name == figure.name) {
            Some(old) => *old = figure.clone(),
            None => kept.figures.push(figure.clone()),
        }
    }
    if !measured.crates.is_empty() {
        kept.crates.clone_from(&measured.crates);
    }
}

fn read(path: &Path) -> Result<Map<String, Json>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Flavours by name, in them `figures`, `crates` and, where known, `symbols`.
pub fn to_json(report: &Report) -> Json {
    let flavours = report.flavours.iter().map(|(name, flavour)| {
        let figures: Map<String, Json> = flavour
            .figures
            .iter()
            .map(|figure| (figure.name.clone(), figure_to_json(figure)))
            .collect();
        let mut object = json!({"figures": figures, "crates": flavour.crates});
        if !flavour.symbols.is_empty() {
            object["symbols"] = json!(flavour.symbols);
        }
        (name.clone(), object)
    });
    Json::Object(flavours.collect())
}

fn figure_to_json(figure: &Figure) -> Json {
    let unit = UNITS.iter().find(|(_, unit)| *unit == figure.unit);
    let unit = unit.map_or("", |(name, _)| name);
    match figure.value {
        None => json!({"unit": unit}),
        Some(value) => json!({
            "unit": unit,
            "median": number(value.median),
            "low": number(value.low),
            "high": number(value.high),
            "samples": value.samples,
        }),
    }
}

/// Whole numbers as such, all others to three places: what a reviewer can read.
fn number(value: f64) -> Json {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => json!(value as i64),
        false => json!((value * 1000.0).round() / 1000.0),
    }
}

fn from_json(json: &Json) -> Result<Report, String> {
    let mut report = Report::default();
    for (name, flavour) in json.as_object().ok_or("not an object")? {
        let read = report.flavour(name);
        for (figure, json) in flavour["figures"].as_object().ok_or("no figures")? {
            read.figures.push(figure_from_json(figure, json)?);
        }
        read.crates = bytes_by_name(&flavour["crates"]);
        read.symbols = bytes_by_name(&flavour["symbols"]);
    }
    Ok(report)
}

fn figure_from_json(name: &str, json: &Json) -> Result<Figure, String> {
    let unit = UNITS.iter().find(|(unit, _)| json["unit"] == *unit);
    let (_, unit) = unit.ok_or_else(|| format!("{name}: unit {}", json["unit"]))?;
    let number = |field: &str| json[field].as_f64();
    let value = number("median").map(|median| Value {
        median,
        low: number("low").unwrap_or(median),
        high: number("high").unwrap_or(median),
        samples: json["samples"]
            .as_u64()
            .map_or(1, |samples| samples as usize),
    });
    Ok(Figure {
        name: name.to_owned(),
        unit: *unit,
        value,
    })
}

fn bytes_by_name(json: &Json) -> BTreeMap<String, u64> {
    json.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, bytes)| Some((name.clone(), bytes.as_u64()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Report {
        let mut report = Report::default();
        let flavour = report.flavour("default");
        flavour.extend([
            Figure::once("size/total", Unit::Bytes, Some(1_226_312.0)),
            Figure::new(
                "memory/idle: RSS",
                Unit::Kib,
                &[Some(3.0), Some(1.0), Some(2.5)],
            ),
            Figure::once("memory/idle: PSS", Unit::Kib, None),
        ]);
        flavour.crates.insert("h2".to_owned(), 100_000);
        report
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.json");
        assert_eq!(load(&path), Ok(Report::default()));
        update(&path, &measured()).unwrap();
        let mut read = load(&path).unwrap();
        let mut wrote = measured();
        for report in [&mut read, &mut wrote] {
            report
                .flavour("default")
                .figures
                .sort_by(|a, b| a.name.cmp(&b.name));
        }
        assert_eq!(read, wrote);
    }

    #[test]
    fn an_update_keeps_what_was_not_measured_and_takes_no_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.json");
        update(&path, &measured()).unwrap();
        let mut second = Report::default();
        second.flavour("default").extend([
            Figure::once("size/total", Unit::Bytes, Some(5.0)),
            Figure::once("speed/replay: rate", Unit::PerSecond, Some(5.0)),
        ]);
        update(&path, &second).unwrap();
        let mut read = load(&path).unwrap();
        let read = read.flavour("default");
        assert_eq!(read.median("size/total"), Some(5.0));
        assert_eq!(read.median("memory/idle: RSS"), Some(2.5));
        assert_eq!(read.figure("speed/replay: rate"), None);
        assert_eq!(read.crates["h2"], 100_000);
    }

    #[test]
    fn a_file_that_is_no_baseline_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.json");
        std::fs::write(&path, "[]").unwrap();
        assert!(load(&path).unwrap_err().contains("baseline.json"));
        assert!(update(&path, &measured()).is_err());
    }
}
