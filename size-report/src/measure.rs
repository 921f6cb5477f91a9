//! What an agent takes: memory, threads, wake-ups, and the time to start and leave.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::flags::Flags;
use crate::harness::{FLIGHT, Harness, LARGE, SDK, Until};
use crate::speed;
use crate::support::{temp_folder, wait};
use crate::table::{Figure, Figures, Unit};

type Measured = Result<Figures, String>;
/// What an agent goes through.
type Life = fn(&mut Harness) -> Result<(), String>;
/// A field's name in the table, and in which file of `/proc/<pid>` it stands as what.
type Field = (&'static str, &'static str, &'static str);

/// Agents that go through the same, of which the median counts.
const SAMPLES: usize = 5;
/// When an agent counts as idle (spec 9).
const IDLE_AGE: Duration = Duration::from_secs(3);
/// How long wake-ups are counted then.
const IDLE_COUNTED: Duration = Duration::from_secs(10);
/// Records that are sent with 64 in flight: fifty groups.
const FLIGHT_RECORDS: u64 = 3_200;
/// Agents that take the largest records: each writes 94 MB.
const LARGE_SAMPLES: usize = 3;
/// An agent that is to leave, or to go into standby, has done so by then.
const EXIT: Duration = Duration::from_secs(30);

const RSS: Field = ("RSS", "status", "VmRSS:");
const ANONYMOUS: Field = ("anonymous", "status", "RssAnon:");
const PEAK: Field = ("VmHWM", "status", "VmHWM:");
/// Only root may look into an agent for it.
const PRIVATE_DIRTY: Field = ("private dirty", "smaps_rollup", "Private_Dirty:");

/// Three seconds after the start, the server away.
pub fn idle(agent: &Path, flags: &Flags) -> Measured {
    let mut agents = side_by_side(agent, &[], rest)?;
    let mut figures = memory("idle/", &mut agents, &[RSS, ANONYMOUS, PRIVATE_DIRTY])?;
    let counted = IDLE_COUNTED / if flags.quick { 2 } else { 1 };
    let told = |field: &str| {
        let numbers = agents
            .iter()
            .map(|harness| number(harness, "status", field));
        numbers.collect::<Vec<_>>()
    };
    let before = told("voluntary_ctxt_switches:");
    std::thread::sleep(counted);
    let woken = told("voluntary_ctxt_switches:").into_iter().zip(before);
    let woken = woken.map(|(now, before)| Some((now? - before?) / counted.as_secs_f64()));
    let open = agents
        .iter()
        .map(|harness| Some(harness.agent.descriptors()? as f64));
    figures.push(Figure::new("idle/wake-ups a second", Unit::Count, woken));
    figures.push(Figure::new("idle/descriptors", Unit::Count, open));
    figures.push(Figure::new("idle/threads", Unit::Count, told("Threads:")));
    Ok(figures)
}

/// The same with `-standby`; then three seconds after an outage is over.
pub fn standby(agent: &Path, _: &Flags) -> Measured {
    let fields = [RSS, ANONYMOUS, PRIVATE_DIRTY];
    let mut agents = side_by_side(agent, &["-standby"], rest)?;
    let mut figures = memory("standby/", &mut agents, &fields)?;
    drop(agents);
    let mut agents = side_by_side(agent, &["-standby"], outage)?;
    figures.extend(memory("standby/after a life, ", &mut agents, &fields)?);
    Ok(figures)
}

/// After 64 in flight on 4 connections, all answered.
pub fn flight(agent: &Path, _: &Flags) -> Measured {
    let send = |harness: &mut Harness| {
        // What the agent gives back at its start is given back before.
        rest(harness)?;
        harness
            .send(FLIGHT, Until::Records(FLIGHT_RECORDS))
            .map(drop)
    };
    let mut agents = side_by_side(agent, &[], send)?;
    memory("flight/", &mut agents, &[PEAK, ANONYMOUS])
}

/// After 24 records of 3.9 MB at once, one agent after the other.
pub fn large(agent: &Path, _: &Flags) -> Measured {
    let mut agents = Vec::new();
    for _ in 0..LARGE_SAMPLES {
        let harness = Harness::start(agent, &[]);
        harness.send(LARGE, Until::Records(24))?;
        agents.push(harness);
    }
    memory("large/", &mut agents, &[PEAK])
}

/// From the start until the socket is there, and until a record is stored.
pub fn start(agent: &Path, _: &Flags) -> Measured {
    let (mut sockets, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let harness = Harness::start(agent, &[]);
        answers.push(Some(first_answer(&harness)?));
        sockets.push(Some(millis(harness.socket)));
    }
    Ok(vec![
        Figure::new("start/socket", Unit::Millis, sockets),
        Figure::new("start/first answer, empty store", Unit::Millis, answers),
    ])
}

/// One agent with a large backlog: filled, replayed, left. Between the two, starts on
/// copies of its store are measured.
pub fn backlog(agent: &Path, flags: &Flags) -> Measured {
    let records = if flags.quick { 100_000 } else { 1_000_000 };
    let mut agents = [Harness::start(agent, &[])];
    let load = agents[0].send(FLIGHT, Until::Records(records))?;
    let mut figures = memory("backlog/buffered, ", &mut agents, &[PEAK, ANONYMOUS])?;
    figures.extend(starts(agent, agents[0].folder.path())?);
    let replayed = agents[0].replay(load.records)?;
    let delivered = Instant::now();
    agents[0].agent.expect_exit(0, EXIT);
    let exit = Some(millis(delivered.elapsed()));
    // It left at once: its last word has the kernel's figure (ru_maxrss), as VmHWM.
    let peak = agents[0].agent.wait_event("agent_stopped", EXIT)["peak_rss_kib"].as_f64();
    figures.push(Figure::once("backlog/replayed, VmHWM", Unit::Kib, peak));
    figures.push(Figure::once("backlog/drained to exit", Unit::Millis, exit));
    figures.extend(speed::rates("backlog/ingest, ", &load));
    figures.extend(speed::rates("backlog/replay, ", &replayed));
    Ok(figures)
}

/// On a copy of the store in `folder`, whose agent runs and writes nothing: no more
/// trusted than after another boot. Then once more, after a clean end.
fn starts(agent: &Path, folder: &Path) -> Measured {
    let mut copy = temp_folder();
    let store = copy.path().join("lmdb");
    std::fs::create_dir(&store)
        .and_then(|()| std::fs::copy(folder.join("lmdb/data.mdb"), store.join("data.mdb")))
        .map_err(|error| format!("copy the store: {error}"))?;
    let mut figures = Vec::new();
    for end in ["another boot", "a clean end"] {
        let mut harness = Harness::start_in(copy, agent, &[]);
        let name = format!("backlog/first answer after {end}");
        let answer = Some(first_answer(&harness)?);
        figures.push(Figure::once(name, Unit::Millis, answer));
        harness.agent.signal(Signal::TERM);
        harness.agent.expect_exit(0, EXIT);
        copy = harness.folder;
    }
    Ok(figures)
}

/// Agents side by side that have gone through `life`.
fn side_by_side(agent: &Path, flags: &[&str], life: Life) -> Result<Vec<Harness>, String> {
    std::thread::scope(|scope| {
        let live = || {
            let mut harness = Harness::start(agent, flags);
            life(&mut harness).map(|()| harness)
        };
        let lives: Vec<_> = (0..SAMPLES).map(|_| scope.spawn(live)).collect();
        let ends = lives.into_iter().map(|life| life.join());
        ends.map(|end| end.map_err(|_| "an agent's thread has panicked".to_owned())?)
            .collect()
    })
}

fn rest(harness: &mut Harness) -> Result<(), String> {
    std::thread::sleep(IDLE_AGE.saturating_sub(harness.started.elapsed()));
    Ok(())
}

/// Records come, the server takes them, and the agent has been back in standby for
/// as long as one that is idle has lived.
fn outage(harness: &mut Harness) -> Result<(), String> {
    let sent = harness.send(FLIGHT, Until::Records(FLIGHT_RECORDS))?;
    harness.replay(sent.records)?;
    // The first is that of the start.
    let is_back = || harness.agent.events_named("standby").len() > 1;
    if !wait::within(EXIT, is_back) {
        return Err(format!("no standby: {}", harness.agent.stdout()));
    }
    std::thread::sleep(IDLE_AGE);
    Ok(())
}

/// A figure for each field. Of an agent that is no more nothing can be told, and
/// nothing would be too large.
fn memory(moment: &str, agents: &mut [Harness], fields: &[Field]) -> Measured {
    for harness in agents.iter_mut() {
        if !harness.agent.is_running() {
            let (stdout, stderr) = (harness.agent.stdout(), harness.agent.stderr());
            return Err(format!("{moment} an agent has ended: {stdout}{stderr}"));
        }
    }
    let figure = |(name, file, field): &Field| {
        let samples = agents.iter().map(|harness| number(harness, file, field));
        Figure::new(format!("{moment}{name}"), Unit::Kib, samples)
    };
    Ok(fields.iter().map(figure).collect())
}

fn number(harness: &Harness, file: &str, field: &str) -> Option<f64> {
    let pid = harness.agent.pid();
    let told = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let rest = told.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn first_answer(harness: &Harness) -> Result<f64, String> {
    harness.send(SDK, Until::Records(1))?;
    Ok(millis(harness.started.elapsed()))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
