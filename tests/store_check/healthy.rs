//! No sound store is called damaged, and its salvage is its content.

use std::path::Path;

use echopost::limits::STORE_FORMAT;
use echopost::store::check::{Check, Salvage, Step, Verdict};

use crate::store::{Dice, Folder, STORE_ID, Store, live, oldest, salvage, verdict};

fn assert_sound(dir: &Path, store: &Store, what: &str) {
    assert_eq!(verdict(dir), Some(Verdict::Sound), "{what}");
    let saved = salvage(dir);
    assert!(saved.exact, "{what}");
    assert_eq!(saved.store_id, Some(STORE_ID), "{what}");
    assert_eq!(saved.records.len(), store.content.len(), "{what}");
    assert!(
        saved.records.into_iter().eq(store.content.clone()),
        "{what}"
    );
}

#[test]
fn stores_at_every_stage_of_their_lives_are_sound() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let folder = Folder::new();
        let mut store = Store::open(&folder.0);
        assert_sound(&folder.0, &store, "just created");
        for stage in 0..12 {
            for _ in 0..dice.below(12) {
                live(&mut store, &mut dice);
            }
            assert_sound(&folder.0, &store, &format!("seed {seed} stage {stage}"));
        }
        store.close();
    }
}

#[test]
fn large_stores_are_sound_whole_half_and_emptied() {
    let mut dice = Dice(7);
    let folder = Folder::new();
    let mut store = Store::open(&folder.0);
    for _ in 0..100 {
        let sizes: Vec<usize> = (0..500).map(|_| 100 + dice.below(500) as usize).collect();
        store.commit(&sizes, &[], &mut dice);
    }
    assert_sound(&folder.0, &store, "50,000 records");
    // One transaction that frees so many pages that their list needs a run.
    let half = oldest(&store.content, 25_000);
    store.commit(&[], &half, &mut dice);
    assert_sound(&folder.0, &store, "half of them");
    for _ in 0..40 {
        live(&mut store, &mut dice);
    }
    assert_sound(&folder.0, &store, "used on");
    let all = oldest(&store.content, u64::MAX);
    store.commit(&[], &all, &mut dice);
    assert_sound(&folder.0, &store, "emptied");
    store.commit(&[10], &[], &mut dice);
    assert_sound(&folder.0, &store, "one record");
    for _ in 0..10 {
        store.churn(&[200_000, 10, 50_000], &mut dice);
    }
    assert_sound(&folder.0, &store, "churned");
    store.close();
}

#[test]
fn what_is_no_store() {
    let folder = Folder::new();
    let nothing = |folder: &Folder| {
        assert!(Check::open(&folder.0).unwrap().is_none());
        assert_eq!(Salvage::open(&folder.0).unwrap().step(), Step::Done);
    };
    nothing(&folder);
    std::fs::write(folder.data(), b"").unwrap();
    nothing(&folder);
    let mut dice = Dice(1);
    for size in [1, 16, 151, 152, 4096, 4097, 8191, 8192, 100_000] {
        let mut bytes = vec![0; size];
        for zeroed in [true, false] {
            std::fs::write(folder.data(), &bytes).unwrap();
            assert!(
                matches!(verdict(&folder.0), Some(Verdict::Damaged(_))),
                "{size} {zeroed}"
            );
            assert!(salvage(&folder.0).records.is_empty());
            dice.fill(&mut bytes);
        }
    }
    std::fs::remove_file(folder.data()).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.data()).unwrap();
    assert!(matches!(verdict(&folder.0), Some(Verdict::Damaged(_))));
    std::fs::remove_file(folder.data()).unwrap();
    std::fs::create_dir(folder.data()).unwrap();
    assert!(matches!(verdict(&folder.0), Some(Verdict::Damaged(_))));
    assert!(salvage(&folder.0).records.is_empty());
    assert!(verdict(&folder.0.join("data.mdb")).is_none());
    let file = Folder::holding(b"x");
    assert!(matches!(verdict(&file.data()), Some(Verdict::Damaged(_))));
}

#[test]
fn another_format_is_damage_that_says_so() {
    let folder = Folder::new();
    let mut store = Store::open(&folder.0);
    store.commit(&[10, 20], &[], &mut Dice(3));
    let (content, _) = store.close();
    let mut bytes = std::fs::read(folder.data()).unwrap();
    let mut node = b"format".to_vec();
    node.extend_from_slice(&STORE_FORMAT.to_le_bytes());
    let places: Vec<usize> = (0..bytes.len() - node.len())
        .filter(|at| bytes[*at..].starts_with(&node))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + b"format".len()] = 9;
    }
    std::fs::write(folder.data(), &bytes).unwrap();
    assert_eq!(
        verdict(&folder.0),
        Some(Verdict::Damaged("format 9 instead of 1".into()))
    );
    assert!(salvage(&folder.0).records.into_iter().eq(content));
}
