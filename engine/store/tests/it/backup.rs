//! Backup while commits go on, restore into an empty folder, and backups that are not whole.

use std::fs;

use ringway_store::blobs::{HOLD, HOLD_VALUE, hold_key};
use ringway_store::{Batch, BlobId, Durability, OpenError, Scan, Store, backup};

use crate::tools::{dice, open, small};

#[test]
fn a_backup_shows_one_revision_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("store"));
    let path = folder.path().join("backup");
    let taken = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 0..2000_u32 {
                let batch = Batch::new().put("a", &number.to_be_bytes(), vec![1; 100]);
                let batch = batch.put("b", &number.to_be_bytes(), vec![2; 100]).put(
                    "a",
                    b"last",
                    number.to_be_bytes().to_vec(),
                );
                store.commit(batch, Durability::Ephemeral).unwrap();
            }
        });
        let mut taken = backup::backup(&store, &path).unwrap();
        while !writer.is_finished() {
            taken = backup::backup(&store, &path).unwrap();
        }
        taken
    });
    assert_eq!(backup::check(&path).unwrap(), taken);
    let restored = folder.path().join("restored");
    assert_eq!(backup::restore(&path, &restored, &small()).unwrap(), taken);
    let (copy, report) = open(&restored);
    assert_eq!((report.damage, report.revision), (Vec::new(), taken.revision));
    let (a, b) = (copy.scan(&Scan::table("a")).unwrap(), copy.scan(&Scan::table("b")).unwrap());
    assert_eq!((a.len() + b.len()) as u64, taken.entries);
    if taken.revision > 0 {
        assert_eq!(a.len(), b.len() + 1, "a batch was cut in two");
        let last = copy.get("a", b"last").unwrap().unwrap();
        assert_eq!(last.revision, taken.revision);
        assert_eq!(b.last().unwrap().key, *last.bytes);
    }
    // Revisions go on where they were.
    assert_eq!(copy.commit(Batch::new(), Durability::Durable).unwrap(), taken.revision + 1);
    let error = backup::restore(&path, &restored, &small()).unwrap_err();
    assert!(matches!(error, OpenError::NotEmpty { .. }), "{error}");
}

#[test]
fn blobs_come_back_and_one_that_is_let_go_meanwhile_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("store"));
    let blobs = store.blobs().unwrap();
    let held: Vec<Vec<u8>> = [3_000_000, 1, 0].map(|length| vec![7; length]).into();
    for bytes in &held {
        let pin = blobs.put(bytes).unwrap();
        let batch = Batch::new().put(HOLD, &hold_key(&pin.id(), b"me"), HOLD_VALUE);
        store.commit(batch, Durability::Durable).unwrap();
    }
    drop(blobs.put(b"nobody's").unwrap());
    let damaged = blobs.put(b"damaged").unwrap();
    let batch = Batch::new().put(HOLD, &hold_key(&damaged.id(), b"me"), HOLD_VALUE);
    store.commit(batch, Durability::Durable).unwrap();
    fs::write(blobs.path(&damaged.id()), "other bytes").unwrap();
    let path = folder.path().join("backup");
    let taken = backup::backup(&store, &path).unwrap();
    assert_eq!((taken.entries, taken.blobs), (4, 3));
    assert_eq!(backup::check(&path).unwrap(), taken);
    let restored = folder.path().join("restored");
    assert_eq!(backup::restore(&path, &restored, &small()).unwrap(), taken);
    let (copy, _) = open(&restored);
    for bytes in &held {
        assert_eq!(copy.blobs().unwrap().read(&BlobId::of(bytes)).unwrap(), *bytes);
    }
    assert!(copy.blobs().unwrap().read(&BlobId::of(b"nobody's")).is_err());
}

#[test]
fn a_backup_that_is_not_whole_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("store"));
    for number in 0..50_u32 {
        store
            .commit(Batch::new().put("t", &number.to_be_bytes(), vec![1; 20]), Durability::Ephemeral)
            .unwrap();
    }
    let path = folder.path().join("backup");
    backup::backup(&store, &path).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut dice = dice();
    for _ in 0..200 {
        let mut damaged = whole.clone();
        let at = dice.index(whole.len());
        damaged[at] ^= 1 << dice.below(8);
        fs::write(&path, damaged).unwrap();
        let error = backup::check(&path).unwrap_err();
        assert!(matches!(error, OpenError::Backup { .. }), "byte {at}: {error}");
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let target = folder.path().join("target");
    assert!(matches!(backup::restore(&path, &target, &small()), Err(OpenError::Backup { .. })));
    assert!(!target.exists(), "something was made from a backup that is not whole");
}
