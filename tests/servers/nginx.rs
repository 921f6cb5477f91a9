//! nginx as a child process, with nothing outside the test's folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::python::{is_listening, socket_behind};
use crate::stage::{DEADLINE, Stage, lines};
use crate::support::wait;

/// A running nginx, stopped when dropped.
pub struct Nginx {
    child: Child,
    folder: PathBuf,
    address: Address,
}

/// Where it listens, and where it passes requests on to.
struct Address {
    port: u16,
    upstream: PathBuf,
}

/// A request as nginx's own log has it, when it was answered.
#[derive(Debug)]
pub struct Logged {
    pub method: String,
    pub status: u64,
    /// Seconds.
    pub at: f64,
}

impl Nginx {
    /// nginx on the agent's port; `server` goes into its `server` block, beside
    /// a location that leads to gunicorn.
    pub fn start(stage: &Stage, server: &str) -> Nginx {
        Nginx::listening(stage, "", server)
    }

    /// The same with options for `listen`.
    pub fn listening(stage: &Stage, listen: &str, server: &str) -> Nginx {
        let folder = stage.folder.path().join("nginx");
        fs::create_dir_all(&folder).expect("nginx's folder");
        let address = Address {
            port: stage.port,
            upstream: socket_behind(stage),
        };
        address.configure(&folder, listen, server);
        let mut nginx = Nginx {
            child: spawn(&folder),
            folder,
            address,
        };
        let mut ended = false;
        let there = wait::within(DEADLINE, || {
            ended = !matches!(nginx.child.try_wait(), Ok(None));
            ended || is_listening(stage)
        });
        assert!(there && !ended, "nginx: {}", nginx.error_log());
        nginx
    }

    /// Puts another configuration into effect, as `nginx -s reload` does; returns
    /// when the old worker is gone.
    pub fn reload(&self, listen: &str, server: &str) {
        let gone = |nginx: &Nginx| nginx.error_log().matches("exited with code 0").count();
        let before = gone(self);
        self.address.configure(&self.folder, listen, server);
        self.signal(Signal::HUP);
        let done = wait::within(DEADLINE, || gone(self) > before);
        assert!(done, "no reload: {}", self.error_log());
    }

    /// The requests that were answered so far.
    pub fn logged(&self) -> Vec<Logged> {
        lines(&fs::read_to_string(self.folder.join("access.log")).unwrap_or_default())
            .iter()
            .map(|line| Logged {
                method: line["method"].as_str().expect("a text").to_owned(),
                status: line["status"].as_u64().expect("a number"),
                at: line["at"].as_f64().expect("a time"),
            })
            .collect()
    }

    /// The `POST`s answered with `status`.
    pub fn posts(&self, status: u64) -> Vec<Logged> {
        let mut posts = self.logged();
        posts.retain(|logged| logged.method == "POST" && logged.status == status);
        posts
    }

    fn error_log(&self) -> String {
        fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        // It may have ended already.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The quick end, which takes the workers along; SIGKILL would leave them.
        self.signal(Signal::TERM);
        if !wait::within(DEADLINE, || !matches!(self.child.try_wait(), Ok(None))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Makes a certificate that nobody trusts; returns the directives that use it.
pub fn certificate(stage: &Stage) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, pem: String| {
        let path = stage.folder.path().join(name);
        fs::write(&path, pem).expect("write the certificate");
        path.display().to_string()
    };
    let certificate = write("certificate.pem", made.cert.pem());
    let key = write("key.pem", made.signing_key.serialize_pem());
    format!("ssl_certificate {certificate}; ssl_certificate_key {key};")
}

fn spawn(folder: &Path) -> Child {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian has it, which is not in everybody's PATH.
    path.push(":/usr/sbin");
    Command::new("nginx")
        .env("PATH", path)
        .arg("-p")
        .arg(folder)
        .args(["-c", "nginx.conf", "-e", "error.log"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("nginx: {error}; apt-get install --no-install-recommends nginx-light")
        })
}

impl Address {
    fn configure(&self, folder: &Path, listen: &str, server: &str) {
        let port = self.port;
        let upstream = self.upstream.display();
        // root's workers would be nobody, who may not enter the folder.
        let user = match rustix::process::geteuid().is_root() {
            true => "user root root;",
            false => "",
        };
        let config = format!(
            r#"
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log notice;
events {{ worker_connections 64; }}
http {{
    log_format account escape=json '{{"method":"$request_method",'
        '"status":$status,"at":$msec}}';
    access_log access.log account;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    limit_req_zone $server_port zone=slow:1m rate=10r/m;
    proxy_set_header X-Connection $connection;
    server {{
        listen 127.0.0.1:{port} {listen};
        location / {{ proxy_pass http://unix:{upstream}:; }}
        {server}
    }}
}}
"#
        );
        fs::write(folder.join("nginx.conf"), config).expect("nginx's config");
    }
}
