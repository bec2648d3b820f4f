//! The table does what a map from numbers to payloads does, whatever numbers come back.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Bytes(u64);

impl LeaseBytes for Bytes {
    fn bytes(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_lease_ends_once() {
    let mut table = LeaseTable::new();
    let lease = table.lend(Bytes(5)).unwrap();
    assert_ne!(lease, 0);
    assert_eq!((table.len(), table.bytes()), (1, 5));
    assert_eq!(table.give_back(lease), Ok(Bytes(5)));
    assert_eq!(table.give_back(lease), Err(LeaseError::Ended { lease }));
    assert_eq!((table.len(), table.bytes()), (0, 0));
}

#[test]
fn numbers_that_were_never_given_out_are_refused() {
    let mut table = LeaseTable::new();
    let lease = table.lend(Bytes(1)).unwrap();
    let check = |table: &mut LeaseTable<Bytes>, lease: u32| {
        assert!(table.give_back(lease).is_err(), "{lease:#x}");
        assert_eq!(table.len(), 1);
    };
    for wrong in [0, 1, lease + 1, lease ^ 1 << INDEX_BITS, lease | INDEX_MASK, u32::MAX] {
        check(&mut table, wrong);
    }
    // The number that the index will have next, while nobody holds it.
    table.give_back(lease).unwrap();
    assert!(table.give_back(lease + (1 << INDEX_BITS)).is_err());
}

#[test]
fn limits_are_named_and_freed_room_is_used_again() {
    let mut table = LeaseTable::with_limits(LeaseLimits { leases_max: 2, bytes_max: 10 });
    let first = table.lend(Bytes(4)).unwrap();
    let error = LeaseError::TooManyBytes { held_bytes: 4, bytes: 7, bytes_max: 10 };
    assert_eq!(table.lend(Bytes(7)), Err(error));
    assert!(matches!(table.lend(Bytes(u64::MAX)), Err(LeaseError::TooManyBytes { .. })));
    table.lend(Bytes(6)).unwrap();
    assert_eq!(table.lend(Bytes(0)), Err(LeaseError::Full { leases_max: 2 }));
    table.give_back(first).unwrap();
    table.lend(Bytes(4)).unwrap();
    assert_eq!(table.drain().len(), 2);
    assert!(table.is_empty());
}

#[test]
fn a_generation_wraps_past_zero() {
    let mut table = LeaseTable::new();
    let first = table.lend(Bytes(0)).unwrap();
    table.give_back(first).unwrap();
    for _ in 1..GENERATION_MAX {
        let lease = table.lend(Bytes(0)).unwrap();
        assert!(lease != first && lease >> INDEX_BITS != 0);
        table.give_back(lease).unwrap();
    }
    assert_eq!(table.lend(Bytes(0)), Ok(first));
}

#[derive(Clone, Debug)]
enum Step {
    Lend(u64),
    GiveBack(usize),
    GiveBackAgain(usize),
    GiveBackAny(u32),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u64..1000).prop_map(Step::Lend),
        6 => any::<usize>().prop_map(Step::GiveBack),
        2 => any::<usize>().prop_map(Step::GiveBackAgain),
        2 => any::<u32>().prop_map(Step::GiveBackAny),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #[test]
    fn the_table_is_a_map(steps in prop::collection::vec(step(), 0..200)) {
        let limits = LeaseLimits { leases_max: 20, bytes_max: 8000 };
        let mut table = LeaseTable::with_limits(limits);
        let mut model: HashMap<u32, Bytes> = HashMap::new();
        let mut ended: Vec<u32> = Vec::new();
        for step in steps {
            match step {
                Step::Lend(bytes) => {
                    let held: u64 = model.values().map(|payload| payload.0).sum();
                    let fits = model.len() < 20 && held + bytes <= 8000;
                    let result = table.lend(Bytes(bytes));
                    prop_assert_eq!(result.is_ok(), fits);
                    if let Ok(lease) = result {
                        prop_assert!(model.insert(lease, Bytes(bytes)).is_none());
                        ended.retain(|&old| old != lease);
                    }
                }
                Step::GiveBack(choice) if !model.is_empty() => {
                    let mut leases: Vec<u32> = model.keys().copied().collect();
                    leases.sort_unstable();
                    let lease = leases[choice % leases.len()];
                    prop_assert_eq!(table.give_back(lease).ok(), model.remove(&lease));
                    ended.push(lease);
                }
                Step::GiveBackAgain(choice) if !ended.is_empty() => {
                    let lease = ended[choice % ended.len()];
                    prop_assert_eq!(table.give_back(lease), Err(LeaseError::Ended { lease }));
                }
                Step::GiveBack(_) | Step::GiveBackAgain(_) => {}
                Step::GiveBackAny(lease) => {
                    prop_assert_eq!(table.give_back(lease).ok(), model.remove(&lease));
                }
                Step::Drain => {
                    prop_assert_eq!(table.drain().len(), model.len());
                    ended.extend(model.drain().map(|(lease, _)| lease));
                }
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.bytes(), model.values().map(|payload| payload.0).sum::<u64>());
            let listed: HashMap<u32, Bytes> = table.iter().map(|(lease, payload)| (lease, payload.clone())).collect();
            prop_assert_eq!(&listed, &model);
        }
    }
}
