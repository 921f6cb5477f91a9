//! The agent as it is shipped: one that was built for debugging is larger than the
//! bounds on its memory allow for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::agent::Agent;

/// Not there for the examples.
const TESTS: Option<&str> = option_env!("CARGO_TARGET_TMPDIR");

/// The file that ECHOPOST_BIN names; else built, once a test process.
pub fn executable() -> &'static Path {
    if let Some(given) = Agent::given() {
        return Path::new(given);
    }
    static EXECUTABLE: LazyLock<PathBuf> = LazyLock::new(|| {
        let target = Path::new(TESTS.expect("built as an integration test")).with_file_name("");
        let status = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([
                "build",
                "--locked",
                "--quiet",
                "--release",
                "--bin",
                "echopost",
            ])
            .arg("--target-dir")
            .arg(&target)
            .status()
            .expect("run cargo");
        assert!(status.success(), "the agent does not build");
        target.join("release/echopost")
    });
    &EXECUTABLE
}
