//! A fleet of agents that recovers together, on virtual time: what the server
//! sees of it, by EchoPost's rules and by those of the Go agent.

#[path = "../fleet/mod.rs"]
mod fleet;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use fleet::report::{Figures, HEAD, OUTAGE, Size, grouped};
use fleet::rules::{EchoPost, GoAgent, clock};
use fleet::server::SECOND;

const HELP: &str = "\
Simulates a fleet of agents after an outage of 10 minutes, and prints a table.

  --agents N    (default 100000)
  --records N   records an agent (default 2000)
  --capacity N  requests a second that the server takes (default 100000)
  --seed N      of the random numbers (default 1)

The default takes some minutes.";

/// EX_USAGE of sysexits.h.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut arguments = pico_args::Arguments::from_env();
    if arguments.contains("--help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match parse(arguments) {
        Ok((size, seed)) => {
            play(size, seed);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("fleet: {why}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn parse(mut arguments: pico_args::Arguments) -> Result<(Size, u64), String> {
    let mut number = |name: &'static str, usual: u32| {
        let given = arguments.opt_value_from_str::<_, u32>(name);
        given
            .map(|number| number.unwrap_or(usual))
            .map_err(|error| error.to_string())
    };
    let size = Size {
        agents: number("--agents", 100_000)?,
        records: number("--records", 2_000)?,
        capacity: number("--capacity", 100_000)?.into(),
    };
    let seed = number("--seed", 1)?;
    if size.agents == 0 || size.records == 0 || size.capacity == 0 {
        return Err("agents, records and capacity are numbers from 1".to_owned());
    }
    match arguments.finish().first() {
        Some(unknown) => Err(format!("unknown argument {}", unknown.display())),
        None => Ok((size, seed.into())),
    }
}

fn play(size: Size, seed: u64) {
    println!(
        "{} agents with {} records each, a server of {} requests/s, seed {seed}; \
         drained after {} s at best\n\n{HEAD}",
        grouped(size.agents.into()),
        grouped(size.records.into()),
        grouped(size.capacity as f64),
        grouped(size.ideal()),
    );
    let again = |seconds: u64| Some(seconds.to_string());
    let line = |name: &str, tally, recovery| {
        println!("{}", Figures::of(size, &tally, recovery).line(name));
    };

    let fleet = size.fleet(seed, again(5), |server| server);
    line(
        "EchoPost, `Retry-After: 5`",
        fleet.play::<EchoPost>(),
        OUTAGE,
    );
    let fleet = size.fleet(seed, None, |server| server);
    line(
        "EchoPost, no `Retry-After`",
        fleet.play::<EchoPost>(),
        OUTAGE,
    );
    let reopens = OUTAGE + 60 * SECOND;
    let date = httpdate::fmt_http_date(clock(reopens));
    let fleet = size.fleet(seed, Some(date), |server| server.closed(OUTAGE..reopens));
    line(
        "EchoPost, a minute of 503 with one date for all",
        fleet.play::<EchoPost>(),
        reopens,
    );
    let fleet = size.fleet(seed, again(5), |server| server.sheds_probes());
    line(
        "EchoPost, `Retry-After: 5`, probes are shed, too",
        fleet.play::<EchoPost>(),
        OUTAGE,
    );
    let fleet = size.fleet(seed, again(5), |server| server);
    line("Go agent", fleet.play::<GoAgent>(), OUTAGE);
}
