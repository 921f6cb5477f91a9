//! An endurance test: outages, kills, clients and answers at random, and a model of
//! what must come of every record.
//!
//! `ECHOPOST_SOAK_SECONDS` says for how long; `ECHOPOST_SEED` brings a run's random
//! numbers back, though not the moments at which things meet.

mod host;
use crate::support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use host::Host;
use support::application::Application;
use support::model::{FailureLogs, Model};
use support::rng::Rng;
use support::wait;

const SECONDS: &str = "ECHOPOST_SOAK_SECONDS";
const USUAL_SECONDS: u64 = 18;
/// No acknowledgement and no delivery for so long: it has come to a stop.
const STALLED: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_lost_whatever_happens_in_whatever_order() {
    let seconds = std::env::var(SECONDS).map_or(USUAL_SECONDS, |text| text.parse().expect(SECONDS));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rng = Rng::seeded();
    let mut host = Host::new();
    let mut logs = FailureLogs::default();
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        rounds += 1;
        let model = Model::new(200 + rng.index(800), rng.next());
        round(&mut host, &model, &mut logs, &mut rng);
    }
    println!("{rounds} rounds, {host}");
}

/// One application's records, from the first call to the last delivery.
fn round(host: &mut Host, model: &Model, logs: &mut FailureLogs, rng: &mut Rng) {
    model.attach(&host.server);
    model.set_oddness(rng.below(30));
    host.keep_alive(rng);
    let application = Application::start(&host.socket(), &model.ledger);
    application.pace(model.ledger.count(), Duration::from_millis(rng.below(2500)));
    let steps = 2 + rng.below(7);
    for _ in 0..steps {
        let moment = Instant::now() + Duration::from_millis(rng.below(500));
        while Instant::now() < moment {
            host.keep_alive(rng);
            std::thread::sleep(wait::POLL);
        }
        host.happening(model, rng);
    }
    host.calm_down();
    model.set_oddness(0);
    let mut aside = BTreeSet::new();
    let (mut before, mut moved) = (None, Instant::now());
    while !(application.is_done() && model.is_settled(&aside)) {
        host.keep_alive(rng);
        aside.append(&mut model.set_aside(logs, host.folder()));
        let totals = model.ledger.totals();
        let now = Some((totals, aside.len()));
        if now != before {
            (before, moved) = (now, Instant::now());
        }
        assert!(
            moved.elapsed() < STALLED,
            "stalled: {totals:?}{}",
            host.said()
        );
        std::thread::sleep(wait::POLL);
    }
    let faults = model.faults(&aside);
    assert!(
        faults.is_empty(),
        "{faults:#?}\n{:?}{}",
        model.ledger.totals(),
        host.said()
    );
    host.measure();
}
