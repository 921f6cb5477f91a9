//! A running agent, its main server and its clients.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use echopost::proto::logagent::LogRequest;
use tokio::task::JoinSet;

use crate::support::agent::Agent;
use crate::support::sender::{Sender, block_on};
use crate::support::server::{Answer, MainServer};
use crate::support::{temp_folder, wait};

/// Bytes of a record that is not a large one.
pub const RECORD: usize = 300;
/// Bytes of a record without its padding, the length of a padding over 127 included.
const BARE: usize = 129;
/// No start and no probe takes so long, on any machine, and no delivery.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_A_RECORD: Duration = Duration::from_millis(1);
/// Between two looks for the socket of an agent that starts.
const POLL: Duration = Duration::from_micros(100);

/// A running agent whose main server is away.
pub struct Harness {
    pub agent: Agent,
    pub server: MainServer,
    pub folder: tempfile::TempDir,
    /// Before the process was made.
    pub started: Instant,
    /// From then until the socket was there.
    pub socket: Duration,
}

/// How records are sent.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    in_flight: usize,
    /// None: a new one for each record, as the SDK does.
    connections: Option<usize>,
    /// Of one record as it comes over the socket, pipelines and key included.
    bytes: usize,
}

/// The shapes of spec 9.
pub const FLIGHT: Shape = Shape::new(64, Some(4), RECORD);
pub const ONE: Shape = Shape::new(1, Some(1), RECORD);
pub const SDK: Shape = Shape::new(32, None, RECORD);
pub const LARGE: Shape = Shape::new(24, Some(24), 3_900_000);

impl Shape {
    const fn new(in_flight: usize, connections: Option<usize>, bytes: usize) -> Shape {
        Shape {
            in_flight,
            connections,
            bytes,
        }
    }
}

/// When to stop sending.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Records(u64),
    Time(Duration),
}

/// What was sent and acknowledged, or replayed and taken, and what it took.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub records: u64,
    pub time: Duration,
    /// Of the agent.
    pub cpu: Option<Duration>,
}

impl Harness {
    pub fn start(agent: &Path, flags: &[&str]) -> Harness {
        Harness::start_in(temp_folder(), agent, flags)
    }

    pub fn start_in(folder: tempfile::TempDir, agent: &Path, flags: &[&str]) -> Harness {
        let server = MainServer::new_down();
        server.forget_requests();
        let builder = Agent::from_command(Command::new(agent), folder.path());
        let builder = builder.health_url(&server.url()).api_key("agent-key");
        let builder = flags.iter().fold(builder, |all, flag| all.arg(flag));
        let started = Instant::now();
        let mut agent = builder.spawn();
        let socket = agent.socket();
        // The file that exists answers (spec 5.1); to connect would be a call. An agent
        // that has ended has none, which its measurement finds out.
        while !socket.exists() && agent.is_running() {
            let said = agent.stderr();
            assert!(started.elapsed() < PATIENCE, "no socket: {said}");
            std::thread::sleep(POLL);
        }
        let socket = started.elapsed();
        Harness {
            agent,
            server,
            folder,
            started,
            socket,
        }
    }

    pub fn send(&self, shape: Shape, until: Until) -> Result<Load, String> {
        let before = self.agent.cpu_time();
        let start = Instant::now();
        let records = block_on(send(self.agent.socket(), shape, until))?;
        Ok(Load::since(start, records, self.cpu_since(before)))
    }

    /// The main server comes up; what the replay of all that was sent takes, but for
    /// what had arrived at the first look.
    pub fn replay(&mut self, sent: u64) -> Result<Load, String> {
        let arrived = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&arrived);
        self.server.on_post(move |_| {
            count.fetch_add(1, Relaxed);
            Answer::ok()
        });
        self.server.up();
        let deadline = PATIENCE + sent as u32 * PATIENCE_A_RECORD;
        let wait = |least| {
            let count = wait::some(deadline, || {
                let count = arrived.load(Relaxed);
                (count >= least).then_some(count)
            });
            count.ok_or(format!("the replay of {sent} has stopped"))
        };
        let first = wait(1)?;
        let (start, before) = (Instant::now(), self.agent.cpu_time());
        let records = wait(sent)? - first;
        Ok(Load::since(start, records, self.cpu_since(before)))
    }

    fn cpu_since(&self, before: Option<Duration>) -> Option<Duration> {
        Some(self.agent.cpu_time()? - before?)
    }
}

impl Load {
    pub fn since(start: Instant, records: u64, cpu: Option<Duration>) -> Load {
        let time = start.elapsed();
        Load { records, time, cpu }
    }

    /// Both, one after the other.
    pub fn and(self, other: Load) -> Load {
        Load {
            records: self.records + other.records,
            time: self.time + other.time,
            cpu: self.cpu.zip(other.cpu).map(|(one, two)| one + two),
        }
    }

    /// Records a second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.time.as_secs_f64()
    }
}

async fn send(socket: PathBuf, shape: Shape, until: Until) -> Result<u64, String> {
    let sender = |_| match shape.connections {
        Some(_) => Arc::new(Sender::keeping(&socket)),
        None => Arc::new(Sender::reconnecting(&socket)),
    };
    let senders: Vec<_> = (0..shape.connections.unwrap_or(1)).map(sender).collect();
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for sender in senders.iter().cycle().take(shape.in_flight) {
        let (sender, next) = (Arc::clone(sender), Arc::clone(&next));
        lanes.spawn(async move {
            let mut sent = 0;
            loop {
                let number = next.fetch_add(1, Relaxed);
                let more = match until {
                    Until::Records(count) => number < count,
                    Until::Time(time) => start.elapsed() < time,
                };
                if !more {
                    return Ok(sent);
                }
                match sender.call(record(number, shape.bytes), None).await {
                    Ok(answer) if answer.success => sent += 1,
                    Ok(answer) => return Err(format!("a record was answered {answer:?}")),
                    Err(status) => return Err(format!("a record was refused: {status:?}")),
                }
            }
        });
    }
    let mut sent = 0;
    while let Some(lane) = lanes.join_next().await {
        sent += lane.map_err(|error| error.to_string())??;
    }
    Ok(sent)
}

/// Record `number`, of so many bytes.
pub fn record(number: u64, bytes: usize) -> LogRequest {
    let padding = "x".repeat(bytes.saturating_sub(BARE));
    let json = format!(
        "{{\"seq\":{number:9},\"level\":\"INFO\",\"message\":\"order placed\",\
         \"module\":\"shop.checkout\",\"padding\":\"{padding}\"}}"
    );
    LogRequest {
        json_data: json.into(),
        pipelines: vec!["audit".to_owned(), "orders".to_owned()],
        api_key: "sample-api-key".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_300_bytes_and_is_json() {
        for number in [0, 1_000_000] {
            let record = record(number, RECORD);
            assert_eq!(prost::Message::encoded_len(&record), RECORD);
            let json: serde_json::Value = serde_json::from_slice(&record.json_data).unwrap();
            assert_eq!(json["seq"], number);
        }
    }
}
