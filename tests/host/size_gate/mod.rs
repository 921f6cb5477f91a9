//! The gate of size-report, with the real tool and real agents: an honest one
//! passes, a larger one and one that leaks do not.
//!
//! The agents are those of these tests, built without optimization, so that the
//! baseline and the budgets are the test's own.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))] // a test that needs /proc

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::json;
use support::agent::Agent;

/// Bytes added to the binary; more than the gate tolerates.
const ADDED: usize = 64 * 1024;

#[test]
fn an_agent_like_its_baseline_passes() {
    let stage = Stage::with(&FLIGHT);
    let (code, said) = stage.check(Agent::executable().as_ref(), "size,flight");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("The gate is open."), "{said}");
    assert!(said.contains("| 64 in flight: anonymous |"), "{said}");
}

#[test]
fn a_larger_binary_does_not_pass_and_is_named() {
    let stage = Stage::new();
    stage.update("size");
    let larger = stage.path("larger");
    let mut bytes = fs::read(Agent::executable()).expect("the agent's binary");
    bytes.resize(bytes.len() + ADDED, 0);
    fs::write(&larger, bytes).expect("a larger copy");
    let (code, said) = stage.check(&larger, "size");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("default, size/total"), "{said}");
    assert!(said.contains("has grown by 65,536 over"), "{said}");
}

#[test]
fn a_binary_over_its_budget_does_not_pass_without_a_baseline_either() {
    let stage = Stage::new();
    stage.write_baseline(&json!({"default": {"size/total": ADDED}}));
    let (code, said) = stage.check(Agent::executable().as_ref(), "size");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is over the budget of 65,536"), "{said}");
    assert!(said.contains("No baseline for "), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_leaking_agent_does_not_pass_and_is_named() {
    let stage = Stage::with(&FLIGHT);
    let (code, said) = stage.check(&stage.leaking_agent(), "flight");
    assert_eq!(code, 1, "{said}");
    let named = "default, memory/64 in flight: anonymous: ";
    assert!(said.contains(named), "{said}");
    assert!(said.contains("over the baseline of"), "{said}");
}

#[test]
fn an_agent_that_ends_before_it_is_measured_does_not_pass() {
    let stage = Stage::new();
    let script = stage.script(
        "ending",
        &format!("exec timeout 1 '{}' \"$@\"", Agent::executable()),
    );
    let (code, said) = stage.check(&script, "idle");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("an agent has ended"), "{said}");
}

/// The baseline of an honest agent, its records in flight measured once a process.
static FLIGHT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let stage = Stage::new();
    stage.update("size,flight");
    fs::read(stage.path("baseline.json")).expect("the baseline")
});

/// A folder with a baseline of its own.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// With no figures yet, and budgets that no agent reaches.
    fn new() -> Stage {
        let folder = support::temp_folder();
        let stage = Stage { folder };
        stage.write_baseline(&json!({"default": {"size/total": 1u64 << 40}}));
        stage
    }

    fn with(baseline: &[u8]) -> Stage {
        let stage = Stage::new();
        fs::write(stage.path("baseline.json"), baseline).expect("write the baseline");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_baseline(&self, budgets: &serde_json::Value) {
        let text = json!({ "budgets": budgets }).to_string();
        fs::write(self.path("baseline.json"), text).expect("write the baseline");
    }

    /// Makes the honest agent the baseline.
    fn update(&self, parts: &str) {
        let (code, said) = self.report(Agent::executable().as_ref(), parts, "--update");
        assert_eq!(code, 0, "{said}");
    }

    fn check(&self, agent: &Path, parts: &str) -> (i32, String) {
        self.report(agent, parts, "--check")
    }

    /// The exit code, and what was printed.
    fn report(&self, agent: &Path, parts: &str, what: &str) -> (i32, String) {
        let output = Command::new(tool())
            .args(["--quick", what, "--only", parts, "--agent"])
            .arg(agent)
            .arg("--baseline")
            .arg(self.path("baseline.json"))
            .output()
            .expect("run size-report");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        (output.status.code().unwrap_or(-1), said)
    }

    /// A script in the agent's place, which preloads the leak.
    fn leaking_agent(&self) -> PathBuf {
        let library = self.path("leak.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/size_gate/leak.c");
        let status = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Werror", source, "-ldl", "-o",
            ])
            .arg(&library)
            .status()
            .expect("a C compiler, which the build needs anyway");
        assert!(status.success(), "{source} does not compile");
        let line = format!(
            "LD_PRELOAD='{}' exec '{}' \"$@\"",
            library.display(),
            Agent::executable()
        );
        self.script("leaking", &line)
    }

    /// A script of one line in the agent's place.
    fn script(&self, name: &str, line: &str) -> PathBuf {
        let script = self.path(name);
        fs::write(&script, format!("#!/bin/sh\n{line}\n")).expect("write the script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("its mode");
        script
    }
}

/// size-report, built once a test process. Cargo tells a test the executables of
/// its own package alone.
fn tool() -> &'static Path {
    static TOOL: LazyLock<PathBuf> = LazyLock::new(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("");
        let status = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--locked", "--quiet", "--package", "size-report"])
            .arg("--target-dir")
            .arg(&target)
            .status()
            .expect("run cargo");
        assert!(status.success(), "size-report does not build");
        target.join("debug/size-report")
    });
    &TOOL
}
