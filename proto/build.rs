//! Compiles the two `.proto` files without a `protoc` on the machine, and leaves
//! out of the executable what it never uses.

use std::path::{Path, PathBuf};

use protox::prost_reflect::prost_types::field_descriptor_proto::Type;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=VERSION");
    compile_protos()?;
    discard_unwind_tables()
}

fn compile_protos() -> Result<()> {
    let mut files = protox::compile(["logagent.proto", "record.proto"], ["proto"])?;
    // `string` and `bytes` are the same on the wire. As `bytes` the payload is
    // a slice of the request's own buffer instead of a second copy of up to
    // 4 MiB; the service checks that it is UTF-8.
    for message in files
        .file
        .iter_mut()
        .flat_map(|file| &mut file.message_type)
    {
        for field in &mut message.field {
            if field.name() == "json_data" {
                field.set_type(Type::Bytes);
            }
        }
    }
    tonic_prost_build::configure()
        .bytes(".")
        .build_client(false)
        .codec_path("crate::ingest::codec::LogCodec")
        .compile_fds(files)?;
    Ok(())
}

/// Tables for unwinding the stack are a seventh of the release: with
/// panic=abort nothing unwinds, and a stripped executable has no names for a
/// backtrace. The standard library brings them compiled, so only the linker can
/// leave them out; the script adds to its own (INSERT: ld's and lld's manuals).
fn discard_unwind_tables() -> Result<()> {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("PROFILE", "release") {
        return Ok(());
    }
    let script = PathBuf::from(std::env::var("OUT_DIR")?).join("discard.ld");
    write_script(&script)?;
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    Ok(())
}

fn write_script(path: &Path) -> Result<()> {
    let script = "\
SECTIONS {
  /DISCARD/ : { *(.eh_frame) *(.eh_frame_hdr) *(.gcc_except_table .gcc_except_table.*) }
} INSERT AFTER .text;
";
    Ok(std::fs::write(path, script)?)
}
