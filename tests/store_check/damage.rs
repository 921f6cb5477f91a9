//! Damage of every page of real stores: nothing panics or hangs, what is called
//! sound serves LMDB, and no record whose pages are intact is lost.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use echopost::store::check::{Check, Verdict};

use crate::cases::{Case, cases, several};
use crate::store::{Content, Dice, Folder, Store, is_right, live, oldest, salvage, verdict};
use crate::truth::{Healthy, PAGE, number};

const JOBS: &str = "ECHOPOST_CHECK_JOBS";

/// Runs the check and the salvage of one case; whether it was called sound.
fn examine(healthy: &Healthy, case: &Case, folder: &Folder) -> bool {
    let what = &case.what;
    let judged = verdict(&folder.0);
    let saved = salvage(&folder.0);
    let sound = judged == Some(Verdict::Sound);
    assert!(
        !sound || saved.exact,
        "{what}: sound, but the salvage sees damage"
    );
    let found: Content = saved.records.into_iter().collect();
    if saved.exact {
        assert_eq!(found.len(), healthy.content.len(), "{what}: {judged:?}");
    }
    for (key, value) in &found {
        let known = healthy.ever.get(key) == Some(value);
        assert!(known || !is_right(*key, value), "{what}: invents {key}");
    }
    for (key, value) in &healthy.content {
        let hit = healthy.places[key]
            .intersection(&case.pages)
            .next()
            .is_some();
        assert!(
            hit || found.get(key) == Some(value),
            "{what}: loses {key}: {judged:?}"
        );
    }
    sound
}

/// Damages every page in every way.
fn torture(name: &str, healthy: &Healthy, dice: &mut Dice) {
    let base = Folder::new();
    let (mut jobs, mut sound, mut damaged) = (Vec::new(), 0, 0);
    for page in 0..healthy.pages() {
        for case in cases(healthy, page, dice) {
            let folder = Folder::holding(&case.bytes);
            if examine(healthy, &case, &folder) {
                sound += 1;
                jobs.push((folder, case.what, case.pages));
            } else {
                damaged += 1;
            }
        }
        if jobs.len() > 200 {
            serve(&base, healthy, &jobs);
            jobs.clear();
        }
    }
    serve(&base, healthy, &jobs);
    println!(
        "{name}: {} pages, {damaged} damaged, {sound} sound",
        healthy.pages()
    );
    assert!(damaged > 0 && sound > 0);
}

/// Lets LMDB read and write the stores that were called sound, in a child, whose
/// death by a signal names the store.
fn serve(base: &Folder, healthy: &Healthy, jobs: &[(Folder, String, BTreeSet<usize>)]) {
    let list = base.0.join("jobs");
    let mut lines = String::new();
    for (folder, what, _) in jobs {
        writeln!(lines, "{}\t{what}", folder.0.display()).unwrap();
    }
    fs::write(&list, lines).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "damage::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(JOBS, &list)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let last = printed
        .lines()
        .rfind(|line| line.starts_with("job "))
        .unwrap_or("");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{:?} at {last}: {stderr}",
        output.status
    );
    for (folder, what, pages) in jobs {
        let read = records(&fs::read(folder.0.join("dump")).unwrap());
        assert_eq!(read.len(), healthy.content.len(), "{what}");
        for (key, value) in &healthy.content {
            let hit = healthy.places[key].intersection(pages).next().is_some();
            assert!(hit || read.get(key) == Some(value), "{what}: {key}");
        }
        let strange = read
            .iter()
            .filter(|(key, value)| healthy.content.get(key) != Some(value));
        for (key, value) in strange {
            assert!(!is_right(*key, value), "{what}: invents {key}");
        }
    }
}

