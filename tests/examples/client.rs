//! A client that logs: sends records to a running agent and prints what it
//! answered. Sends an `agent-failure.log` again, too.

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::failure_log::{self, Keep, Line};
use support::samples::{Generator, Sample};
use support::sender::{Sender, block_on};
use support::wait;
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
                   line, as in tests/samples or in an agent-failure.log. They
                   keep their first Idempotency-Key: a file may be sent twice
  --keep FILE      where the lines of the --from file go, byte for byte, that
                   were not stored (default: its name and .failed). Not written
                   when all were; never overwritten. What is sent stays as it is
  --api-key KEY    in place of the records' own; needed for the records of an
                   agent-failure.log that came with one

Prints a JSON line for each answer and a summary. Exit code: 0 when all records
were stored, 1 when not, 64 when nothing was sent: the flags or a file are wrong,
or no agent takes the records of a file.";

/// EX_USAGE of sysexits.h.
const EXIT_USAGE: u8 = 64;
/// How long an agent that was just started may take, as for the SDK (spec 2).
const SOCKET_DEADLINE: Duration = Duration::from_secs(2);

struct Flags {
    folder: PathBuf,
    count: Option<usize>,
    interval: Duration,
    parallel: usize,
    from: Option<PathBuf>,
    keep: Option<PathBuf>,
    api_key: Option<String>,
}

fn main() -> ExitCode {
    let arguments = pico_args::Arguments::from_env();
    if arguments.clone().contains("--help") {
        say(HELP);
        return ExitCode::SUCCESS;
    }
    let sent = parse(arguments).and_then(|flags| match &flags.from {
        Some(from) => send_file(from, &flags),
        None => Ok(send_made_up(&flags)),
    });
    match sent {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
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
        keep: flag("--keep")?.map(PathBuf::from),
        api_key: flag("--api-key")?,
    };
    if flags.keep.is_some() && flags.from.is_none() {
        return Err("--keep goes with --from".to_owned());
    }
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

/// Sends the records of a file; true when all were stored.
fn send_file(from: &Path, flags: &Flags) -> Result<bool, String> {
    let keep = Keep::new(flags.keep.clone(), from)?;
    let lines = failure_log::read(from, flags.api_key.as_deref())?;
    let socket = socket(&flags.folder);
    if !wait::within(SOCKET_DEADLINE, || UnixStream::connect(&socket).is_ok()) {
        return Err(format!(
            "{}: no agent answers; start one. Nothing was sent",
            socket.display()
        ));
    }
    let records: Vec<(usize, Sample)> = lines
        .iter()
        .filter_map(|line| Some((line.number, line.content.clone().ok()?)))
        .take(flags.count.unwrap_or(usize::MAX))
        .collect();
    for (number, why) in lines.iter().filter_map(skipped) {
        print(&json!({ "n": number, "ok": false, "message": why }));
    }
    let sent = records.len();
    let stored = block_on(send_all(records, flags));
    let left = || lines.iter().filter(|line| !stored.contains(&line.number));
    let kept = keep.write(left());
    let mut summary = summary(sent, stored.len());
    summary["skipped"] = lines.iter().filter_map(skipped).count().into();
    if left().next().is_some() {
        summary["kept"] = match &kept {
            Ok(()) => keep.path().to_string_lossy().into(),
            Err(_) => Value::Null,
        };
    }
    print(&summary);
    if let Err(error) = kept {
        eprintln!(
            "client: {}: {error}; send the whole of {} again, which does no harm",
            keep.path().display(),
            from.display()
        );
    }
    Ok(left().next().is_none())
}

/// A line that holds no record to send, and why.
fn skipped(line: &Line) -> Option<(usize, &str)> {
    Some((line.number, line.content.as_ref().err()?))
}

/// Sends made-up records; true when all were stored.
fn send_made_up(flags: &Flags) -> bool {
    let generator = Generator::new();
    let records: Vec<(usize, Sample)> = (0..flags.count.unwrap_or(1))
        .map(|number| {
            let mut record = generator.record(number as u64);
            if let Some(key) = &flags.api_key {
                record.api_key.clone_from(key);
            }
            (number + 1, record)
        })
        .collect();
    let total = records.len();
    let stored = block_on(send_all(records, flags)).len();
    print(&summary(total, stored));
    stored == total
}

fn summary(sent: usize, stored: usize) -> Value {
    json!({ "sent": sent, "stored": stored, "failed": sent - stored })
}

/// Sends records and prints the answers; returns the numbers of those stored.
async fn send_all(records: Vec<(usize, Sample)>, flags: &Flags) -> HashSet<usize> {
    let sender = Arc::new(Sender::reconnecting(&socket(&flags.folder)));
    let free = Arc::new(Semaphore::new(flags.parallel));
    let mut calls = JoinSet::new();
    for (at, (number, record)) in records.into_iter().enumerate() {
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
                number,
                answer.map(|answer| (answer.success, answer.message)),
            ));
            drop(place);
            stored.then_some(number)
        });
    }
    calls.join_all().await.into_iter().flatten().collect()
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
