//! The agent as a child process in a folder.

mod builder;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wait;
pub use builder::Builder;

/// The SDK waits 2 s for the socket of an agent it has started (spec 2). A machine
/// under tests may stand still for as long; the size report measures the start.
const SOCKET_DEADLINE: Duration = Duration::from_secs(20);

/// What Cargo has built beside the tests; it tells integration tests alone.
const BUILT: Option<&str> = option_env!("CARGO_BIN_EXE_echopost");

/// The program behind `python3`, which may be a script that looks for it.
static PYTHON: LazyLock<String> = LazyLock::new(|| {
    let mut command = Command::new("python3");
    command.args(["-c", "import sys; print(sys.executable)"]);
    let output = command.output().expect("python3");
    String::from_utf8(output.stdout)
        .expect("a path")
        .trim()
        .into()
});

/// A running (or ended) agent, killed when dropped.
pub struct Agent {
    child: Child,
    folder: PathBuf,
    stdout: File,
    stderr: File,
    started: Instant,
}

impl Agent {
    /// The built agent on `folder`, which it creates when missing.
    ///
    /// Only for integration tests; others use [`Agent::from_command`].
    pub fn builder(folder: &Path) -> Builder {
        Agent::from_command(Command::new(Agent::executable()), folder)
    }

    /// The same; SIGINT and SIGHUP end it also where the tester's own shell ignores
    /// them.
    pub fn hearing(folder: &Path) -> Builder {
        Agent::prepared("", folder)
    }

    /// The same, started by a process that has run these lines of Python.
    pub fn prepared(lines: &str, folder: &Path) -> Builder {
        // The last two Python itself ignores.
        let script = format!(
            "import os, sys\n\
             from signal import *\n\
             for one in SIGINT, SIGHUP, SIGPIPE, SIGXFSZ: signal(one, SIG_DFL)\n\
             {lines}\n\
             os.execv(sys.argv[1], sys.argv[1:])"
        );
        let mut command = Command::new(&*PYTHON);
        command.args(["-I", "-c", &script]).arg(Agent::executable());
        Agent::from_command(command, folder)
    }

