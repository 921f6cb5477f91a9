//! Speed: records a second and CPU a record, beside the floor of the same run.

use std::path::Path;
use std::time::Duration;

use crate::figures::{Figure, Unit};
use crate::flags::Flags;
use crate::floor::{self, Disk};
use crate::scene::{FLIGHT, Load, Scene, Shape, Until};
use crate::support::temp_folder;

/// How long one in flight is sent at a time.
const TURN: Duration = Duration::from_millis(500);
/// In [`floor::WAYS`].
const NEW_PAIRS: usize = 2;
const WRITTEN_PAIRS: usize = 3;

const ONE: Shape = Shape {
    in_flight: 1,
    connections: Some(1),
};

/// One channel for all, and one for each record; 64 on 4 is spec 9's shape.
const SHAPES: [(&str, Shape, bool); 7] = [
    ("16 in flight, 1 channel", shape(16, Some(1)), false),
    ("64 in flight, 1 channel", shape(64, Some(1)), false),
    ("64 in flight, 4 channels", FLIGHT, true),
    ("1 in flight, a channel a record", shape(1, None), false),
    ("16 in flight, a channel a record", shape(16, None), false),
    ("32 in flight, a channel a record", SDK, true),
    ("64 in flight, a channel a record", shape(64, None), false),
];

/// A new channel for every record, from so many threads at once: the SDK's way (spec 9).
pub const SDK: Shape = shape(32, None);

const fn shape(in_flight: usize, connections: Option<usize>) -> Shape {
    Shape {
        in_flight,
        connections,
    }
}

/// Ingest in all shapes, each with a fresh agent; one in flight also into a store
/// whose blocks are written already. `--quick`: the two that an SDK sees, and one
/// in flight.
///
/// # Errors
/// The agent refused a record, or the disk failed.
pub fn ingest(agent: &Path, flags: &Flags) -> Result<Vec<Figure>, String> {
    let mut figures = one_in_flight(agent, flags)?;
    let time = Duration::from_secs(if flags.quick { 2 } else { 5 });
    for (name, shape, quick) in SHAPES {
        if quick || !flags.quick {
            let load = Scene::start(agent, &[]).send(shape, Until::Time(time))?;
            figures.extend(rates(&format!("ingest, {name}"), &load));
        }
    }
    Ok(figures)
}

/// One in flight and the disk's own flushes, in turn: the disk is not the same
/// from one second to the next.
fn one_in_flight(agent: &Path, flags: &Flags) -> Result<Vec<Figure>, String> {
    let folder = temp_folder();
    let mut disk = Disk::new(folder.path())?;
    let stores = [
        ("new blocks", NEW_PAIRS, Scene::start(agent, &[])),
        ("written blocks", WRITTEN_PAIRS, used_store(agent, flags)?),
    ];
    let mut loads = [Load::default(); 2];
    for _ in 0..if flags.quick { 4 } else { 12 } {
        disk.measure()?;
        for ((_, _, scene), load) in stores.iter().zip(&mut loads) {
            *load = load.and(scene.send(ONE, Until::Time(TURN))?);
        }
    }
    let mut figures = Vec::new();
    for (way, (name, ..)) in floor::WAYS.iter().enumerate() {
        let name = format!("speed/floor, the disk: {name}");
        figures.push(Figure::once(name, Unit::PerSecond, Some(disk.rate(way))));
    }
    for ((blocks, floor, _), load) in stores.iter().zip(loads) {
        let name = format!("ingest, 1 in flight into {blocks}");
        figures.extend(rates(&name, &load));
        let name = format!("speed/{name}: of the disk's two flushes");
        let ratio = load.rate() / disk.rate(*floor);
        figures.push(Figure::once(name, Unit::Ratio, Some(ratio)));
    }
    Ok(figures)
}

/// An agent whose store was filled and emptied but for a tenth: it writes into
/// those blocks. Emptied to the end, it would leave.
fn used_store(agent: &Path, flags: &Flags) -> Result<Scene, String> {
    let mut scene = Scene::start(agent, &[]);
    let records = if flags.quick { 5_000 } else { 20_000 };
    scene.send(FLIGHT, Until::Records(records))?;
    let arrivals = scene.server_up(Duration::ZERO);
    arrivals.wait(records * 9 / 10, || {});
    scene.server.down();
    Ok(scene)
}

/// Replay against a server without and with a delay, and a bare client against
/// the same.
///
/// # Errors
/// The agent refused a record, or the server did not answer.
pub fn replay(agent: &Path, flags: &Flags) -> Result<Vec<Figure>, String> {
    let records = |of_all: u32| if flags.quick { of_all / 5 } else { of_all };
    let mut figures = Vec::new();
    for (delay, count) in [(0, records(100_000)), (1, records(10_000))] {
        let name = format!("replay, server with {delay} ms");
        let delay = Duration::from_millis(delay);
        let mut scene = Scene::start(agent, &[]);
        let sent = scene.send(FLIGHT, Until::Records(count.into()))?.records as u64;
        let before = floor::http(delay, count / 4)?;
        let replayed = scene.replay(delay, sent)?;
        let after = floor::http(delay, count / 4)?;
        let bare = before.mean(after);
        figures.extend(replay_rates(&name, &replayed));
        figures.push(rate(&format!("{name}, bare client"), 1.0, bare.time));
        figures.push(cpu(
            &format!("{name}, bare client"),
            "CPU a record",
            1.0,
            bare.cpu,
        ));
        let ratio = replayed.rate() * bare.time.as_secs_f64();
        let name = format!("speed/{name}: of the bare client");
        figures.push(Figure::once(name, Unit::Ratio, Some(ratio)));
    }
    Ok(figures)
}

/// The figures of one way to send.
pub fn rates(name: &str, load: &Load) -> Vec<Figure> {
    vec![
        rate(name, load.records, load.time),
        cpu(name, "agent's CPU a record", load.records, load.cpu),
        cpu(name, "client's CPU a record", load.records, load.client_cpu),
    ]
}

/// The figures of one replay.
pub fn replay_rates(name: &str, replayed: &Load) -> Vec<Figure> {
    vec![
        rate(name, replayed.records, replayed.time),
        cpu(name, "agent's CPU a record", replayed.records, replayed.cpu),
    ]
}

fn rate(name: &str, records: f64, time: Duration) -> Figure {
    let rate = records / time.as_secs_f64();
    Figure::once(
        format!("speed/{name}: records"),
        Unit::PerSecond,
        Some(rate),
    )
}

fn cpu(name: &str, whose: &str, records: f64, spent: Option<Duration>) -> Figure {
    let micros = spent.map(|spent| spent.as_secs_f64() * 1e6 / records);
    Figure::once(format!("speed/{name}: {whose}"), Unit::Micros, micros)
}