fn dump(content: &Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in content {
        bytes.extend_from_slice(&key.to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

fn records(mut bytes: &[u8]) -> Content {
    let mut content = Content::new();
    while !bytes.is_empty() {
        let end = 16 + number::<8>(bytes, 8) as usize;
        content.insert(number::<8>(bytes, 0), bytes[16..end].to_vec());
        bytes = &bytes[end..];
    }
    content
}

/// Not a test of its own: what [`serve`] runs in another process.
#[test]
fn child() {
    let Some(list) = std::env::var_os(JOBS) else {
        return;
    };
    for (index, line) in fs::read_to_string(list).unwrap().lines().enumerate() {
        println!("\njob {line}");
        let dir: PathBuf = line.split('\t').next().unwrap().into();
        use_store(&dir, &mut Dice(index as u64));
    }
}

/// Reads everything, then 50 transactions, then everything again.
fn use_store(dir: &Path, dice: &mut Dice) {
    let mut store = Store::open(dir);
    fs::write(dir.join("dump"), dump(&store.content)).unwrap();
    for _ in 0..50 {
        let count = dice.below(6);
        let sizes: Vec<usize> = (0..count).map(|_| dice.below(3000) as usize).collect();
        let mut deletes = oldest(&store.content, dice.below(3));
        deletes.extend(
            store
                .content
                .keys()
                .copied()
                .skip(3)
                .filter(|_| dice.below(40) == 0),
        );
        store.commit(&sizes, &deletes, dice);
    }
    let (content, _) = store.close();
    let (again, _) = Store::open(dir).close();
    assert_eq!(again, content);
    assert_eq!(verdict(dir), Some(Verdict::Sound));
}

#[test]
fn a_young_store_in_every_way() {
    let mut dice = Dice(11);
    let folder = Folder::new();
    let mut store = Store::open(&folder.0);
    store.commit(&[10, 200, 3000, 0, 9000], &[], &mut dice);
    let first = oldest(&store.content, 1);
    store.commit(&[50], &first, &mut dice);
    torture("young", &Healthy::new(&folder, store), &mut dice);
}

#[test]
fn a_store_with_a_past_in_every_way() {
    let mut dice = Dice(12);
    let folder = Folder::new();
    let mut store = Store::open(&folder.0);
    for round in 0..30 {
        let sizes: Vec<usize> = (0..20).map(|_| dice.below(600) as usize).collect();
        let deletes = if round < 15 {
            Vec::new()
        } else {
            oldest(&store.content, 15)
        };
        store.commit(&sizes, &deletes, &mut dice);
    }
    store.commit(&[2500, 20_000], &[], &mut dice);
    let healthy = Healthy::new(&folder, store);
    assert!(!healthy.branches.is_empty());
    torture("past", &healthy, &mut dice);
}

#[test]
fn a_store_with_large_values_in_every_way() {
    let mut dice = Dice(13);
    let folder = Folder::new();
    let mut store = Store::open(&folder.0);
    store.commit(&[40_000, 300], &[], &mut dice);
    let first = oldest(&store.content, 1);
    store.commit(&[60_000, 30_000, 1, 5000], &first, &mut dice);
    store.churn(&[8000; 3], &mut dice);
    torture("large", &Healthy::new(&folder, store), &mut dice);
}

#[test]
fn random_pages_of_many_stores() {
    let (mut dice, base) = (Dice(14), Folder::new());
    for seed in 0..40 {
        let mut life = Dice(1000 + seed);
        let folder = Folder::new();
        let mut store = Store::open(&folder.0);
        for _ in 0..5 + life.below(20) {
            live(&mut store, &mut life);
        }
        let healthy = Healthy::new(&folder, store);
        let mut jobs = Vec::new();
        for _ in 0..4 {
            let page = dice.below(healthy.pages() as u64) as usize;
            let all = cases(&healthy, page, &mut dice);
            let mut chosen: Vec<Case> = all.into_iter().filter(|_| dice.below(8) == 0).collect();
            chosen.truncate(4);
            chosen.push(several(&healthy, &mut dice));
            for case in chosen {
                let folder = Folder::holding(&case.bytes);
                if examine(&healthy, &case, &folder) {
                    jobs.push((folder, case.what, case.pages));
                }
            }
        }
        serve(&base, &healthy, &jobs);
    }
}

#[test]
fn a_bad_free_list_costs_no_record_and_brings_none_back() {
    let mut dice = Dice(15);
    let folder = Folder::new();
    let mut store = Store::open(&folder.0);
    for _ in 0..20 {
        let deletes = oldest(&store.content, 10);
        store.commit(&[300; 20], &deletes, &mut dice);
    }
    let healthy = Healthy::new(&folder, store);
    let start = healthy.free_root * PAGE;
    let mut bytes = healthy.bytes.clone();
    bytes[start..start + PAGE].fill(0);
    let folder = Folder::holding(&bytes);
    assert!(matches!(verdict(&folder.0), Some(Verdict::Damaged(_))));
    let saved = salvage(&folder.0);
    assert!(saved.exact);
    assert!(saved.records.into_iter().eq(healthy.content));
}

/// Each transaction takes the oldest record and adds one, so that the stale pages
/// are trees of the same shape: only that they are free gives them away.
#[test]
fn a_stale_root_is_damage_and_costs_no_record() {
    let mut dice = Dice(17);
    let folder = Folder::new();
    let mut store = Store::open(&folder.0);
    store.commit(&[100; 8], &[], &mut dice);
    for _ in 0..20 {
        let first = oldest(&store.content, 1);
        store.commit(&[100], &first, &mut dice);
    }
    let healthy = Healthy::new(&folder, store);
    let root = number::<8>(&healthy.bytes, healthy.root_at);
    let mut stale = 0;
    for page in 0..healthy.pages() as u64 {
        let mut bytes = healthy.bytes.clone();
        bytes[healthy.root_at..healthy.root_at + 8].copy_from_slice(&page.to_le_bytes());
        let case = Case {
            what: format!("root {page}"),
            bytes,
            pages: BTreeSet::new(),
        };
        let folder = Folder::holding(&case.bytes);
        assert_eq!(examine(&healthy, &case, &folder), page == root, "{page}");
        let Some(Verdict::Damaged(why)) = verdict(&folder.0) else {
            continue;
        };
        stale += u32::from(why.ends_with("has two uses"));
    }
    assert!(stale > 1);
}

#[test]
fn the_check_reads_in_turns() {
    let mut dice = Dice(16);
    let folder = Folder::new();
    let mut store = Store::open(&folder.0);
    store.commit(&[300; 500], &[], &mut dice);
    store.close();
    let mut check = Check::open(&folder.0).unwrap().unwrap();
    let turns = (0..10_000).take_while(|_| check.step(1).is_none()).count();
    assert!(turns > 30, "{turns}");
    assert_eq!(check.step(1), Some(Verdict::Sound));
    let mut check = Check::open(&folder.0).unwrap().unwrap();
    assert_eq!(check.step(100_000), Some(Verdict::Sound));
}