    /// The agent's path, for integration tests: the file that ECHOPOST_BIN names, which
    /// may be the very one that is published, else what Cargo has built.
    pub fn executable() -> &'static str {
        Agent::given().unwrap_or_else(|| BUILT.expect("built as an integration test"))
    }

    /// The file that ECHOPOST_BIN names.
    pub fn given() -> Option<&'static str> {
        static GIVEN: LazyLock<Option<String>> = LazyLock::new(|| {
            let name = std::env::var_os("ECHOPOST_BIN")?;
            let path = std::fs::canonicalize(&name)
                .unwrap_or_else(|error| panic!("ECHOPOST_BIN, {}: {error}", name.display()));
            Some(path.to_str().expect("ECHOPOST_BIN: UTF-8").to_owned())
        });
        GIVEN.as_deref()
    }

    /// The built agent by way of a shell: `script` ends in `exec "$0" "$@"`.
    pub fn by_shell(script: &str, folder: &Path) -> Builder {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(Agent::executable());
        Agent::from_command(command, folder)
    }

    /// Any command that ends up in `echopost::main()`.
    pub fn from_command(mut command: Command, folder: &Path) -> Builder {
        command.arg("-datanadhi").arg(folder);
        Agent::from_command_line(command, folder)
    }

    /// The built agent in the working directory `cwd` with these arguments alone,
    /// which lead to `folder`.
    pub fn with_arguments<A: AsRef<OsStr>>(cwd: &Path, folder: &Path, args: &[A]) -> Builder {
        let mut command = Command::new(Agent::executable());
        command.current_dir(cwd).args(args);
        Agent::from_command_line(command, folder)
    }

    /// Any command line that ends up in `echopost::main()` and leads to `folder`.
    pub fn from_command_line(mut command: Command, folder: &Path) -> Builder {
        // What the tester's own shell holds must not decide a test.
        for name in [
            "CURL_CA_BUNDLE",
            "DATANADHI_API_KEY",
            "LISTEN_FDS",
            "LISTEN_PID",
            "REQUESTS_CA_BUNDLE",
            "SSL_CERT_DIR",
            "SSL_CERT_FILE",
        ] {
            command.env_remove(name);
        }
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.stdin(Stdio::null());
        Builder {
            command,
            folder: folder.to_owned(),
            stdout: None,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("data-nadhi-agent.sock")
    }

    /// Waits for the socket; returns how long it took from the start of the
    /// process.
    pub fn wait_socket(&mut self) -> Duration {
        let socket = self.socket();
        let mut ended = None;
        let there = wait::within(SOCKET_DEADLINE, || {
            ended = self.child.try_wait().expect("wait for the agent");
            ended.is_some() || is_socket(&socket)
        });
        assert!(
            there && ended.is_none(),
            "no socket within {SOCKET_DEADLINE:?} (ended: {ended:?}){}",
            self.said()
        );
        self.started.elapsed()
    }

    /// Waits until something answers at the socket: what a killed agent leaves
    /// there is a file, too.
    pub fn wait_answering(&mut self) {
        let socket = self.socket();
        let there = wait::within(SOCKET_DEADLINE, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        assert!(there, "no agent answers{}", self.said());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait for the agent").is_none()
    }

    /// Waits for the end of the process.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        wait::some(deadline, || {
            self.child.try_wait().expect("wait for the agent")
        })
        .unwrap_or_else(|| panic!("still running after {deadline:?}{}", self.said()))
    }

    /// Waits for the end of the process and for exit code `code`.
    pub fn expect_exit(&mut self, code: i32, deadline: Duration) {
        let status = self.wait_exit(deadline);
        assert_eq!(
            status.code(),
            Some(code),
            "signal {:?}{}",
            status.signal(),
            self.said()
        );
    }

    /// Ends the agent as a crash or the kernel's OOM killer does.
    pub fn sigkill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("wait for the agent");
    }

    /// Has it stand still; SIGCONT lets it go on.
    #[cfg(target_os = "linux")]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        self.wait_stopped(SOCKET_DEADLINE);
    }

    #[cfg(not(target_os = "linux"))]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process id");
        kill_process(pid, signal).expect("signal the agent");
    }

    /// The events printed so far. A line that is no JSON object fails the test.
    pub fn events(&self) -> Vec<Value> {
        whole_lines(&read(&self.stdout))
            .map(|line| match serde_json::from_str(line) {
                Ok(Value::Object(event)) => Value::Object(event),
                other => panic!("no event: {line:?} ({other:?})"),
            })
            .collect()
    }

    pub fn events_named(&self, name: &str) -> Vec<Value> {
        let mut events = self.events();
        events.retain(|event| event["event"] == name);
        events
    }

    /// Waits for the first event of that name.
    pub fn wait_event(&self, name: &str, deadline: Duration) -> Value {
        wait::some(deadline, || self.events_named(name).into_iter().next())
            .unwrap_or_else(|| panic!("no event {name} within {deadline:?}{}", self.said()))
    }

    /// What was printed on stdout so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What was printed on stderr so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Resident memory now, in KiB; None where there is no `/proc`, or no
    /// process any more.
    pub fn rss_kib(&self) -> Option<u64> {
        self.status_kib("VmRSS:")
    }

    /// The largest resident memory so far, in KiB; None as for `rss_kib`.
    pub fn hwm_kib(&self) -> Option<u64> {
        self.status_kib("VmHWM:")
    }

    pub fn status_kib(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// What a failed test needs to be understood.
    fn said(&self) -> String {
        let stdout = self.stdout();
        let lines: Vec<&str> = stdout.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!(
            "\nagent's stdout: …{tail}\nagent's stderr: {}",
            self.stderr()
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names in a folder, sorted, `session-…` shortened to `session`.
pub fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("read {}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .map(|name| match name.starts_with("session-") {
            true => "session".to_owned(),
            false => name,
        })
        .collect();
    names.sort();
    names
}

/// The content of that name in the only session folder of `folder`.
pub fn session_file(folder: &Path, name: &str) -> Option<String> {
    let sessions: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("read {}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder entry"))
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("session-"))
        .map(|entry| entry.path())
        .collect();
    assert_eq!(sessions.len(), 1, "session folders: {sessions:?}");
    std::fs::read_to_string(sessions[0].join(name)).ok()
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// The whole file from its start, whatever offset the child has reached.
fn read(file: &File) -> String {
    let size = file.metadata().expect("the file's size").len();
    let mut bytes = vec![0; usize::try_from(size).expect("fits in memory")];
    file.read_exact_at(&mut bytes, 0).expect("read the output");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The lines that are written to their end.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
}
