//! How long it takes from the start of the process to the first answer.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::figures::{Figure, Unit};
use crate::flags::Flags;
use crate::memory::SAMPLES;
use crate::scene::Scene;
use crate::support::temp_folder;

/// An agent that was asked to stop is gone by then.
const STOP: Duration = Duration::from_secs(30);

/// With an empty store.
///
/// # Errors
/// The agent refused a record.
pub fn empty(agent: &Path, _: &Flags) -> Result<Vec<Figure>, String> {
    let (mut sockets, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let scene = Scene::start(agent, &[]);
        scene.send_one()?;
        answers.push(millis(scene.started.at.elapsed()));
        sockets.push(millis(scene.started.socket));
    }
    Ok(vec![
        Figure::new("start/socket", Unit::Millis, &sockets),
        Figure::new("start/first answer, empty store", Unit::Millis, &answers),
    ])
}

/// On a copy of the store in `folder`, whose agent runs and writes nothing: no more
/// trusted than after another boot. Then after each of the ways in which an agent ends.
///
/// # Errors
/// The store cannot be copied, or the agent refused a record.
pub fn full(agent: &Path, folder: &Path, shown: &str) -> Result<Vec<Figure>, String> {
    let mut copy = temp_folder();
    let store = copy.path().join("lmdb");
    std::fs::create_dir(&store).map_err(|error| error.to_string())?;
    std::fs::copy(folder.join("lmdb/data.mdb"), store.join("data.mdb"))
        .map_err(|error| format!("copy the store: {error}"))?;
    let mut figures = Vec::new();
    for (end, then) in [
        ("another boot", Signal::TERM),
        ("a clean end", Signal::KILL),
        ("SIGKILL", Signal::TERM),
    ] {
        let mut scene = Scene::start_in(copy, agent, &[]);
        scene.send_one()?;
        let answer = millis(scene.started.at.elapsed());
        let name = format!("start/first answer, {shown} stored, after {end}");
        figures.push(Figure::once(name, Unit::Millis, answer));
        match then {
            Signal::KILL => scene.agent.sigkill(),
            then => {
                scene.agent.signal(then);
                scene.agent.expect_exit(0, STOP);
            }
        }
        copy = scene.folder;
    }
    Ok(figures)
}

fn millis(time: Duration) -> Option<f64> {
    Some(time.as_secs_f64() * 1e3)
}
