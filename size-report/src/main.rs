//! EchoPost's one measuring tool: size, memory and speed of the real binary, base
//! beside head, and the gate that keeps them (README.md beside this crate).

mod build;
mod flags;
mod gate;
mod harness;
mod measure;
mod size;
mod speed;
#[path = "../../tests/support/mod.rs"]
mod support;
mod table;

use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use build::Source;
use flags::Flags;
use table::Figures;

type Measuring = fn(&Path, &Flags) -> Result<Figures, String>;

/// What is measured, in the table's order.
const PARTS: [(&str, Measuring); 9] = [
    ("size", size::size),
    ("idle", measure::idle),
    ("standby", measure::standby),
    ("flight", measure::flight),
    ("large", measure::large),
    ("start", measure::start),
    ("backlog", measure::backlog),
    ("ingest", speed::ingest),
    ("replay", speed::replay),
];

fn main() -> ExitCode {
    let flags = match flags::parse(pico_args::Arguments::from_env()) {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            println!("{}", flags::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("size-report: {why}");
            return ExitCode::from(64); // EX_USAGE of sysexits.h
        }
    };
    end_agents_with_a_panic();
    match report(&flags) {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(why) => {
            eprintln!("size-report: {why}");
            ExitCode::FAILURE
        }
    }
}

/// In a release build a panic aborts: no agent is dropped, and each would live on.
fn end_agents_with_a_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        let parent = std::process::id().to_string();
        // An error means that there is no pkill, or no agent.
        let mut pkill = Command::new("pkill");
        let _ = pkill.args(["-KILL", "-P", &parent]).status();
    }));
}

/// Measures, prints, compares; false when the gate is shut.
fn report(flags: &Flags) -> Result<bool, String> {
    let head = match &flags.agent {
        Some(file) => Source::File(file.clone()),
        None => Source::Checkout(build::root()),
    };
    let base = match (&flags.base, &flags.base_agent) {
        (Some(rev), _) => Some(Source::base(rev)?),
        (None, Some(file)) => Some(Source::File(file.clone())),
        (None, None) => None,
    };
    let mut faults = 0;
    for flavour in &flags.flavours {
        faults += compare(flavour, &head, base.as_ref(), flags)?;
    }
    if flags.check {
        let verdict = if faults == 0 { "open" } else { "shut" };
        print(&format!("\nThe gate is {verdict}.\n"));
    }
    Ok(faults == 0)
}

/// One kind of file, base beside head; how many figures are too large.
fn compare(
    flavour: &str,
    head: &Source,
    base: Option<&Source>,
    flags: &Flags,
) -> Result<usize, String> {
    let file = head.file(flavour, false)?;
    let base_file = base.map(|base| base.file(flavour, false)).transpose()?;
    let kind = build::kind(&file, flavour)?;
    let budgets = gate::budgets(&flags.budgets, &kind)?;
    let mut figures = measure(&file, flags, |_| true)?;
    let mut base_figures = match &base_file {
        Some(file) => measure(file, flags, |_| true)?,
        None => Figures::new(),
    };
    let mut faults = Vec::new();
    if flags.check {
        faults = gate::faults(&figures, &base_figures, &budgets);
        // What the kernel maps along is more at times; a size comes out the same.
        let has_fault = |part: &str| faults.iter().any(|fault| fault.starts_with(part));
        let again = measure(&file, flags, |part| part != "size" && has_fault(part))?;
        gate::keep_smaller(&mut figures, &again);
        faults = gate::faults(&figures, &base_figures, &budgets);
    }
    print("\n");
    print(&table::markdown(&kind, &figures, &base_figures, &budgets));
    let is_larger = base.is_some() && faults.iter().any(|fault| fault.starts_with("size/"));
    if flags.symbols || is_larger {
        figures.extend(size::symbols(&head.file(flavour, true)?));
        if let Some(base) = base {
            base_figures.extend(size::symbols(&base.file(flavour, true)?));
        }
    }
    if flags.symbols {
        let largest = size::largest(&figures);
        print("\n");
        print(&table::markdown(&kind, &largest, &base_figures, &budgets));
    }
    for fault in &faults {
        print(&format!("\n- **too large**: {flavour}, {fault}"));
    }
    if is_larger {
        let grown = gate::grown(&figures, &base_figures);
        print(&format!("\n- what has grown: {}", grown.join("; ")));
    }
    print("\n");
    Ok(faults.len())
}

/// The parts that the flags ask for and `wanted` lets through.
fn measure(file: &Path, flags: &Flags, wanted: impl Fn(&str) -> bool) -> Result<Figures, String> {
    let mut figures = Figures::new();
    for (part, measuring) in PARTS {
        if flags.only.contains(&part) && wanted(part) {
            eprintln!("size-report: {}, {part} …", file.display());
            figures.extend(measuring(file, flags)?);
        }
    }
    Ok(figures)
}

/// A closed stdout takes nothing from the verdict.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
