//! The flavours of the agent, and how they are built: by the user's own cargo,
//! with the release profile as it ships.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The default features: with TLS.
pub const DEFAULT: &str = "default";
/// Without any.
pub const MINIMAL: &str = "no-default-features";

/// One executable to be measured.
pub struct Build {
    pub flavour: &'static str,
    /// As it ships: stripped.
    pub agent: PathBuf,
    /// The same code with its symbols, where there is one.
    pub symbols: Option<PathBuf>,
}

impl Build {
    /// A binary that somebody else built.
    pub fn given(flavour: Option<&'static str>, agent: &Path) -> Build {
        Build {
            flavour: flavour.unwrap_or(DEFAULT),
            agent: agent.to_owned(),
            symbols: None,
        }
    }
}

/// Builds the flavour asked for, or both, below `target/size-report`: there they
/// disturb no other build and find their dependencies again. With symbols only
/// where they are wanted: that is another link.
///
/// # Errors
/// What could not be built.
pub fn build(only: Option<&str>, symbols: bool) -> Result<Vec<Build>, String> {
    [DEFAULT, MINIMAL]
        .into_iter()
        .filter(|flavour| only.is_none_or(|only| only == *flavour))
        .map(|flavour| {
            let agent = link(flavour, "stripped", "build", &[])?;
            // What the agent depends on is compiled already.
            let strip = ["--", "-C", "strip=none"];
            let link = || link(flavour, "symbols", "rustc", &strip);
            let symbols = symbols.then(link).transpose()?;
            Ok(Build {
                flavour,
                agent,
                symbols,
            })
        })
        .collect()
}

fn link(flavour: &str, kind: &str, verb: &str, last: &[&str]) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = root.join("target/size-report");
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(&root)
        .arg(verb)
        .args([
            "--release",
            "--locked",
            "--package",
            "echopost",
            "--bin",
            "echopost",
        ])
        .arg("--target-dir")
        .arg(&target);
    if flavour == MINIMAL {
        command.arg("--no-default-features");
    }
    // Stdout is for the table.
    let status = command
        .args(last)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if !status.success() {
        return Err(format!("{command:?}: {status}"));
    }
    // The next build puts another executable in this place.
    let kept = target.join(format!("echopost-{flavour}-{kind}"));
    let made = kept.with_extension(std::process::id().to_string());
    // Renamed: another run of this tool may be running the one that is there.
    std::fs::copy(target.join("release/echopost"), &made)
        .and_then(|_| std::fs::rename(&made, &kept))
        .map_err(|error| format!("{}: {error}", kept.display()))?;
    Ok(kept)
}
