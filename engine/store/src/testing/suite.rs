//! What every store must do, as one function over the trait. It must not know which store it is given.

use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::batch::{Batch, Durability};
use crate::error::StoreError;
use crate::limits;
use crate::store::{Entry, Scan, Store};

/// Runs every check on a store of its own.
///
/// # Panics
/// If one does not hold.
pub fn conformance<S: Store>(make: impl Fn() -> S) {
    values(&make());
    batches(&make());
    preconditions(&make());
    scans(&make());
    snapshots(&make());
    revisions(&make());
    racing_counters(&make());
    limits_are_told(&make());
    callbacks(&make());
}

const DURABLE: Durability = Durability::Durable;

#[track_caller]
fn commit(store: &impl Store, batch: Batch) -> u64 {
    match store.commit(batch, DURABLE) {
        Ok(revision) => revision,
        Err(error) => panic!("wanted a commit, found: {error}"),
    }
}

#[track_caller]
fn bytes(store: &impl Store, table: &str, key: &[u8]) -> Option<Vec<u8>> {
    match store.get(table, key) {
        Ok(found) => found.map(|value| value.bytes.to_vec()),
        Err(error) => panic!("wanted a value, found: {error}"),
    }
}

#[track_caller]
fn keys(store: &impl Store, scan: &Scan) -> Vec<Vec<u8>> {
    match store.scan(scan) {
        Ok(entries) => entries.into_iter().map(|entry| entry.key).collect(),
        Err(error) => panic!("wanted entries, found: {error}"),
    }
}

fn values(store: &impl Store) {
    assert_eq!(bytes(store, "t", b"k"), None);
    let revision = commit(store, Batch::new().put("t", b"k", &b"v"[..]));
    let value = store.get("t", b"k").ok().flatten();
    assert_eq!(
        value.as_ref().map(|value| (value.revision, value.bytes.to_vec())),
        Some((revision, b"v".to_vec()))
    );
    commit(store, Batch::new().put("t", b"k", &b""[..]));
    assert_eq!(bytes(store, "t", b"k"), Some(Vec::new()), "empty is not absent");
    assert_eq!(bytes(store, "other", b"k"), None, "tables are apart");
    commit(store, Batch::new().put("t", b"", &b"empty key"[..]));
    assert_eq!(bytes(store, "t", b""), Some(b"empty key".to_vec()));
    let every: Vec<u8> = (0..=255).collect();
    commit(store, Batch::new().put("t", &every, every.clone()));
    assert_eq!(bytes(store, "t", &every), Some(every));
    commit(store, Batch::new().delete("t", b"k").delete("t", b"never there"));
    assert_eq!(bytes(store, "t", b"k"), None);
    let large = vec![7; 1 << 20];
    commit(store, Batch::new().put("t", b"large", large.clone()));
    assert_eq!(bytes(store, "t", b"large"), Some(large));
}

fn batches(store: &impl Store) {
    let batch = Batch::new().put("a", b"1", &b"x"[..]).put("b", b"1", &b"y"[..]).delete("a", b"1");
    let revision = commit(store, batch.put("a", b"2", &b"first"[..]).put("a", b"2", &b"last"[..]));
    assert_eq!(bytes(store, "a", b"1"), None, "the last change of a key counts");
    assert_eq!(bytes(store, "a", b"2"), Some(b"last".to_vec()));
    assert_eq!(store.get("b", b"1").ok().flatten().map(|value| value.revision), Some(revision));
    assert!(commit(store, Batch::new()) > revision, "an empty batch has a revision too");
}

