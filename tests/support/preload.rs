//! Libraries that stand between the agent and the C library.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `source`, of this project, into `library` for LD_PRELOAD.
pub fn compile(source: &str, library: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    // Another run of these tests may be using the one that is there.
    let made = library.with_extension(std::process::id().to_string());
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror"])
        .arg(&source)
        .args(["-ldl", "-o"])
        .arg(&made)
        .status()
        .expect("a C compiler, which the build needs anyway");
    assert!(status.success(), "{} does not compile", source.display());
    std::fs::rename(&made, library).expect("put the library in place");
    library.to_owned()
}
