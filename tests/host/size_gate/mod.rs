//! The gate of size-report, with the real tool and real agents: one like its base
//! passes; a larger one, one that leaks and one that ends do not.
//!
//! The agents may be built without optimization, so that the budgets are the test's own.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))] // a test that needs /proc

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};
use support::agent::Agent;

/// Bytes added to the file; more than the gate tolerates.
const ADDED: usize = 64 * 1024;
/// A leak comes by LD_PRELOAD, of which a static file takes no notice.
const DYNAMIC: &str = env!("CARGO_BIN_EXE_echopost");

#[test]
fn an_agent_like_its_base_passes() {
    let agent = Path::new(Agent::executable());
    let (code, said) = check(agent, Some(agent), "size,flight", &json!({}));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("The gate is open."), "{said}");
    assert!(said.contains("| flight/anonymous |"), "{said}");
}

#[test]
fn a_larger_file_does_not_pass_and_is_named() {
    let folder = support::temp_folder();
    let larger = folder.path().join("larger");
    let mut bytes = fs::read(Agent::executable()).expect("the agent's file");
    bytes.resize(bytes.len() + ADDED, 0);
    fs::write(&larger, bytes).expect("a larger copy");
    let (code, said) = check(
        &larger,
        Some(Agent::executable().as_ref()),
        "size",
        &json!({}),
    );
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("static, size/total: "), "{said}");
    assert!(said.contains("65,536 over the base of "), "{said}");
    #[cfg(target_os = "linux")] // as binutils tell it
    assert!(said.contains("grown: size/all else +65,536"), "{said}");
}

#[test]
fn a_file_over_its_budget_does_not_pass_without_a_base_either() {
    let budgets = json!({"any": {"size/total": ADDED}});
    let (code, said) = check(Agent::executable().as_ref(), None, "size", &budgets);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("over the budget of 65,536"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_leaking_agent_does_not_pass_and_is_named() {
    let folder = support::temp_folder();
    let library = folder.path().join("leak.so");
    let library = support::preload::compile("tests/host/size_gate/leak.c", &library);
    let line = format!("LD_PRELOAD='{}' exec '{DYNAMIC}' \"$@\"", library.display());
    let leaking = script(folder.path(), &line);
    let (code, said) = check(&leaking, Some(DYNAMIC.as_ref()), "flight", &json!({}));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("static, flight/anonymous: "), "{said}");
    assert!(said.contains(" over the base of "), "{said}");
}

#[test]
fn an_agent_that_ends_before_it_is_measured_does_not_pass() {
    let folder = support::temp_folder();
    let line = format!("exec timeout 1 '{}' \"$@\"", Agent::executable());
    let ending = script(folder.path(), &line);
    let (code, said) = check(&ending, None, "idle", &json!({}));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("an agent has ended"), "{said}");
}

/// The tool's exit code, and what it printed.
fn check(agent: &Path, base: Option<&Path>, parts: &str, budgets: &Value) -> (i32, String) {
    let folder = support::temp_folder();
    let file = folder.path().join("budgets.json");
    fs::write(&file, budgets.to_string()).expect("write the budgets");
    let mut command = Command::new(tool());
    command.args(["--quick", "--check", "--only", parts, "--agent"]);
    command.arg(agent).arg("--budgets").arg(&file);
    if let Some(base) = base {
        command.arg("--base-agent").arg(base);
    }
    let output = command.output().expect("run size-report");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.code().unwrap_or(-1), said)
}

/// A script of one line in the agent's place.
fn script(folder: &Path, line: &str) -> PathBuf {
    let script = folder.join("agent");
    fs::write(&script, format!("#!/bin/sh\n{line}\n")).expect("write the script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("its mode");
    script
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
