//! What the tests take from PyPI: clients, servers and proxies that no one here wrote, in one
//! virtual environment, made once for a target folder.
#![allow(dead_code)] // each test file uses a part

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The packages, their versions and the hashes of their files.
const PACKAGES: &str = include_str!("python.txt");

/// The environment's Python.
pub fn python() -> PathBuf {
    program("python")
}

/// A program of the environment. Makes the environment when it is not there, or is one of
/// other packages; a machine without python3, its venv module or a package index fails the
/// test, since skipping it would hide the clients and servers that matter most.
pub fn program(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(target).expect("the target folder");
    let venv = target.join("python");
    let complete = venv.join("complete");
    let python = venv.join("bin/python");

    // Tests run side by side, and so do test executables.
    let guard = File::create(target.join("python.lock")).expect("the lock file");
    guard.lock().expect("the lock");
    let made_of = fs::read_to_string(&complete).unwrap_or_default();
    // A system's Python that was replaced leaves a link to nothing.
    if made_of != PACKAGES || !python.exists() {
        if venv.exists() {
            fs::remove_dir_all(&venv).expect("remove another environment");
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--only-binary=:all:"])
            .args(["--require-hashes", "--requirement"])
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/support/python.txt"
            )));
        fs::write(&complete, PACKAGES).expect("mark the environment complete");
    }
    venv.join("bin").join(name)
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
