//! A Python with grpcio in it, made once for a target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that the tests were written with.
const GRPCIO: &str = "grpcio==1.85.1";

/// The virtual environment's `python`. Makes the environment when it is not
/// there; a machine without python3, its venv module or a package index fails
/// the test, since skipping it would hide the one client that matters most.
pub fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(target).expect("the target folder");
    let venv = target.join(GRPCIO.replace("==", "-"));
    let complete = venv.join("complete");
    let python = venv.join("bin/python");

    // Tests run side by side, and so do test executables.
    let guard = File::create(target.join("grpcio.lock")).expect("the lock file");
    guard.lock().expect("the lock");
    if complete.exists() {
        return python;
    }
    if venv.exists() {
        fs::remove_dir_all(&venv).expect("remove what an interrupted run left");
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(Command::new(&python).args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
        GRPCIO,
    ]));
    File::create(&complete).expect("mark the environment complete");
    python
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
