//! The herd (spec 6): a fleet that recovers together must not hit the server
//! together. Many agents on virtual time, by the rules that the agent runs.

use crate::fleet;

use fleet::play::Fleet;
use fleet::report::{Figures, HEAD, OUTAGE, Size};
use fleet::rules::{EchoPost, GoAgent, clock};
use fleet::server::{SECOND, Server};
use fleet::tally::{Second, mean_and_peak};

/// One request a second for each agent, as in the README's table.
const SIZE: Size = Size {
    agents: 2_000,
    records: 200,
    capacity: 2_000,
};
const SEED: u64 = 1;

fn after_outage(server: impl FnOnce(Server) -> Server) -> Fleet {
    SIZE.fleet(SEED, Some("5".to_owned()), server)
}

fn figures(name: &str, size: Size, fleet: &Fleet, recovery: u64) -> Figures {
    let figures = Figures::of(size, &fleet.play::<EchoPost>(), recovery);
    println!("{HEAD}\n{}", figures.line(name));
    figures
}

/// Every record arrives, little later than it could, and the server is never
/// asked for more than `overload` times what it takes.
fn expect(figures: &Figures, size: Size, overload: f64) {
    assert!(figures.overload < overload, "{figures:?}");
    assert!(figures.drained < size.ideal() * 1.1, "{figures:?}");
    assert!(figures.tries < 1.3, "{figures:?}");
}

#[test]
fn probes_come_every_five_seconds_and_not_together() {
    let figures = figures("EchoPost", SIZE, &after_outage(|server| server), OUTAGE);
    let (mean, peak) = figures.probes;
    let expected = f64::from(SIZE.agents) / 5.0;
    assert!((0.95..1.05).contains(&(mean / expected)), "{figures:?}");
    assert!(peak < mean * 1.25, "{figures:?}");
}

#[test]
fn a_recovered_server_is_not_overrun() {
    let fleet = after_outage(|server| server);
    let tally = fleet.play::<EchoPost>();
    expect(&Figures::of(SIZE, &tally, OUTAGE), SIZE, 1.6);
    assert_eq!(tally.delivered, 400_000);
    // No second of a minute stands out.
    for minute in tally.between(OUTAGE, tally.drained).chunks_exact(60) {
        let (mean, peak) = mean_and_peak(minute.iter().map(Second::all));
        assert!(
            peak < mean * 1.35,
            "{peak} in one second, {mean} on average"
        );
    }
}

#[test]
fn a_server_that_sheds_probes_is_not_overrun_either() {
    let fleet = after_outage(Server::sheds_probes);
    expect(&figures("probes shed", SIZE, &fleet, OUTAGE), SIZE, 1.4);
}

#[test]
fn without_retry_after_the_back_off_spreads_the_fleet() {
    let fleet = SIZE.fleet(SEED, None, |server| server);
    expect(&figures("no Retry-After", SIZE, &fleet, OUTAGE), SIZE, 2.2);
}

#[test]
fn a_date_that_all_are_told_does_not_bring_all_at_once() {
    let reopens = OUTAGE + 60 * SECOND;
    let date = httpdate::fmt_http_date(clock(reopens));
    let fleet = SIZE.fleet(SEED, Some(date), |server| server.closed(OUTAGE..reopens));
    expect(&figures("one date", SIZE, &fleet, reopens), SIZE, 1.4);
}

#[test]
fn a_server_of_a_fifth_of_the_capacity_is_drained_too() {
    let small = Size {
        capacity: SIZE.capacity / 5,
        records: 50,
        ..SIZE
    };
    let fleet = small.fleet(SEED, Some("5".to_owned()), |server| server);
    // The probes alone, one in 5 s an agent, are as many as it takes.
    expect(&figures("small", small, &fleet, OUTAGE), small, 3.5);
}

#[test]
fn a_server_that_goes_again_finds_no_herd_when_it_is_back() {
    let back = OUTAGE + 90 * SECOND;
    let fleet = after_outage(|server| server.away(OUTAGE + 30 * SECOND..back));
    let tally = fleet.play::<EchoPost>();
    let figures = Figures::of(SIZE, &tally, back);
    assert!(figures.overload < 1.6, "{figures:?}");
    assert_eq!(tally.delivered, 400_000);
    let away = tally.between(OUTAGE + 30 * SECOND, back);
    let (_, peak) = mean_and_peak(away.iter().map(Second::all));
    assert!(peak < f64::from(SIZE.agents), "{peak} in one second");
}

#[test]
fn the_go_agents_rules_are_worse_by_far() {
    let fleet = after_outage(|server| server);
    let ours = figures("EchoPost", SIZE, &fleet, OUTAGE);
    let tally = fleet.play::<GoAgent>();
    let theirs = Figures::of(SIZE, &tally, OUTAGE);
    println!("{}", theirs.line("Go agent"));
    assert_eq!(tally.delivered, 400_000);
    assert!(theirs.probes.1 > 4.0 * ours.probes.1, "{theirs:?}");
    assert!(theirs.overload > 20.0 * ours.overload, "{theirs:?}");
    assert!(theirs.tries > 15.0 * ours.tries, "{theirs:?}");
}

#[test]
fn a_hot_loop_is_counted_as_it_is_played() {
    let small = Size {
        agents: 200,
        records: 25,
        // No divisor of a round trip: places come free at all its moments.
        capacity: 230,
    };
    for seed in 1..=3 {
        let fleet = small.fleet(seed, None, |server| {
            server.away(OUTAGE + 7 * SECOND..OUTAGE + 8 * SECOND)
        });
        let counted = fleet.play_with::<GoAgent>(true);
        let played = fleet.play_with::<GoAgent>(false);
        assert_eq!(counted.drained, played.drained, "seed {seed}");
        assert_eq!(counted.delivered, played.delivered, "seed {seed}");
        let difference = counted.requests() - played.requests();
        assert!(difference.abs() < 1.0, "seed {seed}: {difference}");
        for (second, (one, other)) in counted.seconds.iter().zip(&played.seconds).enumerate() {
            let difference = one.all() - other.all();
            // A round of all that is cut by the end of a second.
            let round = f64::from(small.agents);
            assert!(difference.abs() <= round, "second {second}: {difference}");
        }
    }
}

#[test]
fn a_seed_brings_a_fleet_back() {
    let fleet = after_outage(|server| server);
    let play = || Figures::of(SIZE, &fleet.play::<EchoPost>(), OUTAGE);
    assert_eq!(play(), play());
    let other = SIZE.fleet(2, Some("5".to_owned()), |server| server);
    assert_ne!(play(), Figures::of(SIZE, &other.play::<EchoPost>(), OUTAGE));
}
