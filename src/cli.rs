//! The command line (spec 1), validated as a whole before anything is touched.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use hyper::header::HeaderValue;
use pico_args::Arguments;

use crate::error::{Error, Result};
use crate::ingest::socket;
use crate::replay::endpoint::Endpoint;

/// `v` and the crate's version, as `VERSION` has it.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Names the key where `-api-key` is not given.
pub const API_KEY_VARIABLE: &str = "DATANADHI_API_KEY";

const DEFAULT_FOLDER: &str = "./.datanadhi";
const DEFAULT_HEALTH_URL: &str = "http://data-nadhi-server:5000";

const VALUE_FLAGS: [&str; 3] = ["datanadhi", "api-key", "health-url"];
const SWITCHES: [&str; 3] = ["standby", "version", "help"];

/// What `--help` prints; it fits a screen of 24 lines.
pub const HELP: &str = "\
Keeps log records on disk while the main server is away, replays them in order
once it is back, and leaves.

Usage: echopost [flags]      (one dash and two are the same)

  -datanadhi DIR    base folder, created when missing       [./.datanadhi]
  -api-key KEY      key for records that carry none; visible in the process
                    list, so prefer the variable            [$DATANADHI_API_KEY]
  -health-url URL   base URL of the main server
                    [http://data-nadhi-server:5000]
  -standby          for containers: wait for the next outage, do not leave
  --version         print the version
  --help            print this page

Clients send records to DIR/data-nadhi-agent.sock. Events go to stdout and to
DIR/session-*/agent.log; records the server refused go to agent-failure.log
beside it.

Exit: 0 drained, stopped with all data on disk, or another agent serves DIR;
      64 usage; 73 folder, socket or store cannot be created; 74 disk failed.
";

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Run(Box<Config>),
    /// Print [`HELP`].
    Help,
    /// Print [`VERSION`].
    Version,
}

/// The agent's whole configuration.
#[derive(Debug)]
pub struct Config {
    /// The base folder, as given.
    pub folder: PathBuf,
    /// For records that carry no key; may be empty.
    pub api_key: String,
    /// Where the main server is.
    pub endpoint: Endpoint,
    /// Wait for the next outage instead of leaving.
    pub standby: bool,
}

/// Parses the arguments after the program's name. `variable` is the value of
/// [`API_KEY_VARIABLE`].
///
/// # Errors
/// [`Error::Usage`] naming the flag; [`Error::CannotCreate`] for a folder whose
/// socket path is too long.
pub fn parse(args: impl Iterator<Item = OsString>, variable: Option<OsString>) -> Result<Command> {
    let mut args = Arguments::from_vec(normalise(args)?);
    if args.contains(["-h", "--help"]) {
        return Ok(Command::Help);
    }
    if args.contains("--version") {
        return Ok(Command::Version);
    }
    let folder = last_value(&mut args, "--datanadhi")?;
    let api_key = last_value(&mut args, "--api-key")?.or(variable);
    let health_url = last_value(&mut args, "--health-url")?;
    let standby = args.contains("--standby");
    if let Some(unknown) = args.finish().first() {
        return Err(usage(&unknown.to_string_lossy(), "is not a flag"));
    }

    let folder = folder.map_or_else(|| PathBuf::from(DEFAULT_FOLDER), PathBuf::from);
    if folder.as_os_str().is_empty() {
        return Err(usage("-datanadhi", "needs a folder"));
    }
    if folder.as_os_str().as_bytes().contains(&0) {
        return Err(usage("-datanadhi", "cannot hold a NUL byte"));
    }
    let api_key = api_key
        .unwrap_or_default()
        .into_string()
        .ok()
        .filter(|key| HeaderValue::from_str(key).is_ok())
        .ok_or_else(|| usage("-api-key", "cannot be sent as an HTTP header"))?;
    let health_url = health_url.unwrap_or_else(|| DEFAULT_HEALTH_URL.into());
    let endpoint = health_url
        .to_str()
        .ok_or_else(|| "is not UTF-8".to_owned())
        .and_then(Endpoint::parse)
        .map_err(|why| usage("-health-url", &why))?;
    socket::check_path(&folder)?;
    Ok(Command::Run(Box::new(Config {
        folder,
        api_key,
        endpoint,
        standby,
    })))
}

fn usage(flag: &str, why: &str) -> Error {
    Error::Usage(format!("{flag} {why}; see echopost --help"))
}

/// Turns Go's spellings into the two that pico-args knows: `-flag` into
/// `--flag`, and `-flag=value` into two arguments (whose value may then be any
/// bytes, and empty). What follows a flag that takes a value is left alone.
fn normalise(args: impl Iterator<Item = OsString>) -> Result<Vec<OsString>> {
    let mut out = Vec::new();
    let mut args = args;
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        let Some(body) = bytes
            .strip_prefix(b"--")
            .or_else(|| bytes.strip_prefix(b"-"))
        else {
            out.push(arg);
            continue;
        };
        let (name, value) = match body.iter().position(|&byte| byte == b'=') {
            Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]))),
            None => (body, None),
        };
        let is = |known: &&str| known.as_bytes() == name;
        if let Some(flag) = VALUE_FLAGS.iter().copied().find(|flag| is(flag)) {
            let value = value.map(OsStr::to_owned).or_else(|| args.next());
            let Some(value) = value else {
                return Err(usage(&format!("-{flag}"), "needs a value"));
            };
            out.push(format!("--{flag}").into());
            out.push(value);
        } else if SWITCHES.iter().any(is) {
            match value.map(OsStr::as_bytes) {
                None | Some(b"true") => {
                    out.push(OsString::from_vec([b"--".as_slice(), name].concat()))
                }
                Some(b"false") => {}
                Some(_) => {
                    let flag = String::from_utf8_lossy(name);
                    return Err(usage(
                        &format!("-{flag}"),
                        "is on or off and takes no value",
                    ));
                }
            }
        } else {
            out.push(arg);
        }
    }
    Ok(out)
}

/// A flag given twice counts the last time, as in Go.
fn last_value(args: &mut Arguments, flag: &'static str) -> Result<Option<OsString>> {
    let mut last = None;
    loop {
        let next = args.opt_value_from_os_str(flag, |value| {
            Ok::<_, std::convert::Infallible>(value.to_owned())
        });
        match next {
            Ok(Some(value)) => last = Some(value),
            Ok(None) => return Ok(last),
            Err(_) => return Err(usage(flag, "needs a value")),
        }
    }
}
