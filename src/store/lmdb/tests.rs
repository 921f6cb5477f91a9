use super::*;

/// KiB of files of that name that this process has mapped in (proc_pid_smaps(5)).
fn mapped_kib(path: &Path) -> u64 {
    let path = fs::canonicalize(path).unwrap();
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines();
    let mut kib = 0;
    while let Some(line) = lines.next() {
        if line.ends_with(path.to_str().unwrap()) {
            let rss = lines.find_map(|line| line.strip_prefix("Rss:"));
            let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB"));
            kib += rss.unwrap().parse::<u64>().unwrap();
        }
    }
    kib
}

#[test]
fn few_pages_are_mapped_while_many_records_are_deleted_or_counted() {
    const RECORDS: u64 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let mut store = Lmdb::open(&folder.path().join("lmdb"), None, None).unwrap();
    let value = [0; 300];
    store
        .write(RECORDS * 300, &mut |_, trees, txn| {
            (1..=RECORDS).try_for_each(|key| trees.append(txn, false, key, &value))
        })
        .unwrap();
    let data = store.folder().join(DATA_FILE);
    let few = |what: &str| {
        let kib = mapped_kib(&data);
        assert!(kib < 512, "{kib} KiB after {what}");
    };
    store.return_pages();
    assert_eq!(store.key_of_first(4_000, RECORDS).unwrap(), 4_000);
    few("key_of_first");
    assert_eq!(store.count_through(4_000).unwrap(), 4_000);
    few("count_through");
    store
        .write(0, &mut |store, trees, txn| {
            trees.delete_through(store, txn, 4_000)?;
            few("delete_through");
            Ok(())
        })
        .unwrap();
    assert_eq!(store.count().unwrap(), RECORDS - 4_000);
    store.read_after(0).unwrap();
    few("read_after");
}

/// It would be an acknowledgement of nothing.
#[test]
fn a_key_that_is_there_already_is_an_error_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Lmdb::open(&folder.path().join("lmdb"), None, None).unwrap();
    for (keys, is_stored) in [
        ([1, 5], true),
        ([6, 5], false),
        ([3, 7], false),
        ([6, 7], true),
    ] {
        let stored = store.write(2, &mut |_, trees, txn| {
            keys.iter()
                .try_for_each(|key| trees.append(txn, false, *key, b"x"))
        });
        match is_stored {
            true => stored.unwrap(),
            false => assert!(matches!(stored, Err(Error::Damaged(_))), "{stored:?}"),
        }
    }
    let keys = store.read_after(0).unwrap().into_iter().map(|(key, _)| key);
    assert!(keys.eq([1, 5, 6, 7]));
}
