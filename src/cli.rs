//! The command line (spec 1), validated as a whole before anything is touched.

use std::ffi::{OsStr, OsString};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use hyper::header::HeaderValue;

use crate::error::{Error, Result};
use crate::ingest::socket;
use crate::replay::proxy::{self, Unusable};
use crate::replay::route::Route;
use crate::replay::server::ServerUrl;

/// `v` and the crate's version, as `VERSION` has it.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Names the key where `-api-key` is not given.
pub const API_KEY_VARIABLE: &str = "DATANADHI_API_KEY";

const DEFAULT_FOLDER: &str = "./.datanadhi";
const DEFAULT_HEALTH_URL: &str = "http://data-nadhi-server:5000";

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

HTTPS_PROXY, HTTP_PROXY and NO_PROXY are honoured; SSL_CERT_FILE, SSL_CERT_DIR,
REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE say which authorities are trusted.
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
    /// Where the main server is and what is on the way.
    pub route: Route,
    /// A proxy that the environment names and that is left out: not to buffer because
    /// of it would be loss.
    pub ignored_proxy: Option<Unusable>,
    /// Wait for the next outage instead of leaving.
    pub standby: bool,
}

/// Parses the arguments after the program's name. `variable` looks into the
/// environment: for [`API_KEY_VARIABLE`] and for a proxy.
///
/// # Errors
/// [`Error::Usage`] naming the flag; [`Error::CannotCreate`] for a folder whose socket path is
/// too long.
pub fn parse(
    args: impl Iterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command> {
    let Given {
        folder,
        api_key,
        health_url,
        standby,
        help,
        version,
        unknown,
    } = Given::read(args)?;
    if help {
        return Ok(Command::Help);
    }
    if version {
        return Ok(Command::Version);
    }
    if let Some(unknown) = unknown {
        return Err(usage(&unknown, "is not a flag"));
    }

    let folder = PathBuf::from(folder.unwrap_or_else(|| DEFAULT_FOLDER.into()));
    if folder.as_os_str().is_empty() {
        return Err(usage("-datanadhi", "needs a folder"));
    }
    let api_key = api_key
        .or_else(|| variable(API_KEY_VARIABLE))
        .unwrap_or_default()
        .into_string()
        .ok()
        .filter(|key| HeaderValue::from_str(key).is_ok())
        .ok_or_else(|| {
            usage(
                "the key of -api-key or $DATANADHI_API_KEY",
                "cannot be sent in an HTTP header",
            )
        })?;
    let health_url = health_url.unwrap_or_else(|| DEFAULT_HEALTH_URL.into());
    let server = health_url
        .to_str()
        .ok_or_else(|| "it is not UTF-8".to_owned())
        .and_then(ServerUrl::parse)
        .map_err(|why| usage("-health-url:", &why))?;
    let (proxy, ignored_proxy) = match proxy::of_environment(&server, variable) {
        Ok(proxy) => (proxy, None),
        Err(unusable) => (None, Some(unusable)),
    };
    socket::check_path(&folder)?;
    Ok(Command::Run(Box::new(Config {
        folder,
        api_key,
        route: Route::new(server, proxy),
        ignored_proxy,
        standby,
    })))
}

fn usage(flag: &str, why: &str) -> Error {
    Error::Usage(format!("{flag} {why}; see echopost --help"))
}

/// What the flags say. One that is given twice counts the last time, as in Go.
#[derive(Default)]
struct Given {
    folder: Option<OsString>,
    api_key: Option<OsString>,
    health_url: Option<OsString>,
    standby: bool,
    help: bool,
    version: bool,
    /// The first argument that is none of these, as an error may show it.
    unknown: Option<String>,
}

impl Given {
    /// Reads Go's spellings: one dash or two, the value behind `=` or as the next
    /// argument. A value may be any bytes, look like a flag, and be empty.
    fn read(args: impl Iterator<Item = OsString>) -> Result<Given> {
        let mut given = Given::default();
        let mut args = (1..).zip(args);
        // The last argument ended with `=`: this one may be the value that was meant.
        let mut may_be_value = false;
        while let Some((place, arg)) = args.next() {
            let mut parts = arg.as_bytes().splitn(2, |&byte| byte == b'=');
            let written = String::from_utf8_lossy(parts.next().unwrap_or_default());
            let value = parts.next().map(OsStr::from_bytes);
            let hide = mem::replace(&mut may_be_value, value.is_some_and(OsStr::is_empty));
            let one_dash = written.strip_prefix('-').filter(|it| it.starts_with('-'));
            let flag = one_dash.unwrap_or(&written);
            let mut text = || {
                let next = || args.next().map(|(_, next)| next);
                let text = value.map(OsStr::to_owned).or_else(next);
                text.ok_or_else(|| usage(flag, "needs a value")).map(Some)
            };
            let switch = || match value.map(OsStr::as_bytes) {
                None | Some(b"true") => Ok(true),
                Some(b"false") => Ok(false),
                Some(_) => Err(usage(flag, "is on or off: =true or =false")),
            };
            match flag {
                "-datanadhi" => given.folder = text()?,
                "-api-key" => given.api_key = text()?,
                "-health-url" => given.health_url = text()?,
                "-standby" => given.standby = switch()?,
                "-version" => given.version = switch()?,
                "-help" | "-h" => given.help = switch()?,
                _ if given.unknown.is_some() => {}
                // A key may stand behind `=`, and where no flag does: in `-api-key= KEY`.
                _ if written.starts_with('-') && !hide => given.unknown = Some(written.into()),
                _ => given.unknown = Some(format!("argument {place}")),
            }
        }
        Ok(given)
    }
}
