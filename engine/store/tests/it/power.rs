//! Cut power: the disk forgets what was not synced, tears what was under way, loses names. What was acknowledged as
//! durable is there, no batch is half there, and no damage is reported, since there is none.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use ringway_store::files::Files;
use ringway_store::testing::dice::{Dice, rounds};
use ringway_store::testing::power::Power;
use ringway_store::{Batch, Durability, Embedded, Options, Scan, Store, StoreError};

use crate::tools::{open, small};

const WRITERS: u8 = 3;

fn key(writer: u8, number: u64) -> Vec<u8> {
    [&[writer][..], &number.to_be_bytes()].concat()
}

fn try_numbers(store: &impl Store, table: &str, writer: u8) -> Result<Vec<u64>, StoreError> {
    let entries = store.scan(&Scan::table(table).prefix(&[writer]))?;
    Ok(entries.iter().map(|entry| u64::from_be_bytes(entry.key[1..].try_into().unwrap())).collect())
}

fn numbers(store: &impl Store, table: &str, writer: u8) -> Vec<u64> {
    try_numbers(store, table, writer).unwrap()
}

/// Commits until the power goes, the store dying now and then before that; gives the last number of each writer that was
/// acknowledged as durable.
fn work(
    folder: &Path,
    power: &Power,
    dice: &mut Dice,
    from: [u64; WRITERS as usize],
) -> [u64; WRITERS as usize] {
    let mut acknowledged = from;
    while !power.is_off() {
        acknowledged = live(folder, power, dice.below(600) + 1, acknowledged);
    }
    acknowledged
}

/// One life of the store. It ends as if killed, when a writer has made `commits`. What the store wrote and did not sync is
/// then in the system's memory still, where the next life reads it, and can go with the power even so.
fn live(
    folder: &Path,
    power: &Power,
    commits: u64,
    from: [u64; WRITERS as usize],
) -> [u64; WRITERS as usize] {
    let options = Options { files: Arc::new(power.clone()), ..small() };
    let Ok((store, report)) = Embedded::open(folder, options) else {
        assert!(power.is_off(), "wanted an open store while there is power");
        return from;
    };
    assert_eq!(report.damage, []);
    let acknowledged = from.map(AtomicU64::new);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, acknowledged) = (&store, &acknowledged[usize::from(writer)]);
            scope.spawn(move || {
                let Ok(known) = try_numbers(store, "a", writer) else {
                    assert!(power.is_off(), "wanted an answer while there is power");
                    return;
                };
                let first = known.last().copied().unwrap_or(0);
                for number in first + 1..=first + commits {
                    let batch = Batch::new().put("a", &key(writer, number), vec![writer; 900]);
                    let batch = batch.put("b", &key(writer, number), vec![writer; 900]);
                    let old = key(writer, number.saturating_sub(100));
                    let batch = batch.delete("a", &old).delete("b", &old);
                    let durable = number % 4 != 0;
                    let durability = if durable { Durability::Durable } else { Durability::Ephemeral };
                    if store.commit(batch, durability).is_err() {
                        assert!(power.is_off(), "a commit failed while there was power");
                        return;
                    }
                    if durable {
                        acknowledged.store(number, SeqCst);
                    }
                }
            });
        }
    });
    store.abandon();
    acknowledged.map(AtomicU64::into_inner)
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let mut dice = Dice::of_environment();
    let rounds = rounds(30);
    let mut folder = tempfile::tempdir().unwrap();
    let mut acknowledged = [0; WRITERS as usize];
    let mut total = 0;
    for round in 0..rounds {
        if round % 10 == 0 {
            folder = tempfile::tempdir().unwrap();
            acknowledged = [0; WRITERS as usize];
        }
        let before: u64 = acknowledged.iter().sum();
        // Often in the first calls, when files are made and mended; mostly later.
        let calls = if dice.below(3) == 0 { dice.below(120) + 1 } else { dice.below(3000) + 100 };
        let power = Power::new(folder.path(), calls).unwrap();
        acknowledged = work(folder.path(), &power, &mut dice, acknowledged);
        total += acknowledged.iter().sum::<u64>() - before;
        power.cut(folder.path(), &mut dice).unwrap();
        let (store, report) = open(folder.path());
        assert_eq!(report.damage, [], "round {round}");
        for writer in 0..WRITERS {
            let (a, b) = (numbers(&store, "a", writer), numbers(&store, "b", writer));
            assert_eq!(a, b, "round {round}: a batch was cut in two");
            let (last, wanted) = (a.last().copied().unwrap_or(0), acknowledged[usize::from(writer)]);
            assert!(
                last >= wanted,
                "round {round}, {calls} calls: {wanted} was acknowledged, {last} is there"
            );
            let expected: Vec<u64> = (last.saturating_sub(99).max(1)..=last).collect();
            assert_eq!(a, expected, "round {round}: a gap");
        }
        assert_eq!(store.verify(), [], "round {round}");
        store.abandon();
    }
    println!("{rounds} cuts, {total} durable commits");
    assert!(total > 0, "no commit was ever acknowledged");
}

/// The harness finds a store that writes a file and renames it, and never syncs.
#[test]
fn a_store_that_never_syncs_is_found_out() {
    let mut dice = Dice::new(7);
    let mut violations = 0;
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let power = Power::new(folder.path(), dice.below(60) + 2).unwrap();
        let (path, new) = (folder.path().join("value"), folder.path().join("value.new"));
        let mut acknowledged = 0_u64;
        let put = |number: u64| {
            power.open(&new, true)?.write_at(0, &number.to_le_bytes())?;
            power.rename(&new, &path)
        };
        for number in 1..1000 {
            match put(number) {
                Ok(()) => acknowledged = number,
                Err(_) => break,
            }
        }
        power.cut(folder.path(), &mut dice).unwrap();
        let found = fs::read(&path).ok().and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        violations += u32::from(found.unwrap_or(0) < acknowledged);
    }
    assert!(violations > 5, "only {violations} of 20 cuts were noticed");
}
