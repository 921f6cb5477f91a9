//! The fuzzer's corpora as ordinary tests: what was ever found stays found.

use crate::properties;

use std::path::Path;

#[test]
fn every_property_holds_for_its_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for (name, property) in properties::ALL {
        let mut count = 0;
        for entry in std::fs::read_dir(corpora.join(name)).unwrap() {
            let input = std::fs::read(entry.unwrap().path()).unwrap();
            property(&input);
            // Every cut of it, too.
            (0..input.len().min(300)).for_each(|length| property(&input[..length]));
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}
