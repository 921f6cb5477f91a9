//! Memory, and what else an agent takes without doing anything.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::figures::{Figure, Unit};
use crate::flags::{Flags, Part};
use crate::proc::{self, Memory};
use crate::scene::{FLIGHT, Scene, Until, large_record};
use crate::speed;
use crate::start;
use crate::support::sender::{Sender, block_on};
use crate::support::wait;

/// Samples of each figure that is not a matter of minutes.
pub const SAMPLES: usize = 5;
/// When an agent counts as idle (spec 9).
const IDLE_AGE: Duration = Duration::from_secs(3);
/// How long wake-ups are counted then.
const IDLE_COUNTED: Duration = Duration::from_secs(10);
/// Records that are sent with 64 in flight: fifty groups.
const FLIGHT_RECORDS: u64 = 3_200;
/// Clients of the largest records, and bytes of each (spec 9).
const LARGE_CLIENTS: usize = 24;
const LARGE: usize = 3_900_000;
/// Between two looks at an agent that replays: to look holds it up.
const LOOK: Duration = Duration::from_millis(250);
/// An agent whose store is drained leaves within this time.
const EXIT: Duration = Duration::from_secs(30);

/// Idle, and threads, descriptors and wake-ups then.
///
/// # Errors
/// The binary cannot be copied.
pub fn idle(agent: &Path, flags: &Flags) -> Result<Vec<Figure>, String> {
    let lives = lives(agent, &[], rest)?;
    let samples: Vec<_> = lives.iter().map(|(scene, _)| scene.memory()).collect();
    let mut figures = Memory::figures("idle", &samples);
    figures.extend(quiet(lives[0].0.agent.pid(), flags));
    Ok(figures)
}

/// Standby with an empty store, and again after an outage.
///
/// # Errors
/// The binary cannot be copied, or the agent refused a record.
pub fn standby(agent: &Path, _: &Flags) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let moments: [(&str, Life); 2] = [("standby", rest), ("standby after a life", outage)];
    for (moment, life) in moments {
        let lives = lives(agent, &["-standby"], life)?;
        let samples: Vec<_> = lives.iter().map(|(scene, _)| scene.memory()).collect();
        figures.extend(Memory::figures(moment, &samples));
    }
    Ok(figures)
}

/// What an agent lives through.
type Life = fn(&mut Scene) -> Result<(), String>;

/// Records come, the server takes them, and the agent has been back in standby for
/// as long as one that is idle has lived.
fn outage(scene: &mut Scene) -> Result<(), String> {
    scene.send(FLIGHT, Until::Records(FLIGHT_RECORDS))?;
    scene.server_up(Duration::ZERO);
    // The first is that of the start.
    let rests = |scene: &Scene| scene.agent.events_named("standby").len() > 1;
    let slept = wait::within(EXIT, || rests(scene));
    std::thread::sleep(IDLE_AGE);
    match slept {
        true => Ok(()),
        false => Err(format!("no standby: {}", scene.agent.stdout())),
    }
}

/// Agents side by side that have lived through `life`. Each runs a copy of the
/// binary, so that they share none of its pages and PSS is that of an agent alone.
fn lives(
    agent: &Path,
    flags: &[&str],
    life: impl Fn(&mut Scene) -> Result<(), String> + Sync,
) -> Result<Vec<(Scene, tempfile::TempPath)>, String> {
    let mut lives = Vec::new();
    for _ in 0..SAMPLES {
        let copy = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
        // An executable that is open for writing cannot be run.
        let copy = copy.into_temp_path();
        std::fs::copy(agent, &copy).map_err(|error| format!("{}: {error}", agent.display()))?;
        lives.push((Scene::start(&copy, flags), copy));
    }
    let lived: Result<(), String> = std::thread::scope(|scope| {
        let living: Vec<_> = lives
            .iter_mut()
            .map(|(scene, _)| scope.spawn(|| life(scene)))
            .collect();
        living.into_iter().try_for_each(|life| {
            let lived = life.join();
            lived.unwrap_or_else(|_| Err("a client has panicked".to_owned()))
        })
    });
    lived?;
    // Of an agent that is no more nothing can be told, and nothing is too large.
    for (scene, _) in &mut lives {
        if !scene.agent.is_running() {
            return Err(format!("an agent has ended: {}", scene.agent.stdout()));
        }
    }
    Ok(lives)
}

fn rest(scene: &mut Scene) -> Result<(), String> {
    scene.wait_age(IDLE_AGE);
    Ok(())
}

