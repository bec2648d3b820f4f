//! The store against a map: random batches with conditions, reads both ways, reopening with and without closing.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::prelude::*;
use ringway_store::{Batch, Durability, Scan, Store, StoreError};

use crate::tools::open;

type Model = BTreeMap<(usize, u8), (u64, Vec<u8>)>;

const TABLES: [&str; 3] = ["a", "ab", "b"];

#[derive(Debug, Clone)]
enum Change {
    Put(usize, u8, u16),
    Delete(usize, u8),
}

#[derive(Debug, Clone)]
enum Condition {
    Absent(usize, u8),
    Same(usize, u8),
    Revision(usize, u8, u64),
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Change>, Vec<Condition>, bool),
    Get(usize, u8),
    Scan(usize, Option<u8>, Option<u8>, bool, usize),
    Reopen,
    Crash,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => (0..3_usize, 0..40_u8, 0..3000_u16).prop_map(|(table, key, size)| Change::Put(table, key, size)),
        1 => (0..3_usize, 0..40_u8).prop_map(|(table, key)| Change::Delete(table, key)),
    ];
    prop::collection::vec(change, 0..6)
}

fn conditions() -> impl Strategy<Value = Vec<Condition>> {
    let condition = prop_oneof![
        (0..3_usize, 0..40_u8).prop_map(|(table, key)| Condition::Absent(table, key)),
        (0..3_usize, 0..40_u8).prop_map(|(table, key)| Condition::Same(table, key)),
        (0..3_usize, 0..40_u8, 0..60_u64)
            .prop_map(|(table, key, revision)| Condition::Revision(table, key, revision)),
    ];
    prop::collection::vec(condition, 0..3)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let edge = || prop::option::of(0..40_u8);
    let step = prop_oneof![
        12 => (changes(), conditions(), any::<bool>()).prop_map(|(a, b, c)| Step::Commit(a, b, c)),
        4 => (0..3_usize, 0..40_u8).prop_map(|(table, key)| Step::Get(table, key)),
        4 => (0..3_usize, edge(), edge(), any::<bool>(), 0..50_usize).prop_map(|(a, b, c, d, e)| Step::Scan(a, b, c, d, e)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_store_is_a_map(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        let mut last = 0;
        let mut store = open(folder.path()).0;
        for step in steps {
            match step {
                Step::Commit(changes, conditions, durable) => {
                    let mut batch = Batch::new();
                    let mut holds = true;
                    for condition in conditions {
                        match condition {
                            Condition::Absent(table, key) => {
                                holds &= !model.contains_key(&(table, key));
                                batch = batch.expect_absent(TABLES[table], &[key]);
                            }
                            Condition::Same(table, key) => {
                                let bytes = model.get(&(table, key)).map(|(_, bytes)| bytes.clone());
                                holds &= bytes.is_some();
                                batch = batch.expect_bytes(TABLES[table], &[key], bytes.unwrap_or_default());
                            }
                            Condition::Revision(table, key, revision) => {
                                holds &= model.get(&(table, key)).is_some_and(|(found, _)| *found == revision);
                                batch = batch.expect_revision(TABLES[table], &[key], revision);
                            }
                        }
                    }
                    let mut after = model.clone();
                    for change in changes {
                        match change {
                            Change::Put(table, key, size) => {
                                let bytes = vec![key; usize::from(size)];
                                batch = batch.put(TABLES[table], &[key], bytes.clone());
                                after.insert((table, key), (last + 1, bytes));
                            }
                            Change::Delete(table, key) => {
                                batch = batch.delete(TABLES[table], &[key]);
                                after.remove(&(table, key));
                            }
                        }
                    }
                    let durability = if durable { Durability::Durable } else { Durability::Ephemeral };
                    match store.commit(batch, durability) {
                        Ok(revision) => {
                            prop_assert!(holds, "a condition did not hold");
                            prop_assert_eq!(revision, last + 1);
                            last = revision;
                            model = after;
                        }
                        Err(StoreError::Precondition { .. }) => prop_assert!(!holds, "every condition held"),
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Step::Get(table, key) => {
                    let found = store.get(TABLES[table], &[key]).unwrap();
                    let found = found.map(|value| (value.revision, value.bytes.to_vec()));
                    prop_assert_eq!(found, model.get(&(table, key)).cloned());
                }
                Step::Scan(table, from, to, reverse, limit) => {
                    let (low, high) = (from.map(|key| [key]), to.map(|key| [key]));
                    let low = low.as_ref().map_or(Bound::Unbounded, |key| Bound::Included(key.as_slice()));
                    let high = high.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
                    let mut scan = Scan::table(TABLES[table]).range(low, high).limit(limit);
                    if reverse {
                        scan = scan.reverse();
                    }
                    let found = store.scan(&scan).unwrap().into_iter().map(|entry| (entry.key[0], entry.value.revision));
                    let within = |key: u8| from.is_none_or(|from| key >= from) && to.is_none_or(|to| key < to);
                    let mut expected: Vec<(u8, u64)> = model
                        .iter()
                        .filter(|((of, key), _)| *of == table && within(*key))
                        .map(|((_, key), (revision, _))| (*key, *revision))
                        .collect();
                    if reverse {
                        expected.reverse();
                    }
                    expected.truncate(limit);
                    prop_assert_eq!(found.collect::<Vec<_>>(), expected);
                }
                // Of this process only: the machine has not crashed, so that ephemeral commits are there too.
                Step::Reopen | Step::Crash => {
                    if matches!(step, Step::Reopen) {
                        store.close().unwrap();
                    } else {
                        store.abandon();
                    }
                    let (again, report) = open(folder.path());
                    prop_assert_eq!(report.damage, []);
                    prop_assert_eq!(report.revision, last);
                    store = again;
                }
            }
        }
    }
}
