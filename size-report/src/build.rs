//! The kinds of file that are measured, and how they are built: as they ship, from
//! this checkout or from another commit.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The file that is published; the dynamic one with TLS; the smallest one.
pub const FLAVOURS: [&str; 3] = ["static", "default", "no-default-features"];

/// Where the file to be measured comes from.
pub enum Source {
    /// It was built already.
    File(PathBuf),
    /// It is built from this checkout.
    Checkout(PathBuf),
}

impl Source {
    /// The commit `rev`, checked out below `target`; what was built there for another
    /// one is used again.
    pub fn base(rev: &str) -> Result<Source, String> {
        let root = root();
        let checkout = root.join("target/size-report/base");
        // HEAD is another one in there.
        let rev = format!("{rev}^{{commit}}");
        let commit = run(git(&root).args(["rev-parse", "--verify", &rev]))?;
        match checkout.join(".git").exists() {
            true => run(git(&checkout).args(["checkout", "--force", "--detach", commit.trim()]))?,
            // Twice forced, as `cargo clean` takes it away without git's knowledge.
            false => run(git(&root)
                .args(["worktree", "add", "--force", "--force", "--detach"])
                .arg(&checkout)
                .arg(commit.trim()))?,
        };
        Ok(Source::Checkout(checkout))
    }

    /// The file as it ships, or the same code with its symbols. A file that was given
    /// has them or not.
    pub fn file(&self, flavour: &str, symbols: bool) -> Result<PathBuf, String> {
        match self {
            Source::File(file) => Ok(file.clone()),
            Source::Checkout(checkout) => build(checkout, flavour, symbols),
        }
    }
}

/// The target and flavour of `file`, by which its budgets are found.
pub fn kind(file: &Path, flavour: &str) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    // A dynamic file names glibc's versions of symbols, a static one its tunables.
    let is_glibc = bytes.windows(6).any(|window| window == b"GLIBC_");
    let system = match (std::env::consts::OS, is_glibc) {
        ("linux", true) => "unknown-linux-gnu",
        ("linux", false) => "unknown-linux-musl",
        ("macos", _) => "apple-darwin",
        (other, _) => other,
    };
    Ok(format!("{}-{system}, {flavour}", std::env::consts::ARCH))
}

fn build(checkout: &Path, flavour: &str, symbols: bool) -> Result<PathBuf, String> {
    let target = checkout.join("target/size-report");
    let kept = target.join(flavour.to_owned() + if symbols { "-symbols" } else { "" });
    let agent = kept.join("echopost");
    let failed = |error| format!("{}: {error}", agent.display());
    std::fs::create_dir_all(&kept).map_err(failed)?;
    let mut command = match flavour {
        "static" => Command::new(checkout.join(".github/scripts/static")),
        _ => Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into())),
    };
    match flavour {
        "static" => command.arg(&kept),
        _ => command
            .args(["build", "--locked", "--release", "--bin", "echopost"])
            .arg("--target-dir")
            .arg(&target),
    };
    if flavour == "no-default-features" {
        command.arg("--no-default-features");
    }
    if symbols {
        command.env("CARGO_PROFILE_RELEASE_STRIP", "false");
    }
    run(command.current_dir(checkout))?;
    if flavour != "static" {
        // The next build puts another executable in this place.
        std::fs::copy(target.join("release/echopost"), &agent).map_err(failed)?;
    }
    Ok(agent)
}

/// The checkout that this tool is a part of.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

fn git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder);
    git
}

/// What it prints; that of the tool itself is the table.
fn run(command: &mut Command) -> Result<String, String> {
    match command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
    {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(format!("{command:?}: {}", output.status)),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