fn quiet(pid: u32, flags: &Flags) -> Vec<Figure> {
    let time = match flags.quick {
        true => IDLE_COUNTED / 2,
        false => IDLE_COUNTED,
    };
    let before = (proc::wake_ups(pid), proc::cpu(pid));
    std::thread::sleep(time);
    let woken = proc::wake_ups(pid)
        .zip(before.0)
        .map(|(now, then)| (now - then) / time.as_secs_f64());
    let cpu = proc::cpu(pid)
        .zip(before.1)
        .map(|(now, then)| (now - then).as_secs_f64() * 1e6 / time.as_secs_f64());
    vec![
        Figure::once("process/threads", Unit::Count, proc::threads(pid)),
        Figure::once("process/descriptors", Unit::Count, proc::descriptors(pid)),
        Figure::once("process/wake-ups a second", Unit::Count, woken),
        Figure::once("process/CPU a second", Unit::Micros, cpu),
    ]
}

/// After 64 in flight on 4 connections, and after 32 on a connection for each record,
/// all answered.
///
/// # Errors
/// The agent refused a record.
pub fn flight(agent: &Path, _: &Flags) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let shapes = [
        ("64 in flight", FLIGHT),
        ("32 in flight, a channel a record", speed::SDK),
    ];
    for (name, shape) in shapes {
        let send = |scene: &mut Scene| {
            // What the agent gives back at its start is given back before.
            rest(scene)?;
            scene
                .send(shape, Until::Records(FLIGHT_RECORDS))
                .map(|_| ())
        };
        let lives = lives(agent, &[], send)?;
        let samples: Vec<_> = lives.iter().map(|(scene, _)| scene.memory()).collect();
        figures.extend(Memory::figures(name, &samples));
    }
    Ok(figures)
}

/// After as many large records at once.
///
/// # Errors
/// The agent refused a record.
pub fn large(agent: &Path, _: &Flags) -> Result<Vec<Figure>, String> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let scene = Scene::start(agent, &[]);
        let senders: Vec<_> = (0..LARGE_CLIENTS)
            .map(|_| Sender::keeping(&scene.agent.socket()))
            .collect();
        let record = large_record(LARGE);
        block_on(async {
            let mut calls = tokio::task::JoinSet::new();
            for sender in senders {
                let record = record.clone();
                calls.spawn(async move { sender.call(record, None).await });
            }
            while let Some(answer) = calls.join_next().await {
                let answer = answer.map_err(|error| error.to_string())?;
                answer.map_err(|status| format!("24 × 3.9 MB: {status:?}"))?;
            }
            Ok::<_, String>(())
        })?;
        samples.push(scene.memory());
    }
    Ok(Memory::figures("24 × 3.9 MB", &samples))
}

/// One life with a large backlog: filled, replayed, left. Between the two, starts
/// on copies of its store are measured.
///
/// # Errors
/// The agent refused a record, or did not leave.
pub fn backlog(agent: &Path, flags: &Flags) -> Result<Vec<Figure>, String> {
    let (records, shown) = match flags.quick {
        true => (100_000, "100,000"),
        false => (1_000_000, "1,000,000"),
    };
    let mut scene = Scene::start(agent, &[]);
    let load = scene.send(FLIGHT, Until::Records(records))?;
    let sent = load.records as u64;
    let buffered = scene.memory();
    let mut figures = Memory::figures(&format!("backlog of {shown}"), &[buffered]);
    if flags.wants(Part::Start) {
        figures.extend(start::full(agent, scene.folder.path(), shown)?);
    }

    let mut peak = buffered;
    let mut looked = Instant::now();
    let look = |scene: &Scene| {
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            peak = peak.max(scene.memory());
        }
    };
    let replayed = scene.replay_looking(Duration::ZERO, sent, look)?;
    let delivered = Instant::now();
    peak = peak.max(scene.memory());
    let name = format!("backlog of {shown}, replayed");
    figures.extend(Memory::figures(&name, &[peak]));

    scene.agent.expect_exit(0, EXIT);
    let exit = delivered.elapsed().as_secs_f64() * 1e3;
    figures.push(Figure::once(
        "start/drained to exit",
        Unit::Millis,
        Some(exit),
    ));
    figures.extend(speed::rates(&format!("ingest, backlog of {shown}"), &load));
    let name = format!("replay, backlog of {shown}");
    figures.extend(speed::replay_rates(&name, &replayed));
    Ok(figures)
}
