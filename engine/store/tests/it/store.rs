//! The suite on the embedded store, and what only it promises: the lock, the format, reopening, metrics, futures.

use ringway_store::testing::conformance;
use ringway_store::{Batch, Durability, Embedded, OpenError, Options, Scan, Store, StoreError};

use crate::tools::{open, small};

#[test]
fn the_suite_holds() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    conformance(|| {
        number.set(number.get() + 1);
        open(&folder.path().join(number.get().to_string())).0
    });
}

#[test]
fn what_was_committed_is_there_after_closing_and_after_not_closing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..6_u32 {
        let (store, report) = open(folder.path());
        assert_eq!(report.damage, []);
        assert_eq!(report.revision, u64::from(round) * 100);
        for number in 0..100_u32 {
            let key = (round * 100 + number).to_be_bytes();
            store.commit(Batch::new().put("t", &key, vec![1; 500]), Durability::Durable).unwrap();
        }
        if round % 2 == 0 {
            store.abandon();
        } else {
            store.close().unwrap();
        }
    }
    let (store, _) = open(folder.path());
    assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), 600);
    assert_eq!(store.verify(), []);
}

/// A segment of the log is used again when the index has what is in it; until then every crash leaves one.
#[test]
fn a_store_that_crashes_again_and_again_keeps_a_few_segments() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20_u32 {
        let options = Options { memory_bytes: 32 << 20, ..small() };
        let (store, report) = Embedded::open(folder.path(), options).unwrap();
        assert_eq!(report.damage, []);
        store.commit(Batch::new().put("t", &round.to_be_bytes(), vec![1; 500]), Durability::Durable).unwrap();
        assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), round as usize + 1);
        store.abandon();
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let segments = names.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).count();
        assert!(segments <= 3, "{segments} segments after {} crashes", round + 1);
    }
}

#[test]
fn two_engines_never_have_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    let error = Embedded::open(folder.path(), small()).unwrap_err();
    let OpenError::Locked { holder, .. } = &error else { panic!("{error}") };
    assert_eq!(*holder, std::process::id().to_string());
    drop(store);
    open(folder.path());
}

#[test]
fn another_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).0.close().unwrap();
    let text = "ringway-store 2";
    let sum = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    std::fs::write(folder.path().join("FORMAT"), format!("{text} {sum:016x}\n")).unwrap();
    let error = Embedded::open(folder.path(), small()).unwrap_err();
    assert!(matches!(error, OpenError::Format { found: 2, wanted: 1, .. }), "{error}");
}

#[test]
fn a_full_queue_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Embedded::open(folder.path(), Options { waiting_max: 4, ..small() }).unwrap();
    let mut busy = 0;
    let mut waiting = Vec::new();
    for number in 0..2000_u32 {
        match store.start(Batch::new().put("t", &number.to_be_bytes(), vec![0; 100]), Durability::Durable) {
            Ok(commit) => waiting.push(commit),
            Err(StoreError::Busy { waiting }) => {
                assert!(waiting >= 4);
                busy += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let taken = waiting.len();
    for commit in waiting {
        commit.wait().unwrap();
    }
    assert!(busy > 0, "2000 commits never filled a queue of 4");
    assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), taken);
    // The blocking form waits instead.
    store.commit(Batch::new().put("t", b"last", vec![]), Durability::Durable).unwrap();
}

#[test]
fn many_share_one_sync() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Embedded::open(folder.path(), Options::default()).unwrap();
    let commits: Vec<_> = (0..1000_u32)
        .map(|number| {
            store.start(Batch::new().put("t", &number.to_be_bytes(), vec![0; 256]), Durability::Durable)
        })
        .collect();
    for commit in commits {
        futures_lite::future::block_on(commit.unwrap()).unwrap();
    }
    let metrics = store.metrics();
    assert_eq!(metrics.commits, 1000);
    assert!(metrics.syncs < 500 && metrics.groups == metrics.syncs, "{metrics:?}");
    assert!(metrics.largest_group > 1 && metrics.bytes > 256_000, "{metrics:?}");
    assert_eq!(metrics.latency.iter().sum::<u64>(), metrics.groups);
    store.close().unwrap();
}

#[test]
fn a_closed_store_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    store.commit(Batch::new().put("t", b"k", &b"v"[..]), Durability::Ephemeral).unwrap();
    store.close().unwrap();
    let (store, report) = open(folder.path());
    assert_eq!(report.replayed, 0, "a closed store leaves nothing in the log");
    assert!(store.get("t", b"k").unwrap().is_some());
}
