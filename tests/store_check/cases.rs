//! Ways to damage the pages of a store.

use std::collections::BTreeSet;

use crate::store::Dice;
use crate::truth::{Healthy, PAGE};

/// A damaged store.
pub struct Case {
    pub what: String,
    pub bytes: Vec<u8>,
    /// Those that are not what they were.
    pub pages: BTreeSet<usize>,
}

/// Every kind of damage to one page.
pub fn cases(healthy: &Healthy, page: usize, dice: &mut Dice) -> Vec<Case> {
    let mut cases = Vec::new();
    let start = page * PAGE;
    let mut add = |what: &str, other: Option<usize>, damage: &mut dyn FnMut(&mut Vec<u8>)| {
        let mut bytes = healthy.bytes.clone();
        damage(&mut bytes);
        let mut pages = BTreeSet::from([page]);
        pages.extend(other);
        cases.push(Case {
            what: format!("page {page} {what}"),
            bytes,
            pages,
        });
    };
    add("zeroed", None, &mut |bytes| {
        bytes[start..start + PAGE].fill(0)
    });
    add("ones", None, &mut |bytes| {
        bytes[start..start + PAGE].fill(0xFF)
    });
    add("random", None, &mut |bytes| {
        dice.fill(&mut bytes[start..start + PAGE])
    });
    add("half torn", None, &mut |bytes| {
        bytes[start + 512..start + PAGE].fill(0)
    });
    let other = dice.below(healthy.pages() as u64) as usize;
    add("swapped", Some(other), &mut |bytes| {
        for at in 0..PAGE {
            bytes.swap(start + at, other * PAGE + at);
        }
    });
    add("copied from another", None, &mut |bytes| {
        bytes.copy_within(other * PAGE..(other + 1) * PAGE, start);
    });
    // The header, the first pointers and nodes, the last node; all that a meta
    // page has.
    let dense = if page < 2 { 152 } else { 24 };
    let places: Vec<usize> = (0..12).map(|_| dice.below(PAGE as u64) as usize).collect();
    for at in (0..dense).chain(places) {
        let bit = 1 << dice.below(8);
        add(&format!("byte {at} xor {bit}"), None, &mut |bytes| {
            bytes[start + at] ^= bit
        });
    }
    for at in [0, 2, 4, 6, 8, 10, 12, 14, 16, 18] {
        let word = dice.next().to_le_bytes();
        add(&format!("random 16 bits at {at}"), None, &mut |bytes| {
            bytes[start + at..start + at + 2].copy_from_slice(&word[..2]);
        });
    }
    let last: BTreeSet<usize> = (page..healthy.pages()).collect();
    for cut in [0, 1, 100, PAGE / 2] {
        let bytes = healthy.bytes[..start + cut].to_vec();
        cases.push(Case {
            what: format!("cut at page {page} + {cut}"),
            bytes,
            pages: last.clone(),
        });
    }
    cases
}

/// Random bytes here and there on up to eight pages.
pub fn several(healthy: &Healthy, dice: &mut Dice) -> Case {
    let (mut bytes, mut pages) = (healthy.bytes.clone(), BTreeSet::new());
    for _ in 0..1 + dice.below(8) {
        let page = dice.below(healthy.pages() as u64) as usize;
        let at = page * PAGE + dice.below(PAGE as u64 - 64) as usize;
        let length = 1 + dice.below(64) as usize;
        dice.fill(&mut bytes[at..at + length]);
        pages.insert(page);
    }
    Case {
        what: format!("pages {pages:?}"),
        bytes,
        pages,
    }
}
