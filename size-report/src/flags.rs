//! The tool's own command line.

use std::path::PathBuf;

use crate::flavour::{DEFAULT, MINIMAL};

pub const HELP: &str = "\
Builds both flavours of the agent, measures the real binaries and prints one
Markdown table, base beside head.

  --quick            fewer rows, shorter runs: under two minutes beside the build
  --only A,B         only these parts: size, idle, standby, flight, backlog,
                     large, start, ingest, replay
  --agent PATH       measure this binary instead of building
  --base-agent PATH  measure this binary for the base column, not baseline.json's
  --flavour NAME     what the binaries given are: default (with TLS, the usual)
                     or no-default-features; without --agent: build only this
  --baseline FILE    another baseline than size-report/baseline.json
  --json             print JSON instead of the table
  --check            exit 1 and say what grew or is over its budget
  --update           write what was measured into the baseline

Exit code: 0, 1 when the check fails or nothing can be measured, 64 usage.";

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Size,
    Idle,
    Standby,
    Flight,
    Backlog,
    Large,
    Start,
    Ingest,
    Replay,
}

const PARTS: [(&str, Part); 9] = [
    ("size", Part::Size),
    ("idle", Part::Idle),
    ("standby", Part::Standby),
    ("flight", Part::Flight),
    ("backlog", Part::Backlog),
    ("large", Part::Large),
    ("start", Part::Start),
    ("ingest", Part::Ingest),
    ("replay", Part::Replay),
];

/// What the command line asks for.
pub enum Asked {
    Measure(Flags),
    Help,
}

/// How to measure, and what to do with the figures.
pub struct Flags {
    pub quick: bool,
    pub json: bool,
    pub check: bool,
    pub update: bool,
    pub agent: Option<PathBuf>,
    pub base_agent: Option<PathBuf>,
    pub flavour: Option<&'static str>,
    pub baseline: PathBuf,
    /// None: all.
    only: Option<Vec<Part>>,
}

impl Flags {
    pub fn wants(&self, part: Part) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&part))
    }
}

/// Parses the arguments after the program's name.
///
/// # Errors
/// What is wrong with which flag.
pub fn parse(mut given: pico_args::Arguments) -> Result<Asked, String> {
    if given.contains("--help") {
        return Ok(Asked::Help);
    }
    let baseline = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");
    let flags = Flags {
        quick: given.contains("--quick"),
        json: given.contains("--json"),
        check: given.contains("--check"),
        update: given.contains("--update"),
        agent: path(&mut given, "--agent")?,
        base_agent: path(&mut given, "--base-agent")?,
        baseline: path(&mut given, "--baseline")?.unwrap_or_else(|| baseline.into()),
        flavour: value(&mut given, "--flavour")?
            .map(|name| flavour(&name))
            .transpose()?,
        only: value(&mut given, "--only")?
            .map(|names| names.split(',').map(part).collect())
            .transpose()?,
    };
    match given.finish().first() {
        Some(unknown) => Err(format!("unknown argument {}", unknown.display())),
        None => Ok(Asked::Measure(flags)),
    }
}

fn value(given: &mut pico_args::Arguments, name: &'static str) -> Result<Option<String>, String> {
    given
        .opt_value_from_str(name)
        .map_err(|error| error.to_string())
}

fn path(given: &mut pico_args::Arguments, name: &'static str) -> Result<Option<PathBuf>, String> {
    given
        .opt_value_from_os_str(name, |path| Ok::<_, std::convert::Infallible>(path.into()))
        .map_err(|error| error.to_string())
}

fn flavour(name: &str) -> Result<&'static str, String> {
    [DEFAULT, MINIMAL]
        .into_iter()
        .find(|known| *known == name)
        .ok_or(format!("--flavour {name}: not {DEFAULT} or {MINIMAL}"))
}

fn part(name: &str) -> Result<Part, String> {
    PARTS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, part)| *part)
        .ok_or(format!("--only {name}: there is no such part"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Asked, String> {
        let args = line.split_whitespace().map(Into::into).collect();
        parse(pico_args::Arguments::from_vec(args))
    }

    #[test]
    fn only_names_parts_and_all_are_wanted_without_it() {
        let wants = |line: &str, part| match parsed(line) {
            Ok(Asked::Measure(flags)) => flags.wants(part),
            _ => panic!("{line}"),
        };
        assert!(wants("", Part::Large));
        assert!(wants("--only size,idle", Part::Idle));
        assert!(!wants("--only size,idle", Part::Large));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            ("--only size,weight", "--only weight: there is no such part"),
            (
                "--flavour vanilla",
                "--flavour vanilla: not default or no-default-features",
            ),
            ("--fast", "unknown argument --fast"),
        ];
        for (line, why) in table {
            assert_eq!(parsed(line).err().as_deref(), Some(why), "{line}");
        }
    }
}
