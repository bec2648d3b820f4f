//! Disks that fail: a sync that does not succeed, no room, mounted read-only, half a write.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ringway_store::testing::faults::{Fault, Faults};
use ringway_store::{Batch, Durability, Embedded, OpenError, Options, Scan, Store, StoreError};

use crate::tools::{open, small};

fn put(store: &Embedded, number: u32) -> Result<u64, StoreError> {
    store.commit(Batch::new().put("t", &number.to_be_bytes(), vec![3; 1000]), Durability::Durable)
}

fn faulty(folder: &Path) -> (Embedded, Faults) {
    let faults = Faults::default();
    let options = Options { files: Arc::new(faults.clone()), ..small() };
    (Embedded::open(folder, options).unwrap().0, faults)
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    for fault in [Fault::Sync, Fault::ShortWrite] {
        let folder = tempfile::tempdir().unwrap();
        let (store, faults) = faulty(folder.path());
        for number in 0..10 {
            put(&store, number).unwrap();
        }
        faults.set(Some(fault));
        let error = put(&store, 10).unwrap_err();
        assert!(matches!(error, StoreError::Failed { .. }), "{error}");
        assert!(
            error.to_string().starts_with("store_failed") && error.to_string().contains("restart"),
            "{error}"
        );
        // The disk is well again, but nobody knows what it has: no silent retry.
        faults.set(None);
        assert!(matches!(put(&store, 11), Err(StoreError::Failed { .. })));
        assert_eq!(
            store.scan(&Scan::table("t")).unwrap().len(),
            10,
            "what was not acknowledged is not shown"
        );
        assert!(store.close().is_err());
        let (store, report) = open(folder.path());
        assert_eq!(report.damage, []);
        let there = store.scan(&Scan::table("t")).unwrap().len();
        assert!((10..=11).contains(&there), "{there}");
        put(&store, 12).unwrap();
    }
}

#[test]
fn a_failed_move_to_the_index_stops_the_store_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, faults) = faulty(folder.path());
    let mut acknowledged = 0;
    for number in 0..20 {
        put(&store, number).unwrap();
        acknowledged += 1;
    }
    faults.set(Some(Fault::Sync));
    while store
        .commit(Batch::new().put("t", &acknowledged_key(acknowledged), vec![3; 1000]), Durability::Ephemeral)
        .is_ok()
    {
        acknowledged += 1;
        assert!(acknowledged < 10_000, "no sync was ever tried");
    }
    drop(store);
    faults.set(None);
    let (store, report) = open(folder.path());
    assert_eq!(report.damage, []);
    assert!(store.scan(&Scan::table("t")).unwrap().len() >= acknowledged as usize);
}

fn acknowledged_key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// The store looks at a full disk again a few times a second.
fn put_when_there_is_room(store: &Embedded, number: u32) {
    for _ in 0..200 {
        match put(store, number) {
            Ok(_) => return,
            Err(StoreError::DiskFull { .. }) => std::thread::sleep(std::time::Duration::from_millis(50)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no commit for ten seconds after there was room");
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let (store, faults) = faulty(folder.path());
    put(&store, 0).unwrap();
    faults.set(Some(Fault::Full));
    let mut acknowledged = 1;
    let error = loop {
        match put(&store, acknowledged) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 10_000, "the disk never filled");
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), acknowledged as usize, "reads go on");
    faults.set(None);
    put_when_there_is_room(&store, acknowledged);
    for number in acknowledged + 1..acknowledged + 200 {
        put(&store, number).unwrap();
    }
    store.close().unwrap();
    let (store, _) = open(folder.path());
    assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), acknowledged as usize + 200);
}

#[test]
fn a_disk_that_cannot_be_read_is_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path());
    for number in 0..2000 {
        put(&store, number).unwrap();
    }
    store.close().unwrap();
    let faults = Faults::default();
    // Unchecked, or the cache would hold what is to be read.
    let options =
        Options { files: Arc::new(faults.clone()), cache_bytes: 64 << 10, check_bytes_max: 0, ..small() };
    let (store, report) = Embedded::open(folder.path(), options.clone()).unwrap();
    assert_eq!(report.damage, []);
    faults.set(Some(Fault::Read));
    let wanted = |error: StoreError| {
        assert!(matches!(&error, StoreError::Io { table, .. } if table == "t"), "{error:?}");
        assert!(error.to_string().contains("look after the disk"), "{error}");
    };
    wanted(store.get("t", &1000_u32.to_be_bytes()).unwrap_err());
    wanted(store.scan(&Scan::table("t")).unwrap_err());
    store.abandon();
    // Nor is a file set aside that only could not be read.
    let error = Embedded::open(folder.path(), options).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    faults.set(None);
    let (store, report) = open(folder.path());
    assert_eq!(report.damage, []);
    assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), 2000);
}

#[test]
fn a_disk_mounted_read_only_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    faults.set(Some(Fault::ReadOnly));
    let options = Options { files: Arc::new(faults), ..small() };
    let error = Embedded::open(folder.path(), options).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }) && error.to_string().contains("mount"), "{error}");
}

/// A real file system of a few MiB, where we may mount one.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }

    fn remount(&self, how: &str) {
        assert!(
            Command::new("mount")
                .args(["-o", &format!("remount,{how}")])
                .arg(self.0.path())
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}

#[test]
fn a_real_full_disk_refuses_and_recovers() {
    let Some(mounted) = Mounted::new(24) else {
        println!("mounting is not allowed here: the injected fault stands for it");
        return;
    };
    let ballast = mounted.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 8 << 20]).unwrap();
    let folder = mounted.0.path().join("store");
    let (store, _) = open(&folder);
    let mut acknowledged = 0;
    let error = loop {
        match put(&store, acknowledged) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
    assert!(matches!(put(&store, acknowledged), Err(StoreError::DiskFull { .. })));
    std::fs::remove_file(&ballast).unwrap();
    put_when_there_is_room(&store, acknowledged);
    acknowledged += 1;
    store.close().unwrap();
    let (store, report) = open(&folder);
    assert_eq!(report.damage, []);
    assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), acknowledged as usize);
    drop(store);
    mounted.remount("ro");
    let error = Embedded::open(&folder, small()).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    mounted.remount("rw");
}
