//! EchoPost's one measuring tool: size, memory and speed of the real binary,
//! base beside head, and the gate that keeps them (README.md beside this crate).

mod baseline;
mod budget;
mod elf;
mod figures;
mod flags;
mod flavour;
mod floor;
mod gate;
mod living;
mod memory;
mod proc;
mod scene;
mod speed;
mod start;
#[path = "../../tests/support/mod.rs"]
mod support;
mod symbols;
mod table;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use budget::Budgets;
use figures::{Figure, Report};
use flags::{Asked, Flags, Part};
use flavour::Build;

type Measuring = fn(&Path, &Flags) -> Result<Vec<Figure>, String>;

/// What is measured of a running agent, in the table's order.
const PARTS: [(Part, Measuring); 8] = [
    (Part::Idle, memory::idle),
    (Part::Standby, memory::standby),
    (Part::Flight, memory::flight),
    (Part::Large, memory::large),
    (Part::Start, start::empty),
    (Part::Backlog, memory::backlog),
    (Part::Ingest, speed::ingest),
    (Part::Replay, speed::replay),
];

/// EX_USAGE of sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let flags = match flags::parse(pico_args::Arguments::from_env()) {
        Ok(Asked::Measure(flags)) => flags,
        Ok(Asked::Help) => {
            println!("{}", flags::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("size-report: {why}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    living::end_with_a_panic();
    match report(&flags) {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(why) => {
            eprintln!("size-report: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints, compares; false when the gate is shut.
fn report(flags: &Flags) -> Result<bool, String> {
    let builds = match &flags.agent {
        Some(agent) => vec![Build::given(flags.flavour, agent)],
        None => flavour::build(flags.flavour, flags.wants(Part::Size))?,
    };
    let mut head = measure(&builds, flags)?;
    let base = match &flags.base_agent {
        Some(agent) => measure(&[Build::given(flags.flavour, agent)], flags)?,
        None => baseline::load(&flags.baseline)?,
    };
    let budgets = baseline::budgets(&flags.baseline)?;
    if flags.check && !gate::faults(&head, &base, &budgets).is_empty() {
        // What the kernel maps along is more at times; what has grown stays so.
        eprintln!("size-report: too large, measured once more");
        head.keep_smaller(&measure(&builds, flags)?);
    }
    match flags.json {
        true => print(&format!("{:#}\n", baseline::to_json(&head))),
        false => print(&table::markdown(&head, &base, &budgets)),
    }
    if flags.update {
        baseline::update(&flags.baseline, &head)?;
    }
    Ok(!flags.check || pass(&head, &base, &budgets, flags))
}

/// Says what the gate says, below the table; beside JSON on stderr.
fn pass(head: &Report, base: &Report, budgets: &Budgets, flags: &Flags) -> bool {
    let target = baseline::target();
    let mut lines: Vec<String> = gate::without_base(head, base)
        .iter()
        .map(|flavour| {
            format!("No baseline for {target}, {flavour}: only its budgets are checked.")
        })
        .collect();
    let faults = gate::faults(head, base, budgets);
    lines.extend(
        faults
            .iter()
            .map(|fault| format!("- **too large**: {fault}")),
    );
    lines.push(match faults.len() {
        0 => "The gate is open.".to_owned(),
        count => format!("The gate is shut: {count} figures are too large."),
    });
    let text = lines.join("\n");
    match flags.json {
        true => eprintln!("{text}"),
        false => print(&format!("\n{text}\n")),
    }
    faults.is_empty()
}

fn measure(builds: &[Build], flags: &Flags) -> Result<Report, String> {
    let mut report = Report::default();
    for build in builds {
        let measured = report.flavour(build.flavour);
        if flags.wants(Part::Size) {
            measured.extend(elf::sizes(&build.agent)?);
            symbols::count(build.symbols.as_deref().unwrap_or(&build.agent), measured)?;
        }
        for (part, figures) in PARTS {
            // What differs between the flavours shows in these already.
            let slow = !matches!(part, Part::Idle | Part::Flight);
            let skipped = flags.quick && slow && build.flavour != flavour::DEFAULT;
            if flags.wants(part) && !skipped {
                eprintln!("size-report: {}, {part:?} …", build.flavour);
                measured.extend(figures(&build.agent, flags)?);
            }
        }
        measured.sort_by_group();
    }
    Ok(report)
}

/// A closed stdout takes nothing from the verdict.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
