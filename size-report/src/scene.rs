//! The agent on a stage: its folder, its main server, its clients.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use echopost::proto::logagent::LogRequest;
use prost::Message;
use tokio::task::JoinSet;

use crate::living::Living;
use crate::proc;
use crate::support::agent::Agent;
use crate::support::sender::{Sender, block_on};
use crate::support::server::{Answer, MainServer};
use crate::support::{temp_folder, wait};

/// Bytes of one record as it comes over the socket, pipelines and key included
/// (spec 9).
const RECORD: usize = 300;
/// No answer and no delivery takes so long, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for the socket of an agent that starts.
const POLL: Duration = Duration::from_micros(100);

/// A running agent whose main server is away.
pub struct Scene {
    pub agent: Agent,
    /// After the agent, so that it is dropped after it.
    _living: Living,
    pub server: MainServer,
    pub started: Started,
    pub folder: tempfile::TempDir,
}

/// How long a start took, from before the process is made.
#[derive(Debug, Clone, Copy)]
pub struct Started {
    pub at: Instant,
    pub socket: Duration,
}

/// How records are sent.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub in_flight: usize,
    /// None: a new one for each record, as the SDK does.
    pub connections: Option<usize>,
}

/// When to stop sending.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Records(u64),
    Time(Duration),
}

/// What was sent and acknowledged, or replayed and taken, and what it took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    pub records: f64,
    pub time: Duration,
    /// Of the agent.
    pub cpu: Option<Duration>,
    /// Of this process, which is the client.
    pub client_cpu: Option<Duration>,
}

/// What has arrived at the main server.
#[derive(Default)]
pub struct Arrivals {
    count: AtomicU64,
    first_and_last: Mutex<Option<(Instant, Instant)>>,
}

/// Spec 9's shape.
pub const FLIGHT: Shape = Shape {
    in_flight: 64,
    connections: Some(4),
};

impl Scene {
    pub fn start(agent: &Path, flags: &[&str]) -> Scene {
        Scene::start_in(temp_folder(), agent, flags)
    }

    pub fn start_in(folder: tempfile::TempDir, agent: &Path, flags: &[&str]) -> Scene {
        let server = MainServer::new_down();
        server.forget_requests();
        let mut builder = Agent::from_command(Command::new(agent), folder.path())
            .health_url(&server.url())
            .api_key("agent-key");
        for flag in flags {
            builder = builder.arg(flag);
        }
        let at = Instant::now();
        let mut agent = builder.spawn();
        let living = Living::new(agent.pid());
        let socket = agent.socket();
        // The file that exists answers (spec 5.1); to connect would be a call. One that
        // has ended has none; whoever measures it finds out.
        while !socket.exists() && agent.is_running() {
            assert!(at.elapsed() < PATIENCE, "no socket: {}", agent.stderr());
            std::thread::sleep(POLL);
        }
        let started = Started {
            at,
            socket: at.elapsed(),
        };
        Scene {
            agent,
            _living: living,
            server,
            started,
            folder,
        }
    }

    /// Waits until the agent has lived for so long.
    pub fn wait_age(&self, age: Duration) {
        std::thread::sleep(age.saturating_sub(self.started.at.elapsed()));
    }

    pub fn memory(&self) -> proc::Memory {
        proc::Memory::of(self.agent.pid())
    }

    /// Sends one record over a connection of its own.
    ///
    /// # Errors
    /// The agent's answer, if it is not "stored".
    pub fn send_one(&self) -> Result<(), String> {
        let once = Shape {
            in_flight: 1,
            connections: None,
        };
        self.send(once, Until::Records(1)).map(|_| ())
    }

    /// # Errors
    /// The first answer that is not "stored".
    pub fn send(&self, shape: Shape, until: Until) -> Result<Load, String> {
        let pid = self.agent.pid();
        let before = (proc::cpu(pid), proc::own_cpu());
        let start = Instant::now();
        let records = block_on(send(self.agent.socket(), shape, until))?;
        let time = start.elapsed();
        let spent = |now: Option<Duration>, then: Option<Duration>| {
            now.zip(then).map(|(now, then)| now.saturating_sub(then))
        };
        Ok(Load {
            records: records as f64,
            time,
            cpu: spent(proc::cpu(pid), before.0),
            client_cpu: spent(proc::own_cpu(), before.1),
        })
    }

    /// The main server comes up and takes every record, each after `delay`.
    pub fn server_up(&mut self, delay: Duration) -> Arc<Arrivals> {
        let arrivals = Arrivals::at(&self.server, delay);
        self.server.up();
        arrivals
    }

    /// The main server comes up; what the replay of all that was sent takes, from
    /// the first arrival to the last.
    ///
    /// # Errors
    /// Nothing has arrived.
    pub fn replay(&mut self, delay: Duration, sent: u64) -> Result<Load, String> {
        self.replay_looking(delay, sent, |_| {})
    }

