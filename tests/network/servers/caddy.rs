//! Caddy as a child process, with nothing outside the test's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::servers::harness::{DEADLINE, Harness};
use crate::servers::python::{is_listening, socket_behind};
use crate::support::fixture::lines;
use crate::support::wait;
use crate::venv;

/// A running Caddy, killed when dropped.
pub struct Caddy {
    child: Child,
    folder: PathBuf,
    address: Address,
}

/// Where it listens, and where it passes requests on to.
struct Address {
    port: u16,
    upstream: PathBuf,
}

/// What it is told beside that.
#[derive(Clone, Default)]
pub struct Settings {
    /// Directives of the site.
    pub site: String,
    /// Options of the server: of all connections.
    pub server: String,
    /// Options of the transport to gunicorn.
    pub transport: String,
    /// TLS, with this certificate and key.
    pub tls: Option<[PathBuf; 2]>,
}

impl Settings {
    /// Directives of the site alone.
    pub fn site(directives: &str) -> Settings {
        Settings {
            site: directives.to_owned(),
            ..Settings::default()
        }
    }
}

/// A request as Caddy's own log has it, when it was answered.
#[derive(Debug)]
pub struct Logged {
    pub method: String,
    pub status: u64,
    /// Seconds.
    pub at: f64,
}

impl Caddy {
    /// Caddy on the agent's port, in front of gunicorn.
    pub fn start(harness: &Harness, settings: &Settings) -> Caddy {
        let folder = harness.folder.path().join("caddy");
        fs::create_dir_all(&folder).expect("Caddy's folder");
        let address = Address {
            port: harness.port,
            upstream: socket_behind(harness),
        };
        address.configure(&folder, settings);
        let mut caddy = Caddy {
            child: spawn(&folder),
            folder,
            address,
        };
        let mut ended = false;
        let there = wait::within(DEADLINE, || {
            ended = !matches!(caddy.child.try_wait(), Ok(None));
            ended || is_listening(harness)
        });
        assert!(there && !ended, "Caddy: {}", caddy.said());
        caddy
    }

    /// Puts another configuration into effect, as `caddy reload` does.
    pub fn reload(&self, settings: &Settings) {
        self.address.configure(&self.folder, settings);
        let socket = format!("unix/{}", self.folder.join("admin.sock").display());
        let mut command = caddy("reload", &self.folder);
        let reloaded = command.args(["--force", "--address", &socket]).output();
        let reloaded = reloaded.expect("caddy reload");
        assert!(reloaded.status.success(), "{reloaded:?}: {}", self.said());
    }

    /// The requests that were answered so far.
    pub fn logged(&self) -> Vec<Logged> {
        self.log("access.log")
            .iter()
            .map(|line| Logged {
                method: line["request"]["method"]
                    .as_str()
                    .expect("a text")
                    .to_owned(),
                status: line["status"].as_u64().expect("a number"),
                at: line["ts"].as_f64().expect("a time"),
            })
            .collect()
    }

    /// The `POST`s answered with `status`.
    pub fn posts(&self, status: u64) -> Vec<Logged> {
        let mut posts = self.logged();
        posts.retain(|logged| logged.method == "POST" && logged.status == status);
        posts
    }

    fn log(&self, name: &str) -> Vec<serde_json::Value> {
        lines(&fs::read_to_string(self.folder.join(name)).unwrap_or_default())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.join("caddy.log")).unwrap_or_default()
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate that is not trusted, and its key.
pub fn certificate(harness: &Harness) -> [PathBuf; 2] {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    [
        ("certificate.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
    ]
    .map(|(name, pem)| {
        let path = harness.folder.path().join(name);
        fs::write(&path, pem).expect("write the certificate");
        path
    })
}

fn spawn(folder: &Path) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("caddy.log"));
    caddy("run", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("Caddy's log"))
        .spawn()
        .expect("start Caddy")
}

fn caddy(what: &str, folder: &Path) -> Command {
    let mut command = Command::new(venv::program("caddy"));
    command
        .env("XDG_DATA_HOME", folder)
        .env("XDG_CONFIG_HOME", folder)
        .args([what, "--adapter", "caddyfile", "--config"])
        .arg(folder.join("Caddyfile"));
    command
}

impl Address {
    fn configure(&self, folder: &Path, settings: &Settings) {
        let Settings {
            site,
            server,
            transport,
            tls,
        } = settings;
        let port = self.port;
        let upstream = self.upstream.display();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let tls = match tls {
            Some([certificate, key]) => {
                format!("tls {} {}", certificate.display(), key.display())
            }
            None => String::new(),
        };
        let folder_path = folder.display();
        let config = format!(
            r#"
{{
    admin unix/{folder_path}/admin.sock
    persist_config off
    auto_https disable_redirects
    skip_install_trust
    debug
    servers {{
        {server}
    }}
}}
{scheme}://:{port} {{
    bind 127.0.0.1
    {tls}
    log {{
        output file {folder_path}/access.log
    }}
    {site}
    reverse_proxy unix/{upstream} {{
        header_up X-Connection {{remote_port}}
        transport http {{
            {transport}
        }}
    }}
    handle_errors {{
        respond "{{err.status_code}} {{err.status_text}}"
    }}
}}
"#
        );
        fs::write(folder.join("Caddyfile"), config).expect("Caddy's configuration");
    }
}
