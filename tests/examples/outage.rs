//! A whole outage on this machine, with nothing to install: a main server that
//! is away, comes, goes and comes again, an application that logs all the while,
//! and an agent that is killed in the middle of it.

#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use echopost::limits::SAVE_RECORDS_MAX;
use support::agent::{Agent, names_in};
use support::application::Application;
use support::ledger::Ledger;
use support::progress::{Progress, mebibytes};
use support::server::{Answer, MainServer};

const HELP: &str = "\
Plays an outage of the main server, with the real agent, and counts the records.

  --count N  so many records (default 20000)

Exit code: 0 when none was lost or out of order, 1 otherwise, 64 for a wrong flag.";

/// EX_USAGE of sysexits.h.
const EXIT_USAGE: u8 = 64;
/// Set for the child process: this executable is the agent, too.
const AGENT: &str = "ECHOPOST_OUTAGE_AGENT";
/// How long the second half of the records takes to be sent, so that the
/// application still logs when the server comes, goes and comes again.
const SECOND_HALF: Duration = Duration::from_secs(4);
/// How long the server is away the second time.
const BREAK: Duration = Duration::from_secs(1);
/// The kill and the break may each deliver this many records twice.
const DUPLICATES_MAX: usize = 2 * SAVE_RECORDS_MAX;

fn main() -> ExitCode {
    if std::env::var_os(AGENT).is_some() {
        return echopost::main();
    }
    let count = match parse(pico_args::Arguments::from_env()) {
        Ok(Some(count)) => count,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("outage: {why}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let ledger = Arc::new(Ledger::new(count));
    let mut progress = Progress::new(&ledger);
    let played = play(&ledger, &mut progress);
    if let Err(why) = &played {
        progress.say(why);
    }
    let good = count_up(&ledger, progress.peak_kib(), played.as_ref().ok());
    match good && played.is_ok() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// None: only the help is wanted.
fn parse(mut arguments: pico_args::Arguments) -> Result<Option<usize>, String> {
    if arguments.contains("--help") {
        return Ok(None);
    }
    let count = arguments
        .opt_value_from_str("--count")
        .map_err(|error| format!("--count: {error}"))?
        .unwrap_or(20_000);
    match arguments.finish().first() {
        Some(unknown) => Err(format!("unknown argument {}", unknown.display())),
        None if count == 0 => Err("--count 0: not a number from 1".to_owned()),
        None => Ok(Some(count)),
    }
}

/// Returns how long it took from the server's recovery to the agent's exit.
fn play(ledger: &Arc<Ledger>, progress: &mut Progress) -> Result<Duration, String> {
    let folder = support::temp_folder();
    let count = ledger.count();
    let mut server = main_server(ledger);

    progress.say("The main server is down. The agent starts, and the application logs.");
    let mut agent = start_agent(folder.path(), &server);
    agent.wait_socket();
    let application = Application::start(&agent.socket(), ledger);
    progress.until("half of the records acknowledged", &mut agent, |now, _| {
        now.acknowledged >= count / 2
    })?;

    progress.say("The main server comes up. The application goes on, at a calmer pace.");
    application.pace(count / 2, SECOND_HALF);
    server.up();
    progress.until("an eighth of the records replayed", &mut agent, |now, _| {
        now.delivered >= count.div_ceil(8)
    })?;

    progress.say("SIGKILL for the agent. It is started again.");
    agent.sigkill();
    agent = start_agent(folder.path(), &server);
    agent.wait_socket();
    progress.until("three eighths replayed", &mut agent, |now, _| {
        now.delivered >= count * 3 / 8
    })?;

    progress.say("The main server goes down in the middle of the replay.");
    server.down();
    let back = Instant::now() + BREAK;
    progress.until("the break", &mut agent, |_, _| Instant::now() >= back)?;

    progress.say("The main server is back.");
    server.up();
    let recovery = Instant::now();
    progress.until("all records acknowledged", &mut agent, |_, agent| {
        // With all delivered it leaves when the application is held up; the SDK then
        // starts another.
        if !agent.is_running() {
            *agent = start_agent(folder.path(), &server);
        }
        application.is_done()
    })?;
    progress.until("the agent's exit", &mut agent, |_, agent| {
        !agent.is_running()
    })?;
    let took = recovery.elapsed();
    left_well(&mut agent)?;
    progress.say("The agent has left.");
    Ok(took)
}

fn main_server(ledger: &Arc<Ledger>) -> MainServer {
    let server = MainServer::new_down();
    let ledger = Arc::clone(ledger);
    server.on_post(move |message| {
        ledger.delivered(message);
        Answer::ok()
    });
    server.forget_requests();
    server
}

/// The agent is the file that ECHOPOST_BIN names, else this executable, by way of the
/// library's own entry.
fn start_agent(folder: &Path, server: &MainServer) -> Agent {
    let this = || std::env::current_exe().expect("the path of this executable");
    let agent = Agent::given().map_or_else(this, Into::into);
    Agent::from_command(Command::new(agent), folder)
        .health_url(&server.url())
        .env(AGENT, "1")
        .spawn()
}

fn left_well(agent: &mut Agent) -> Result<(), String> {
    let status = agent.wait_exit(Duration::ZERO);
    let mut left = names_in(agent.folder());
    left.retain(|name| name != "session");
    match status.success() && left.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "The agent's end: {status}; left in its folder: {left:?}\n{}",
            agent.stderr()
        )),
    }
}

/// Prints the table; false when it does not add up.
fn count_up(ledger: &Ledger, peak_kib: u64, took: Option<&Duration>) -> bool {
    let totals = ledger.totals();
    let (lost, out_of_order) = (ledger.lost(), ledger.out_of_order());
    let order = match out_of_order {
        0 => "kept".to_owned(),
        count => format!("{count} records out of order"),
    };
    let took = took.map_or("never left".to_owned(), |took| {
        format!("{:.1} s", took.as_secs_f32())
    });
    println!();
    let rows = [
        ("sent", format!("{} in {} calls", totals.sent, totals.calls)),
        ("acknowledged", totals.acknowledged.to_string()),
        ("delivered", totals.delivered.to_string()),
        ("lost", lost.to_string()),
        ("altered", totals.altered.to_string()),
        (
            "duplicates",
            format!(
                "{} by Idempotency-Key (at most {DUPLICATES_MAX})",
                totals.duplicates
            ),
        ),
        (
            "stored twice",
            format!("{} (the kill took the answer)", totals.stored_twice),
        ),
        ("order", order),
        (
            "peak memory",
            format!("{} (the agent)", mebibytes(peak_kib)),
        ),
        ("recovery to exit", took),
    ];
    for (name, value) in rows {
        println!("{name:<17} {value}");
    }
    lost == 0 && out_of_order == 0 && totals.altered == 0 && totals.duplicates <= DUPLICATES_MAX
}