fn preconditions(store: &impl Store) {
    let first = commit(store, Batch::new().expect_absent("t", b"k").put("t", b"k", &b"1"[..]));
    let refuse = |batch: Batch, expected: (usize, Option<u64>)| {
        let outcome = store.commit(batch.put("t", b"side effect", &b""[..]), DURABLE);
        let (number, found) = expected;
        assert_eq!(outcome, Err(StoreError::Precondition { number, found }));
        assert_eq!(bytes(store, "t", b"side effect"), None, "a refused batch writes nothing");
    };
    refuse(Batch::new().expect_absent("t", b"k"), (0, Some(first)));
    refuse(Batch::new().expect_revision("t", b"k", first + 1), (0, Some(first)));
    refuse(Batch::new().expect_revision("t", b"absent", 1), (0, None));
    refuse(Batch::new().expect_bytes("t", b"k", b"2".to_vec()), (0, Some(first)));
    refuse(Batch::new().expect_bytes("t", b"k", b"1".to_vec()).expect_absent("t", b"k"), (1, Some(first)));
    let batch = Batch::new().expect_revision("t", b"k", first).expect_bytes("t", b"k", b"1".to_vec());
    let second = commit(store, batch.put("t", b"k", &b"2"[..]));
    assert!(second > first);
    commit(store, Batch::new().delete("t", b"k"));
    commit(store, Batch::new().expect_absent("t", b"k").put("t", b"k", &b"3"[..]));
}

fn scans(store: &impl Store) {
    let mut batch = Batch::new().put("before", b"z", &b""[..]).put("u", b"", &b""[..]);
    for number in 0..600_u16 {
        batch = batch.put("t", &number.to_be_bytes(), number.to_le_bytes().to_vec());
    }
    commit(store, batch);
    let mut batch = Batch::new();
    for number in (0..600_u16).step_by(3) {
        batch = batch.delete("t", &number.to_be_bytes());
    }
    commit(store, batch);
    let expected: Vec<Vec<u8>> =
        (0..600_u16).filter(|number| number % 3 != 0).map(|number| number.to_be_bytes().to_vec()).collect();
    assert_eq!(keys(store, &Scan::table("t")), expected);
    let backwards: Vec<Vec<u8>> = expected.iter().rev().cloned().collect();
    assert_eq!(keys(store, &Scan::table("t").reverse()), backwards);
    assert_eq!(keys(store, &Scan::table("t").limit(7)), expected[..7]);
    assert_eq!(keys(store, &Scan::table("t").reverse().limit(7)), backwards[..7]);
    assert_eq!(keys(store, &Scan::table("t").limit(0)), Vec::<Vec<u8>>::new());
    let of_one: Vec<Vec<u8>> = expected.iter().filter(|key| key[0] == 1).cloned().collect();
    assert_eq!(keys(store, &Scan::table("t").prefix(&[1])), of_one);
    let (from, to) = (expected[10].as_slice(), expected[20].as_slice());
    let check = |from: Bound<&[u8]>, to: Bound<&[u8]>, expected: &[Vec<u8>]| {
        assert_eq!(keys(store, &Scan::table("t").range(from, to)), expected);
        let backwards: Vec<Vec<u8>> = expected.iter().rev().cloned().collect();
        assert_eq!(keys(store, &Scan::table("t").range(from, to).reverse()), backwards);
    };
    check(Bound::Included(from), Bound::Included(to), &expected[10..=20]);
    check(Bound::Excluded(from), Bound::Excluded(to), &expected[11..20]);
    check(Bound::Unbounded, Bound::Excluded(to), &expected[..20]);
    check(Bound::Excluded(from), Bound::Unbounded, &expected[11..]);
    check(Bound::Included(to), Bound::Included(from), &[]);
    assert_eq!(keys(store, &Scan::table("absent")), Vec::<Vec<u8>>::new());
    let empty_key: &[Vec<u8>] = &[Vec::new()];
    assert_eq!(keys(store, &Scan::table("u")), empty_key);
}

