//! The size of an executable, by section. Read from the file itself: no binutils.

use std::path::Path;

use object::{Object, ObjectSection, SectionFlags, SectionKind};

use crate::figures::{Figure, Unit};

/// The kinds of sections that are told apart, in the table's order.
const KINDS: [&str; 6] = [
    ".text",
    ".rodata",
    ".data",
    ".eh_frame",
    "relocations",
    "other sections",
];

/// The file's size, and what its sections take of it.
///
/// # Errors
/// The file cannot be read, or is no executable of this kind of system.
pub fn sizes(path: &Path) -> Result<Vec<Figure>, String> {
    let bytes = read(path)?;
    let file = parse(path, &bytes)?;
    let mut sums = [0; KINDS.len()];
    for section in file.sections() {
        if section.kind() == SectionKind::UninitializedData || !is_in_file(&section) {
            continue;
        }
        let kind = kind_of(section.name().unwrap_or_default());
        let at = KINDS
            .iter()
            .position(|name| *name == kind)
            .unwrap_or(KINDS.len() - 1);
        sums[at] += section.size();
    }
    let total = bytes.len() as u64;
    // Headers, and what aligns the segments to pages.
    let rest = total.saturating_sub(sums.iter().sum());
    let figure = |name: &str, bytes: u64| {
        Figure::once(format!("size/{name}"), Unit::Bytes, Some(bytes as f64))
    };
    Ok([figure("total", total)]
        .into_iter()
        .chain(KINDS.iter().zip(sums).map(|(name, sum)| figure(name, sum)))
        .chain([figure("headers and padding", rest)])
        .collect())
}

/// # Errors
/// Names the file.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// # Errors
/// Names the file.
pub fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<object::File<'a>, String> {
    object::File::parse(bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// .tbss and the like have a size, but nothing in the file.
fn is_in_file<'a>(section: &impl ObjectSection<'a>) -> bool {
    match section.flags() {
        SectionFlags::Elf { .. } => section.file_range().is_some_and(|(_, size)| size > 0),
        _ => true,
    }
}

/// The names of ELF, and of Mach-O beside them.
fn kind_of(section: &str) -> &'static str {
    match section {
        ".text" | "__text" => ".text",
        ".rodata" | "__const" | "__cstring" | "__literal16" => ".rodata",
        ".data" | ".data.rel.ro" | ".got" | ".got.plt" | ".tdata" | ".init_array"
        | ".fini_array" | "__data" | "__got" => ".data",
        ".eh_frame" | ".eh_frame_hdr" | ".gcc_except_table" | "__eh_frame" | "__unwind_info"
        | "__gcc_except_tab" => ".eh_frame",
        name if name.starts_with(".rel") => "relocations",
        _ => "other sections",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_this_very_test_add_up() {
        let this = std::env::current_exe().unwrap();
        let figures = sizes(&this).unwrap();
        let sum: f64 = figures.iter().skip(1).filter_map(Figure::median).sum();
        assert_eq!(figures[0].name, "size/total");
        assert_eq!(figures[0].median(), Some(sum));
        assert!(figures[1].median() > Some(100_000.0), "{:?}", figures[1]);
    }

    #[test]
    fn every_section_has_a_kind_that_is_printed() {
        let table = [
            (".text", ".text"),
            (".data.rel.ro", ".data"),
            (".gcc_except_table", ".eh_frame"),
            (".rela.dyn", "relocations"),
            (".relr.dyn", "relocations"),
            (".dynstr", "other sections"),
        ];
        for (section, kind) in table {
            assert_eq!(kind_of(section), kind, "{section}");
            assert!(KINDS.contains(&kind));
        }
    }
}