    /// The same; `look` is called all the while.
    pub fn replay_looking(
        &mut self,
        delay: Duration,
        sent: u64,
        mut look: impl FnMut(&Scene),
    ) -> Result<Load, String> {
        let before = proc::cpu(self.agent.pid());
        let arrivals = self.server_up(delay);
        arrivals.wait(sent, || look(self));
        let cpu = proc::cpu(self.agent.pid()).zip(before);
        let (first, last) = arrivals.times().ok_or("nothing has arrived")?;
        Ok(Load {
            records: sent as f64,
            time: last - first,
            cpu: cpu.map(|(now, then)| now.saturating_sub(then)),
            client_cpu: None,
        })
    }
}

impl Load {
    /// Both, one after the other; to start with, none.
    pub fn and(self, other: Load) -> Load {
        let sum = |one: Option<Duration>, two: Option<Duration>| match self.records == 0.0 {
            true => two,
            false => one.zip(two).map(|(one, two)| one + two),
        };
        Load {
            records: self.records + other.records,
            time: self.time + other.time,
            cpu: sum(self.cpu, other.cpu),
            client_cpu: sum(self.client_cpu, other.client_cpu),
        }
    }

    /// Records a second.
    pub fn rate(&self) -> f64 {
        self.records / self.time.as_secs_f64()
    }
}

impl Arrivals {
    /// Counts what comes to this server.
    pub fn at(server: &MainServer, delay: Duration) -> Arc<Arrivals> {
        let arrivals = Arc::new(Arrivals::default());
        let seen = Arc::clone(&arrivals);
        server.on_post(move |_| {
            let now = Instant::now();
            let mut times = seen
                .first_and_last
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *times = Some((times.map_or(now, |(first, _)| first), now));
            seen.count.fetch_add(1, Relaxed);
            Answer::ok().after(delay)
        });
        arrivals
    }

    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// From the first arrival to the last so far.
    pub fn times(&self) -> Option<(Instant, Instant)> {
        *self
            .first_and_last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so many; `look` is called all the while.
    pub fn wait(&self, count: u64, mut look: impl FnMut()) {
        let (mut before, mut moved) = (0, Instant::now());
        while self.count() < count {
            if self.count() != before {
                (before, moved) = (self.count(), Instant::now());
            }
            assert!(
                moved.elapsed() < PATIENCE,
                "stopped after {before} of {count}"
            );
            look();
            std::thread::sleep(wait::POLL);
        }
    }
}

async fn send(socket: PathBuf, shape: Shape, until: Until) -> Result<u64, String> {
    let senders: Vec<_> = (0..shape.connections.unwrap_or(1))
        .map(|_| match shape.connections {
            Some(_) => Arc::new(Sender::keeping(&socket)),
            None => Arc::new(Sender::reconnecting(&socket)),
        })
        .collect();
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for lane in 0..shape.in_flight {
        let (sender, next) = (
            Arc::clone(&senders[lane % senders.len()]),
            Arc::clone(&next),
        );
        lanes.spawn(async move {
            let mut sent = 0;
            loop {
                let more = match until {
                    Until::Records(count) => next.load(Relaxed) < count,
                    Until::Time(time) => start.elapsed() < time,
                };
                if !more {
                    return Ok(sent);
                }
                let record = record(next.fetch_add(1, Relaxed));
                match sender.call(record, None).await {
                    Ok(answer) if answer.success => sent += 1,
                    Ok(answer) => return Err(format!("answered {answer:?}")),
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

/// Record `number`, of [`RECORD`] bytes.
fn record(number: u64) -> LogRequest {
    let mut request = LogRequest {
        json_data: json(number, "").into(),
        pipelines: vec!["audit".to_owned(), "orders".to_owned()],
        api_key: "sample-api-key".to_owned(),
    };
    // The field's length takes a second byte from 128 on.
    let room = (RECORD - 1).saturating_sub(request.encoded_len());
    request.json_data = json(number, &"x".repeat(room)).into();
    request
}

/// A record with so many bytes of payload.
pub fn large_record(payload: usize) -> LogRequest {
    LogRequest {
        json_data: json(0, &"x".repeat(payload)).into(),
        ..record(0)
    }
}

/// The JSON of record `number`, with that padding.
pub fn json(number: u64, padding: &str) -> String {
    format!(
        "{{\"seq\":{number},\"level\":\"INFO\",\"message\":\"order placed\",\
         \"module\":\"shop.checkout\",\"padding\":\"{padding}\"}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_300_bytes_and_is_json() {
        for number in [0, 7, 1_000_000] {
            let record = record(number);
            assert_eq!(record.encoded_len(), RECORD);
            let json: serde_json::Value = serde_json::from_slice(&record.json_data).unwrap();
            assert_eq!(json["seq"], number);
        }
    }
}
