//! A client that logs: sends records to a running agent and prints what it
//! answered. Sends an `agent-failure.log` again, too.

#[path = "../support/mod.rs"]
mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::samples::{self, Generator, Sample};
use support::sender::{Sender, block_on};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::{Code, Status};

const HELP: &str = "\
Sends records to a running EchoPost agent, each over a connection of its own.

  --datanadhi DIR  the agent's base folder (default ./.datanadhi)
  --count N        so many records (default: 1, or all of the file)
  --interval TIME  between two records, such as 300ms or 2s (default: none)
  --parallel N     calls in flight at once (default 1)
  --from FILE      the records of FILE instead of made-up ones: a JSON object a
                   line, as in tests/samples or in an agent-failure.log
  --api-key KEY    in place of the records' own; needed for the records of an
                   agent-failure.log that came with one

Prints a JSON line for each answer and a summary. Exit code: 0 when all records
were stored, 1 when not, 64 when the flags or the file are wrong and nothing was
sent.";

/// EX_USAGE of sysexits.h.
const EXIT_USAGE: u8 = 64;

struct Flags {
    folder: PathBuf,
    count: Option<usize>,
    interval: Duration,
    parallel: usize,
    from: Option<PathBuf>,
    api_key: Option<String>,
}

fn main() -> ExitCode {
    let arguments = pico_args::Arguments::from_env();
    if arguments.clone().contains("--help") {
        say(HELP);
        return ExitCode::SUCCESS;
    }
    let prepared = parse(arguments).and_then(|flags| Ok((records(&flags)?, flags)));
    match prepared {
        Ok((records, flags)) => block_on(send_all(records, &flags)),
        Err(why) => {
            eprintln!("client: {why}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn parse(mut arguments: pico_args::Arguments) -> Result<Flags, String> {
    let mut flag = |name: &'static str| {
        arguments
            .opt_value_from_str::<_, String>(name)
            .map_err(|error| error.to_string())
    };
    let flags = Flags {
        folder: flag("--datanadhi")?
            .unwrap_or_else(|| "./.datanadhi".to_owned())
            .into(),
        count: flag("--count")?
            .map(|n| number("--count", &n))
            .transpose()?,
        interval: match flag("--interval")? {
            Some(text) => humantime::parse_duration(&text)
                .map_err(|error| format!("--interval {text}: {error}"))?,
            None => Duration::ZERO,
        },
        parallel: match flag("--parallel")? {
            Some(text) => number("--parallel", &text)?,
            None => 1,
        },
        from: flag("--from")?.map(PathBuf::from),
        api_key: flag("--api-key")?,
    };
    match arguments.finish().first() {
        Some(unknown) => Err(format!("unknown argument {}", unknown.display())),
        None => Ok(flags),
    }
}

fn number(flag: &str, text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{flag} {text}: not a number from 1")),
        Ok(number) => Ok(number),
    }
}

fn records(flags: &Flags) -> Result<Vec<Sample>, String> {
    if let Some(file) = &flags.from {
        let mut records = samples::load_from(file, flags.api_key.as_deref())?;
        records.truncate(flags.count.unwrap_or(usize::MAX));
        return Ok(records);
    }
    let generator = Generator::new();
    let numbers = 0..flags.count.unwrap_or(1) as u64;
    Ok(numbers
        .map(|number| {
            let mut record = generator.record(number);
            if let Some(key) = &flags.api_key {
                record.api_key.clone_from(key);
            }
            record
        })
        .collect())
}

async fn send_all(records: Vec<Sample>, flags: &Flags) -> ExitCode {
    let total = records.len();
    let sender = Arc::new(Sender::reconnecting(&socket(&flags.folder)));
    let free = Arc::new(Semaphore::new(flags.parallel));
    let mut calls = JoinSet::new();
    for (at, record) in records.into_iter().enumerate() {
        if at > 0 && !flags.interval.is_zero() {
            tokio::time::sleep(flags.interval).await;
        }
        // The semaphore lives as long as this loop, and is never closed.
        let Ok(place) = Arc::clone(&free).acquire_owned().await else {
            break;
        };
        let sender = Arc::clone(&sender);
        calls.spawn(async move {
            let answer = sender.send_sample(&record).await;
            let stored = answer.as_ref().is_ok_and(|answer| answer.success);
            print(&line(
                at + 1,
                answer.map(|answer| (answer.success, answer.message)),
            ));
            drop(place);
            stored
        });
    }
    let answers = calls.join_all().await;
    let stored = answers.into_iter().filter(|&stored| stored).count();
    print(&json!({ "sent": total, "stored": stored, "failed": total - stored }));
    match stored == total {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("data-nadhi-agent.sock")
}

fn line(number: usize, answer: Result<(bool, String), Status>) -> Value {
    match answer {
        Ok((success, message)) => json!({ "n": number, "ok": success, "message": message }),
        Err(status) => json!({
            "n": number,
            "ok": false,
            "code": name(status.code()),
            "message": status.message(),
        }),
    }
}

/// The code as gRPC writes it: `ResourceExhausted` is `RESOURCE_EXHAUSTED`.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn print(value: &Value) {
    say(&value.to_string());
}

/// A closed stdout keeps no record from being sent.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
