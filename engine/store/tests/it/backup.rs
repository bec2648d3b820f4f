//! Backup while commits go on, restore into an empty folder, and backups that are not whole.

use std::fs;

use ringway_store::blobs::{HOLD, HOLD_VALUE, hold_key};
use ringway_store::testing::dice::Dice;
use ringway_store::{Batch, BlobId, Durability, Embedded, OpenError, Scan, Store, backup};

use crate::tools::{open, small};

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
    let mut dice = Dice::of_environment();
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

#[test]
fn what_is_made_is_for_its_own_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let rights = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let data = folder.path().join("above").join("store");
    let (store, report) = open(&data);
    assert_eq!(report.open_to_others, Vec::<std::path::PathBuf>::new());
    store.commit(Batch::new().put("t", b"k", vec![1; 20]), Durability::Durable).unwrap();
    let pin = store.blobs().unwrap().put(b"long").unwrap();
    let hold = Batch::new().put(HOLD, &hold_key(&pin.id(), b"me"), HOLD_VALUE);
    store.commit(hold, Durability::Durable).unwrap();
    let path = folder.path().join("backup");
    fs::write(&path, "old").unwrap();
    set(&path, 0o644);
    backup::backup(&store, &path).unwrap();
    assert_eq!(rights(&path), 0o600);
    store.close().unwrap();
    let restored = folder.path().join("restored");
    backup::restore(&path, &restored, &small()).unwrap();
    for folder in [&data, &restored] {
        let blobs = folder.join("blobs");
        let paths = [folder, &blobs].map(|folder| fs::read_dir(folder).unwrap());
        let paths: Vec<_> = paths.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        assert!(paths.len() >= 6 && paths.contains(&blobs.join(pin.id().to_string())), "{paths:?}");
        for path in paths.iter().chain([folder]) {
            let wanted = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(rights(path), wanted, "{}", path.display());
        }
    }
    // Wider rights that were there are told and left.
    set(&data, 0o755);
    let format = data.join("FORMAT");
    set(&format, 0o640);
    let (_store, report) = open(&data);
    assert_eq!(report.open_to_others, [data.clone(), format.clone()]);
    assert_eq!((rights(&data), rights(&format)), (0o755, 0o640));
}

#[test]
fn a_backup_replaces_nothing_but_the_file_that_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("store"));
    store.commit(Batch::new().put("t", b"k", vec![1; 20]), Durability::Durable).unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.new"), "somebody's").unwrap();
    fs::write(path(".a.x.new"), "somebody's").unwrap();
    // Two at once, whose names differ in their endings only.
    let names = ["a.x", "a.y"];
    let taken: Vec<_> = std::thread::scope(|scope| {
        let take = |name: &'static str| {
            let (store, path) = (&store, path(name));
            scope.spawn(move || (0..20).map(|_| backup::backup(store, &path).unwrap()).next_back().unwrap())
        };
        let started = names.map(take);
        started.into_iter().map(|taker| taker.join().unwrap()).collect()
    });
    for (name, taken) in names.into_iter().zip(taken) {
        assert_eq!(backup::check(&path(name)).unwrap(), taken);
    }
    assert_eq!(fs::read_to_string(path("a.new")).unwrap(), "somebody's");
    // What cannot be a backup is refused, and nothing is left of the try.
    fs::create_dir(path("folder")).unwrap();
    let before = fs::read_dir(folder.path()).unwrap().count();
    for target in [path("folder"), path(".."), "/dev/null".into()] {
        let error = backup::backup(&store, &target).unwrap_err();
        assert!(matches!(error, OpenError::Target { .. }), "{}: {error}", target.display());
    }
    assert!(backup::backup(&store, &path("nowhere/x")).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), before);
}

#[test]
fn a_folder_without_a_store_stays_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    for folder in [folder.path(), &missing] {
        let error = Embedded::open_existing(folder, small()).unwrap_err();
        assert!(matches!(error, OpenError::NoStore { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was made");
    let (store, _) = open(&missing);
    store.commit(Batch::new().put("t", b"k", vec![1]), Durability::Durable).unwrap();
    store.close().unwrap();
    fs::remove_file(missing.join("FORMAT")).unwrap();
    let (store, report) = Embedded::open_existing(&missing, small()).unwrap();
    assert!(!report.damage.is_empty() && store.get("t", b"k").unwrap().is_some(), "{report:?}");
}

#[test]
fn a_blob_that_cannot_be_read_for_now_fails_the_backup_and_one_that_is_gone_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder.path().join("store"));
    let (blobs, path) = (store.blobs().unwrap(), folder.path().join("backup"));
    let id = blobs.put(b"held").unwrap().id();
    store.commit(Batch::new().put(HOLD, &hold_key(&id, b"me"), HOLD_VALUE), Durability::Durable).unwrap();
    let (file, away) = (blobs.path(&id), folder.path().join("away"));
    fs::rename(&file, &away).unwrap();
    assert_eq!(backup::backup(&store, &path).unwrap().blobs, 0);
    fs::remove_file(&path).unwrap();
    // A folder opens as no file: as with too many open files, the blob itself is not at fault.
    fs::create_dir(&file).unwrap();
    let error = backup::backup(&store, &path).unwrap_err();
    assert!(matches!(&error, OpenError::Io { path, .. } if *path == file), "{error}");
    assert!(!path.exists(), "no backup that lacks something");
    fs::remove_dir(&file).unwrap();
    fs::rename(&away, &file).unwrap();
    assert_eq!(backup::backup(&store, &path).unwrap().blobs, 1);
}