fn snapshots(store: &impl Store) {
    commit(store, Batch::new().put("t", b"a", &b"1"[..]).put("t", b"b", &b"1"[..]));
    let Ok(before) = store.snapshot() else { panic!("wanted a snapshot") };
    for round in 0..50_u8 {
        commit(store, Batch::new().put("t", b"a", vec![round; 100]).put("t", &[b'c', round], &b""[..]));
    }
    commit(store, Batch::new().delete("t", b"b"));
    let value = |key: &[u8]| before.get("t", key).ok().flatten().map(|value| value.bytes.to_vec());
    assert_eq!(value(b"a"), Some(b"1".to_vec()));
    assert_eq!(value(b"b"), Some(b"1".to_vec()));
    let entries: Vec<Entry> = before.scan(&Scan::table("t")).unwrap_or_default();
    let seen: Vec<&[u8]> = entries.iter().map(|entry| entry.key.as_slice()).collect();
    assert_eq!(seen, [b"a", b"b"]);
    assert!(before.revision() < commit(store, Batch::new()));
}

fn revisions(store: &impl Store) {
    let mut last = 0;
    for durability in [Durability::Durable, Durability::Ephemeral, Durability::Durable] {
        let revision = store.commit(Batch::new().put("t", b"k", &b"v"[..]), durability).unwrap_or(0);
        assert!(revision > last, "revisions grow");
        last = revision;
        let seen = store.get("t", b"k").ok().flatten().map(|value| value.revision);
        assert_eq!(seen, Some(revision), "a commit is seen by whoever was told of it");
    }
}

/// Threads that count up one number by compare-and-set: none is lost.
fn racing_counters(store: &impl Store) {
    const THREADS: u64 = 4;
    const EACH: u64 = 25;
    commit(store, Batch::new().put("t", b"n", 0_u64.to_le_bytes().to_vec()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut done = 0;
                while done < EACH {
                    let Ok(Some(value)) = store.get("t", b"n") else { panic!("the counter is gone") };
                    let number = value.bytes[..].try_into().map_or(0, u64::from_le_bytes);
                    let batch = Batch::new().expect_revision("t", b"n", value.revision);
                    let batch = batch.put("t", b"n", (number + 1).to_le_bytes().to_vec());
                    match store.commit(batch, DURABLE) {
                        Ok(_) => done += 1,
                        Err(StoreError::Precondition { .. }) => {}
                        Err(error) => panic!("wanted a commit or a refusal, found: {error}"),
                    }
                }
            });
        }
    });
    assert_eq!(bytes(store, "t", b"n"), Some((THREADS * EACH).to_le_bytes().to_vec()));
}

fn limits_are_told(store: &impl Store) {
    let refuse = |batch: Batch| {
        let outcome = store.commit(batch.put("t", b"side effect", &b""[..]), DURABLE);
        assert!(matches!(outcome, Err(StoreError::TooLarge { .. })), "{outcome:?}");
        assert_eq!(bytes(store, "t", b"side effect"), None);
    };
    refuse(Batch::new().put("t", &vec![0; limits::KEY_BYTES_MAX + 1], &b""[..]));
    refuse(Batch::new().put("t", b"k", vec![0; limits::VALUE_BYTES_MAX + 1]));
    refuse(Batch::new().put(&"t".repeat(limits::TABLE_BYTES_MAX + 1), b"k", &b""[..]));
    let key = vec![9; limits::KEY_BYTES_MAX];
    commit(store, Batch::new().put("t", &key, &b"fits"[..]));
    assert_eq!(bytes(store, "t", &key), Some(b"fits".to_vec()));
}

/// Many commits under way from one thread: each is told once, in the order in which they were handed over.
fn callbacks(store: &impl Store) {
    let told: Arc<Mutex<Vec<(u32, u64)>>> = Arc::default();
    for number in 0..200_u32 {
        let into = Arc::clone(&told);
        let batch = Batch::new().put("t", &number.to_be_bytes(), &b""[..]);
        let done = Box::new(move |outcome: Result<u64, StoreError>| {
            into.lock().push((number, outcome.unwrap_or(0)));
        });
        let handed = store.submit(batch, DURABLE, done);
        assert_eq!(handed, Ok(()));
    }
    // Whatever was handed over before has been told when a later commit is.
    commit(store, Batch::new());
    let told = told.lock();
    assert_eq!(told.len(), 200);
    assert!(told.is_sorted_by(|before, after| before.0 < after.0 && before.1 < after.1), "out of order");
}
