//! The size of an executable by section and by symbol, as binutils tell it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::flags::Flags;
use crate::table::{Figure, Figures, Unit};

/// The sections that are told apart.
const SECTIONS: [&str; 4] = [".text", ".rodata", ".data.rel.ro", ".rela.dyn"];
/// Crates, and symbols, that are listed.
const LARGEST: usize = 20;

/// The file's size, and what its sections take of it.
pub fn size(agent: &Path, _: &Flags) -> Result<Figures, String> {
    let file = std::fs::metadata(agent).map_err(|why| format!("{}: {why}", agent.display()))?;
    let total = file.len() as f64;
    let mut figures = vec![Figure::once("size/total", Unit::Bytes, Some(total))];
    let told = binutils("size", &["-A"], agent);
    let mut rest = told.is_some().then_some(total);
    for name in SECTIONS {
        let bytes = told.as_deref().map(|told| section(told, name));
        rest = rest.zip(bytes).map(|(rest, bytes)| rest - bytes);
        figures.push(Figure::once(format!("size/{name}"), Unit::Bytes, bytes));
    }
    figures.push(Figure::once("size/all else", Unit::Bytes, rest));
    Ok(figures)
}

/// Bytes by crate and by symbol, the instances of a generic one together; none of a
/// file that is stripped.
pub fn symbols(agent: &Path) -> Figures {
    by_symbol(&binutils("nm", &["-S", "-C", "--size-sort"], agent).unwrap_or_default())
}

/// The largest crates and symbols of these figures.
pub fn largest(figures: &[Figure]) -> Figures {
    let of = |part: &str| {
        let mut found = figures.to_vec();
        found.retain(|figure| figure.part() == part);
        found.sort_by_key(|figure| -figure.median().unwrap_or_default() as i64);
        found.truncate(LARGEST);
        found
    };
    [of("crate"), of("symbol")].concat()
}

/// None, and why on stderr, where the tool is missing or of another kind.
fn binutils(tool: &str, arguments: &[&str], file: &Path) -> Option<String> {
    match Command::new(tool).args(arguments).arg(file).output() {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        failed => {
            eprintln!("size-report: n/a without {tool} of binutils: {failed:?}");
            None
        }
    }
}

/// Lines of `size -A`: name, bytes, address. A section that is not there is empty.
fn section(told: &str, name: &str) -> f64 {
    let bytes = told.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    });
    bytes.unwrap_or_default()
}

/// Lines of `nm -S`: address, bytes, type, name. What is only zeros takes no room.
fn by_symbol(told: &str) -> Figures {
    let mut sums = BTreeMap::<String, f64>::new();
    for line in told.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        if let [_, bytes, kind, name] = *words
            && !matches!(kind, "b" | "B")
            && let Ok(bytes) = u64::from_str_radix(bytes, 16)
        {
            *sums.entry(format!("symbol/{name}")).or_default() += bytes as f64;
            let its_crate = format!("crate/{}", crate_of(name));
            *sums.entry(its_crate).or_default() += bytes as f64;
        }
    }
    let figure = |(name, bytes)| Figure::once(name, Unit::Bytes, Some(bytes));
    sums.into_iter().map(figure).collect()
}

/// The first part of a symbol's path; C code has none.
fn crate_of(symbol: &str) -> &str {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    match symbol.split_once("::") {
        Some((first, _)) => first.rsplit(|c| !is_name(c)).next().unwrap_or_default(),
        None => "C",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_binutils_are_read() {
        let told = "a.out  :\nsection  size  addr\n.text   1234   4096\n.text.hot  9  9\n";
        assert_eq!(section(told, ".text"), 1234.0);
        assert_eq!(section(told, ".rodata"), 0.0);
        let figures = by_symbol(
            "0000000000001000 000000000000000a t <&mut h2::Codec as core::fmt::Debug>::fmt\n\
             0000000000001010 0000000000000010 r h2::TABLE\n\
             0000000000001010 0000000000000002 t <dyn core::any::Any>::is\n\
             0000000000001010 0000000000000003 t core::ptr::drop_in_place<tonic::Status>\n\
             0000000000001020 0000000000000001 T _start\n\
             0000000000001030 0000000000001000 b h2::ZEROS\nU free\n",
        );
        let largest = largest(&figures);
        let first = [("crate/h2", 26.0), ("crate/core", 5.0), ("crate/C", 1.0)];
        let expected = first.map(|(name, bytes)| Figure::once(name, Unit::Bytes, Some(bytes)));
        assert_eq!(largest[..3], expected);
        assert_eq!(largest[3].name, "symbol/h2::TABLE");
    }
}
