//! A Python with packages from PyPI in it, made once for a target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that the tests were written with.
const GRPCIO: &str = "grpcio==1.85.1";

/// The `python` of a virtual environment with grpcio.
#[allow(dead_code)] // not every test is a client
pub fn python() -> PathBuf {
    python_with(&[GRPCIO])
}

/// The `python` of a virtual environment with these packages, each as
/// `name==version`. Makes the environment when it is not there; a machine
/// without python3, its venv module or a package index fails the test, since
/// skipping it would hide the clients and servers that matter most.
pub fn python_with(packages: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(target).expect("the target folder");
    let name = packages.join("-").replace("==", "-");
    let venv = target.join(&name);
    let complete = venv.join("complete");
    let python = venv.join("bin/python");

    // Tests run side by side, and so do test executables.
    let guard = File::create(target.join(name + ".lock")).expect("the lock file");
    guard.lock().expect("the lock");
    if complete.exists() {
        return python;
    }
    if venv.exists() {
        fs::remove_dir_all(&venv).expect("remove what an interrupted run left");
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--only-binary=:all:"])
        .args(packages));
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
