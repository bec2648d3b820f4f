//! Bit rot: one flipped bit anywhere in a closed store loses nothing and is reported, or hits nothing that is stored.

use std::fs;
use std::os::unix::fs::FileExt;
use std::panic;
use std::path::{Path, PathBuf};

use ringway_store::testing::dice::{Dice, rounds};
use ringway_store::{Batch, Damage, Durability, Scan, Store};

use crate::tools::{copy_folder, open};

const TABLES: [&str; 3] = ["state", "queue", "cron"];
const KEYS: u32 = 700;

fn value(table: &str, number: u32) -> Vec<u8> {
    format!("{table} {number} ").repeat(10 + number as usize % 30).into_bytes()
}

fn fill(folder: &Path) {
    let (store, _) = open(folder);
    for number in 0..KEYS {
        let mut batch = Batch::new();
        for table in TABLES {
            batch =
                batch.put(table, &number.to_be_bytes(), value(table, number)).put(table, b"gone", vec![1]);
        }
        store
            .commit(batch, if number % 50 == 0 { Durability::Durable } else { Durability::Ephemeral })
            .unwrap();
    }
    let gone = TABLES.iter().fold(Batch::new(), |batch, table| batch.delete(table, b"gone"));
    store.commit(gone, Durability::Durable).unwrap();
    store.close().unwrap();
}

#[track_caller]
fn everything_is_there(store: &impl Store) {
    for table in TABLES {
        let entries = store.scan(&Scan::table(table)).unwrap();
        assert_eq!(entries.len(), KEYS as usize, "table {table}");
        for (number, entry) in (0_u32..).zip(entries) {
            assert_eq!(entry.key, number.to_be_bytes());
            assert_eq!(*entry.value.bytes, *value(table, number));
            assert_eq!(store.get(table, &entry.key).unwrap(), Some(entry.value));
        }
    }
}

/// Flips a bit of a random byte: mostly among those that were ever written, now and then of any.
fn flip(folder: &Path, dice: &mut Dice) -> (PathBuf, u64) {
    let mut files = Vec::new();
    let anywhere = dice.below(8) == 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let last = bytes.iter().rposition(|byte| anywhere || *byte != 0);
        let used = last.map_or(0, |last| last as u64 + 1);
        files.push((path, used));
    }
    files.sort();
    // Small files are hit as often as large ones half of the time, or they would never be.
    let mut at = dice.below(files.iter().map(|(_, used)| used).sum());
    let (path, at) = if dice.below(2) == 0 {
        let used: Vec<_> = files.iter().filter(|(_, used)| *used > 0).collect();
        let (path, used) = used[dice.index(used.len())];
        (path.clone(), dice.below(*used))
    } else {
        let mut hit = None;
        for (path, used) in &files {
            if at < *used {
                hit = Some((path.clone(), at));
                break;
            }
            at -= used;
        }
        hit.unwrap()
    };
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << dice.below(8);
    file.write_all_at(&byte, at).unwrap();
    (path, at)
}

#[test]
fn a_flipped_bit_is_reported_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    fill(&whole);
    let mut dice = Dice::of_environment();
    let (mut reported, mut mended) = (0, 0);
    let rounds = rounds(40);
    // redb may panic on damaged pages; that is caught, and no news here.
    panic::set_hook(Box::new(|_| {}));
    for round in 0..rounds {
        let copy = folder.path().join("copy");
        copy_folder(&whole, &copy);
        let (path, at) = flip(&copy, &mut dice);
        let outcome = panic::catch_unwind(|| {
            let (store, report) = open(&copy);
            everything_is_there(&store);
            assert_eq!(store.verify(), [], "damage that opening did not find");
            store.close().unwrap();
            for damage in &report.damage {
                let Damage::FileReplaced { set_aside, .. } = damage else { panic!("{damage:?}") };
                assert!(set_aside.exists());
            }
            let (store, again) = open(&copy);
            assert_eq!(again.damage, [], "what was mended stays so");
            everything_is_there(&store);
            !report.damage.is_empty()
        });
        let Ok(damage) = outcome else {
            drop(panic::take_hook());
            panic!(
                "round {round}: a bit of {} at {at}: {:?}",
                path.display(),
                outcome.unwrap_err().downcast_ref::<String>()
            );
        };
        let index = path.extension().is_some_and(|ending| ending == "redb");
        reported += u32::from(damage);
        mended += u32::from(damage && index);
        fs::remove_dir_all(&copy).unwrap();
    }
    drop(panic::take_hook());
    println!("{rounds} flips: {reported} reported, {mended} of them in the index");
    assert!(mended > 0, "no flip was noticed in the index");
}

#[test]
fn a_file_that_is_cut_short_or_gone_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    fill(&whole);
    let check = |name: &str, length: Option<u64>| {
        let copy = folder.path().join("copy");
        copy_folder(&whole, &copy);
        let path = copy.join(name);
        match length {
            Some(length) => fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let (store, report) = open(&copy);
        assert_eq!(report.damage.len(), 1, "{name} {length:?}: {:?}", report.damage);
        everything_is_there(&store);
        drop(store);
        fs::remove_dir_all(&copy).unwrap();
    };
    for name in ["index-1.redb", "index-2.redb"] {
        check(name, Some(0));
        check(name, Some(100));
        check(name, Some(500_000));
        check(name, None);
    }
    check("FORMAT", Some(3));
}

#[test]
fn two_lost_files_are_reported_as_a_loss() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    for name in ["index-1.redb", "index-2.redb"] {
        fs::write(folder.path().join(name), vec![9; 10_000]).unwrap();
    }
    let (store, report) = open(folder.path());
    let lost = report
        .damage
        .iter()
        .filter(|damage| matches!(damage, Damage::FileLost { set_aside, .. } if set_aside.exists()));
    assert_eq!(lost.count(), 2, "{:?}", report.damage);
    // Commits go on, with revisions that were never given before.
    let revision = store.commit(Batch::new().put("t", b"k", &b"v"[..]), Durability::Durable).unwrap();
    assert!(revision > report.revision);
}

#[test]
fn damage_in_the_log_loses_the_commits_it_hits_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let options = || ringway_store::Options { segment_bytes: 256 << 10, ..ringway_store::Options::default() };
    let (store, _) = ringway_store::Embedded::open(folder.path(), options()).unwrap();
    for number in 0..50_u32 {
        store
            .commit(Batch::new().put("t", &number.to_be_bytes(), vec![0x5A; 1000]), Durability::Durable)
            .unwrap();
    }
    store.abandon();
    let segment = folder.path().join("log-000000.seg");
    let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.write_all_at(&[0x5B], 20_000).unwrap();
    let (store, report) = ringway_store::Embedded::open(folder.path(), options()).unwrap();
    let [Damage::CommitsLost { first, last, set_aside }] = report.damage.as_slice() else {
        panic!("{:?}", report.damage)
    };
    assert_eq!(first, last, "one commit a group, one group hit");
    assert!(set_aside[0].exists());
    let entries = store.scan(&Scan::table("t")).unwrap();
    assert_eq!(entries.len(), 49);
    assert!(entries.iter().all(|entry| entry.value.revision != *first && *entry.value.bytes == [0x5A; 1000]));
}
