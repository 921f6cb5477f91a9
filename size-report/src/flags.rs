//! The tool's own command line.

use std::path::PathBuf;

use crate::PARTS;
use crate::build::FLAVOURS;

pub const HELP: &str = "\
Builds the agent, measures it and prints a Markdown table, base beside head.

  --flavour A,B      what to build, or what the files given are: static (the file
                     that is published, the usual), default (dynamic, with TLS),
                     no-default-features
  --agent FILE       measure this file instead of building
  --base REV         build this commit, too, and measure it for the base column
  --base-agent FILE  measure this file for it
  --only A,B         only these parts: size, idle, standby, flight, large, start,
                     backlog, ingest, replay
  --quick            a backlog of 100,000 records instead of 1,000,000; shorter runs
  --symbols          list the largest crates and symbols: another build
  --check            exit 1 and say what grew or is over its budget
  --budgets FILE     other budgets than size-report/budgets.json

Exit code: 0, 1 when the check fails or nothing can be measured, 64 usage.";

/// How to measure, and what to do with the figures.
pub struct Flags {
    pub flavours: Vec<&'static str>,
    pub agent: Option<PathBuf>,
    pub base: Option<String>,
    pub base_agent: Option<PathBuf>,
    pub only: Vec<&'static str>,
    pub quick: bool,
    pub symbols: bool,
    pub check: bool,
    pub budgets: PathBuf,
}

/// Parses the arguments after the program's name; None when they ask for help.
pub fn parse(mut given: pico_args::Arguments) -> Result<Option<Flags>, String> {
    if given.contains("--help") {
        return Ok(None);
    }
    let text = |given: &mut pico_args::Arguments, name| {
        let value = given.opt_value_from_str::<_, String>(name);
        value.map_err(|error| error.to_string())
    };
    let path = |given: &mut pico_args::Arguments, name| {
        let value = given.opt_value_from_os_str(name, |path| Ok::<_, String>(path.into()));
        value.map_err(|error| error.to_string())
    };
    let parts = PARTS.map(|(part, _)| part);
    let budgets = concat!(env!("CARGO_MANIFEST_DIR"), "/budgets.json");
    let flags = Flags {
        flavours: known("--flavour", text(&mut given, "--flavour")?, &FLAVOURS)?
            .unwrap_or(vec![FLAVOURS[0]]),
        agent: path(&mut given, "--agent")?,
        base: text(&mut given, "--base")?,
        base_agent: path(&mut given, "--base-agent")?,
        only: known("--only", text(&mut given, "--only")?, &parts)?.unwrap_or(parts.to_vec()),
        quick: given.contains("--quick"),
        symbols: given.contains("--symbols"),
        check: given.contains("--check"),
        budgets: path(&mut given, "--budgets")?.unwrap_or_else(|| budgets.into()),
    };
    if flags.agent.is_some() && flags.flavours.len() > 1 {
        return Err("--agent is one file: name one --flavour".to_owned());
    }
    match given.finish().first() {
        Some(unknown) => Err(format!("unknown argument {}", unknown.display())),
        None => Ok(Some(flags)),
    }
}

fn known<'a>(
    flag: &str,
    names: Option<String>,
    all: &[&'a str],
) -> Result<Option<Vec<&'a str>>, String> {
    let find = |name: &str| {
        let found = all.iter().find(|known| **known == name).copied();
        found.ok_or_else(|| format!("{flag} {name}: not one of {}", all.join(", ")))
    };
    let found = names.map(|names| names.split(',').map(find).collect());
    found.transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        for (line, why) in [
            ("--only size,weight", "--only weight: not one of size, idle"),
            ("--flavour vanilla", "--flavour vanilla: not one of static"),
            ("--agent a --flavour static,default", "name one --flavour"),
            ("--fast", "unknown argument --fast"),
        ] {
            let given = line.split_whitespace().map(Into::into).collect();
            let parsed = parse(pico_args::Arguments::from_vec(given));
            let error = parsed.err().unwrap_or_default();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
