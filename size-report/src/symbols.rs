//! What takes the room: symbols, and the crates they come from.

use std::path::Path;

use object::{Object, ObjectSymbol, SymbolKind};

use crate::elf;
use crate::figures::Flavour;

/// Adds up the sizes of all code and data in the file's symbol table. Without
/// one (or with one that tells no sizes, as in Mach-O) nothing is added.
///
/// # Errors
/// The file cannot be read.
pub fn count(path: &Path, measured: &mut Flavour) -> Result<(), String> {
    let bytes = elf::read(path)?;
    for symbol in elf::parse(path, &bytes)?.symbols() {
        let counts = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Data);
        if !counts || symbol.size() == 0 || !symbol.is_definition() {
            continue;
        }
        let mangled = symbol.name().unwrap_or_default();
        let name = readable(mangled);
        *measured.crates.entry(origin(mangled, &name)).or_default() += symbol.size();
        *measured.symbols.entry(name).or_default() += symbol.size();
    }
    Ok(())
}

/// Without the hash, so that the instances of a generic function are one.
fn readable(mangled: &str) -> String {
    // The linker's suffix of what it has split off.
    let mangled = mangled.split(".llvm.").next().unwrap_or(mangled);
    match rustc_demangle::try_demangle(mangled) {
        Ok(name) => format!("{name:#}"),
        Err(_) => mangled.to_owned(),
    }
}

/// The crate that a symbol belongs to; for C code, the library.
fn origin(mangled: &str, name: &str) -> String {
    let crate_name = match rustc_demangle::try_demangle(mangled) {
        Ok(_) => of_path(name),
        Err(_) => of_c(mangled),
    };
    crate_name.to_owned()
}

/// The first crate in a path, of the type rather than of the trait, and of what
/// is dropped rather than of `core`.
fn of_path(name: &str) -> &str {
    let name = name
        .strip_prefix("core::ptr::drop_in_place<")
        .or_else(|| name.strip_prefix("core::ptr::drop_in_place::<"))
        .unwrap_or(name);
    let start = name
        .find(|c: char| c.is_alphanumeric() || c == '_')
        .unwrap_or(0);
    let name = &name[start..];
    for word in ["mut ", "const ", "dyn ", "impl "] {
        if let Some(rest) = name.strip_prefix(word) {
            return of_path(rest);
        }
    }
    let end = name
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(name.len());
    let (word, rest) = name.split_at(end);
    match rest.strip_prefix(" as ") {
        // A type without a path: `<u8 as tonic::Trait>::call`.
        Some(of_trait) => of_path(of_trait),
        None if rest.starts_with("::") => word,
        None => match rest.split_once(" as ") {
            Some((_, of_trait)) => of_path(of_trait),
            None => "core",
        },
    }
}

/// C and assembly, by the prefixes of the libraries that the agent links.
fn of_c(symbol: &str) -> &'static str {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| symbol.starts_with(prefix));
    let is_lmdb = begins(&["mdb_", "midl_", "mdbx_"]);
    let is_builtin = begins(&[
        "__udiv", "__umod", "__div", "__mod", "__mul", "__aeabi", "__float", "__fix",
    ]) || matches!(
        symbol,
        "memcpy" | "memmove" | "memset" | "memcmp" | "bcmp" | "strlen"
    );
    if is_lmdb {
        "lmdb"
    } else if begins(&["ring_core", "_ring_core"]) {
        "ring"
    } else if begins(&[
        "__rust", "rust_", "__rdl", "anon.", ".Lanon", "str.", "vtable.",
    ]) {
        "std"
    } else if is_builtin {
        "compiler_builtins"
    } else {
        "C"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_belong_to_the_crate_of_their_type() {
        let table = [
            ("echopost::store::writer::run", "echopost"),
            (
                "<hyper::body::Incoming as http_body::Body>::poll_frame",
                "hyper",
            ),
            ("<&mut h2::Codec<T> as core::fmt::Debug>::fmt", "h2"),
            ("core::ptr::drop_in_place<tonic::status::Status>", "tonic"),
            ("core::ptr::drop_in_place<alloc::vec::Vec<u8>>", "alloc"),
            ("core::ptr::drop_in_place::<[prost::Bytes]>", "prost"),
            ("<u8 as alloc::slice::Concat>::concat", "alloc"),
            ("<[u8] as bytes::Buf>::chunk", "bytes"),
            ("<dyn core::any::Any>::is", "core"),
            ("<(A, B) as tokio::Trait>::f", "tokio"),
        ];
        for (name, crate_name) in table {
            assert_eq!(of_path(name), crate_name, "{name}");
        }
    }

    #[test]
    fn c_code_belongs_to_its_library() {
        let table = [
            ("mdb_cursor_put", "lmdb"),
            ("ring_core_0_17_14__sha256_block_data_order", "ring"),
            ("__rust_alloc", "std"),
            ("__udivti3", "compiler_builtins"),
            ("_start", "C"),
        ];
        for (symbol, library) in table {
            assert_eq!(origin(symbol, symbol), library, "{symbol}");
        }
    }

    #[test]
    fn instances_are_one_under_both_manglings() {
        assert_eq!(
            readable("_ZN4core3ptr5write17h0123456789abcdefE"),
            "core::ptr::write"
        );
        let v0 = readable("_RINvNtC3std3mem8align_ofjE");
        assert_eq!(v0, "std::mem::align_of::<usize>");
        assert_eq!(origin("_RINvNtC3std3mem8align_ofjE", &v0), "std");
    }
}
