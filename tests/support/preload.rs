//! Libraries that stand between the agent and the C library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Compiles `source`, of this project, into `library` for LD_PRELOAD.
pub fn compile(source: &str, library: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    // Another run of these tests may be using the one that is there, and another test of
    // this one be making it.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    let made = library.with_extension(format!("{}-{number}", std::process::id()));
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
