//! Damaged stores (spec 4): the agent serves whatever it finds, sets it aside
//! whole, and delivers what can still be read.

mod cases;
mod outcome;
mod store;
use crate::support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::fixture::{self, side_by_side};
use cases::{Case, Data};
use outcome::serve;
use store::{DEADLINE, Left, Recipe};
use support::agent::names_in;
use support::memory_folder;
use support::rng::{Rng, rounds};
use support::server::MainServer;
use support::wait;

/// Of the possible damages so many are tried.
const CASES: usize = 60;
/// Agents at once: most of their time they wait for the moment to leave.
const PARALLELISM: usize = 40;

const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "buffered",
        count: 90,
        size: 20_000,
        delivered: 0,
        more: 0,
        clean: false,
        trusted: false,
    },
    Recipe {
        name: "half replayed",
        count: 100,
        size: 40_000,
        delivered: 50,
        more: 20,
        clean: false,
        trusted: false,
    },
    Recipe {
        name: "stopped in order",
        count: 60,
        size: 60_000,
        delivered: 25,
        more: 30,
        clean: true,
        trusted: false,
    },
    Recipe {
        name: "garbled at rest",
        count: 100,
        size: 20_000,
        delivered: 30,
        more: 40,
        clean: false,
        trusted: true,
    },
];

#[test]
fn whatever_is_left_of_a_store_the_agent_serves_and_saves_what_can_be_read() {
    let mut rng = Rng::seeded();
    let stores = RECIPES.map(|recipe| Left::make(&recipe, &mut rng));
    let mut cases: Vec<Case> = Vec::new();
    let mut possible: Vec<Case> = Vec::new();
    for left in &stores {
        cases.extend(cases::certain(left, &mut rng));
        possible.extend(cases::possible(left, &mut rng));
    }
    let (certain, all) = (cases.len(), possible.len());
    let wanted = rounds(CASES);
    while cases.len() < certain + wanted && !possible.is_empty() {
        let chosen = rng.index(possible.len());
        cases.push(possible.swap_remove(chosen));
    }
    let place = memory_folder();
    let (next, replaced) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let crashed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..PARALLELISM {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { return };
                    let base = place.path().join(at.to_string());
                    case.build(&base);
                    let outcome = serve(&base, &case.what);
                    outcome.check(case);
                    crashed.fetch_add(outcome.crashes, Ordering::Relaxed);
                    replaced.fetch_add(usize::from(outcome.corrupt.is_some()), Ordering::Relaxed);
                    fs::remove_dir_all(base).unwrap();
                }
            });
        }
    });
    let (count, replaced) = (cases.len(), replaced.into_inner());
    println!("{count} damages, {certain} certain ones and some of {all}; {replaced} replaced");
    println!("{} agents died of a store", crashed.into_inner());
    assert!(replaced > count / 3 && replaced < count);
}

#[test]
fn one_garbled_record_is_set_aside_alone() {
    let mut rng = Rng::seeded();
    let left = Left::make(&RECIPES[0], &mut rng);
    let keys: Vec<u64> = left.layout.records.keys().copied().collect();
    let large = |key: &u64| left.layout.records[key].pages.len() > 1;
    let large = *keys.iter().find(|key| large(key)).expect("a large one");
    let place = memory_folder();
    let some = [keys[0], keys[keys.len() / 2], large, keys[keys.len() - 1]];
    side_by_side(some, |key| {
        let case = cases::one_byte(&left, key);
        let base = place.path().join(key.to_string());
        case.build(&base);
        let outcome = serve(&base, &case.what);
        assert!(outcome.corrupt.is_none(), "{}", case.what);
        assert_eq!(outcome.set_aside.len(), 1, "{}", case.what);
        assert_eq!(outcome.set_aside[0]["key"], key);
        assert_eq!(outcome.set_aside[0]["intact"], false);
        let own = left.idempotency_key(key);
        let record = &left.layout.records[&key].record;
        if record.idempotency_key.is_empty() {
            assert_eq!(outcome.set_aside[0]["idempotency_key"], own);
        }
        let expected = keys.iter().filter(|other| **other != key);
        let expected: Vec<String> = expected.map(|key| left.idempotency_key(*key)).collect();
        assert_eq!(outcome.idempotency_keys(), expected, "{}", case.what);
    });
}

/// Kills the agent at moments of its work on a damaged store.
#[test]
fn a_kill_while_records_are_carried_over_loses_none_of_them() {
    let mut rng = Rng::seeded();
    let recipe = Recipe {
        name: "larger",
        count: 700,
        size: 300_000,
        ..RECIPES[0]
    };
    let left = Left::make(&recipe, &mut rng);
    let mut bytes = left.data.clone();
    let page = left.layout.root.expect("a root");
    bytes[left.layout.pages.range(page)].fill(0);
    let case = Case {
        left: &left,
        what: "a kill".to_owned(),
        data: Data::Bytes(bytes),
        touched: [page].into(),
    };
    let place = memory_folder();
    let (base, away) = (place.path().join("base"), MainServer::new_down());
    case.build(&base);
    let size = left.data.len() as u64;
    let lmdb = base.join("lmdb");
    let is_aside = || {
        names_in(&lmdb)
            .iter()
            .any(|name| name.starts_with("data.mdb.damaged-"))
    };
    let is_begun = || {
        names_in(&lmdb)
            .iter()
            .any(|name| name.starts_with("data.mdb.salvage-"))
    };
    let mut early = 0;
    // The last one may be too late.
    while early < 12 && !is_aside() {
        let until = rng.below(size / 2);
        let new = lmdb.join("data.mdb");
        let mut agent = fixture::spawn(&base, &away);
        wait::until(DEADLINE, "the new store, or its end", || {
            let has_grown = || fs::metadata(&new).is_ok_and(|file| file.len() > until);
            (is_begun() && has_grown()) || is_aside()
        });
        agent.sigkill();
        early += usize::from(!is_aside());
        if early == 0 && is_aside() {
            // Too late already: once more from the start.
            fs::remove_dir_all(&base).unwrap();
            case.build(&base);
        }
    }
    println!("{early} kills while records were carried over");
    assert!(early > 0);
    let mut outcome = serve(&base, &case.what);
    // It may have been printed by an agent that was killed.
    outcome.corrupt = None;
    outcome.check_records(&case);
    outcome.check_aside(&case);
}
