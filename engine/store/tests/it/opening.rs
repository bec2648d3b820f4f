//! What opening a store reads that was not closed: the log as far as it is written, and all of it where that is not certain.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringway_store::files::{Disk, Files};
use ringway_store::parts::Record;
use ringway_store::testing::faults::Faults;
use ringway_store::{Batch, Durability, Embedded, OpenReport, Options, Scan, Store};

const SEGMENT_BYTES: u64 = 4 << 20;

/// Opens a store; gives it with the bytes of the log that were read.
fn open(folder: &Path) -> (Embedded, OpenReport, u64) {
    let counted = Faults::default();
    let options = Options {
        files: Arc::new(counted.clone()),
        memory_bytes: 1 << 20,
        segment_bytes: SEGMENT_BYTES,
        ..Options::default()
    };
    let (store, report) = Embedded::open(folder, options).unwrap();
    (store, report, counted.log_bytes_read())
}

/// Commits values of this length under the next numbers.
fn fill(store: &Embedded, numbers: std::ops::Range<u32>, bytes: usize) {
    for number in numbers {
        let durability = if number % 16 == 0 { Durability::Durable } else { Durability::Ephemeral };
        store.commit(Batch::new().put("t", &number.to_be_bytes(), vec![7; bytes]), durability).unwrap();
    }
}

#[track_caller]
fn whole(store: &Embedded, report: &OpenReport, count: usize) {
    assert_eq!(report.damage, []);
    assert_eq!(store.scan(&Scan::table("t")).unwrap().len(), count);
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("log-000000.seg")
}

/// A segment's file, to be damaged.
fn doctor(path: &Path) -> std::fs::File {
    std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn value(store: &Embedded, key: &[u8]) -> Vec<u8> {
    store.get("t", key).unwrap().unwrap().bytes.to_vec()
}

#[test]
fn opening_reads_the_log_as_far_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _, _) = open(folder.path());
    fill(&store, 0..100, 1000);
    store.abandon();
    let (store, report, read) = open(folder.path());
    whole(&store, &report, 100);
    assert_eq!(report.replayed, 100);
    assert!(read < SEGMENT_BYTES / 8, "100 kB were written, {read} bytes were read");
    // Through several segments, each used more than once.
    fill(&store, 100..16_100, 1000);
    store.abandon();
    let segments = Disk.list(folder.path()).unwrap();
    let segments =
        segments.iter().filter(|path| path.extension().is_some_and(|ending| ending == "seg")).count();
    assert!(segments >= 2, "{segments}");
    let (store, report, _) = open(folder.path());
    whole(&store, &report, 16_100);
    assert_eq!(store.verify(), []);
    store.close().unwrap();
    let (store, report, read) = open(folder.path());
    whole(&store, &report, 16_100);
    let most = SEGMENT_BYTES + SEGMENT_BYTES / 16;
    assert!(read <= most, "nothing was to be found in {segments} segments, {read} bytes were read");
}

#[test]
fn a_damaged_mark_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _, _) = open(folder.path());
    fill(&store, 0..50, 1000);
    store.abandon();
    let bytes = std::fs::read(segment(folder.path())).unwrap();
    for at in [0, 5, 9, 17, 20, 30] {
        let file = std::fs::OpenOptions::new().write(true).open(segment(folder.path())).unwrap();
        file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
        let (store, report, read) = open(folder.path());
        whole(&store, &report, 50);
        assert!(read >= SEGMENT_BYTES, "byte {at}: without a mark it is not known where the log ends");
        store.abandon();
        file.write_all_at(&[bytes[at]], at as u64).unwrap();
    }
}

#[test]
fn a_mark_that_the_disk_lost_is_noticed() {
    // Many small commits, and one that reaches from far before the old mark to far behind it.
    for (count, bytes) in [(300, 1000), (1, 600_000)] {
        let folder = tempfile::tempdir().unwrap();
        let (store, _, _) = open(folder.path());
        fill(&store, 0..2, 1000);
        let mut old = [0; 512];
        std::fs::File::open(segment(folder.path())).unwrap().read_exact_at(&mut old, 0).unwrap();
        fill(&store, 2..2 + count, bytes);
        store.abandon();
        let file = std::fs::OpenOptions::new().read(true).write(true).open(segment(folder.path())).unwrap();
        let mut new = [0; 512];
        file.read_exact_at(&mut new, 0).unwrap();
        assert_ne!(old, new);
        file.write_all_at(&old, 0).unwrap();
        let (store, report, _) = open(folder.path());
        whole(&store, &report, 2 + count as usize);
    }
}

#[test]
fn what_a_crash_cut_short_never_takes_the_place_of_what_came_later() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _, _) = open(folder.path());
    fill(&store, 0..6, 100);
    store.abandon();
    // As a cut of power leaves it that lost group 7 and kept group 8, both of which nobody had been told of.
    let mut group = Record::begin();
    group.add(&Batch::new().put("t", b"eight", &b"cut short"[..]));
    let bytes = std::fs::read(segment(folder.path())).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 9;
    doctor(&segment(folder.path())).write_all_at(&group.finish(8), end as u64).unwrap();
    let (store, report, _) = open(folder.path());
    whole(&store, &report, 6);
    assert_eq!((report.revision, report.torn_bytes > 0), (6, true));
    for (revision, key) in [(7, "seven"), (8, "eight")] {
        let batch = Batch::new().put("t", key.as_bytes(), &b"acknowledged"[..]);
        assert_eq!(store.commit(batch, Durability::Durable).unwrap(), revision);
    }
    store.abandon();
    let (store, report, _) = open(folder.path());
    whole(&store, &report, 8);
    assert_eq!(value(&store, b"eight"), b"acknowledged");
    assert_eq!(value(&store, b"seven"), b"acknowledged");
}

/// The segments of a folder, each with its first 512 bytes.
fn marks(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let segments = Disk.list(folder).unwrap().into_iter();
    let segments = segments.filter(|path| path.extension().is_some_and(|ending| ending == "seg"));
    let mark = |path: &PathBuf| {
        let mut mark = vec![0; 512];
        std::fs::File::open(path).unwrap().read_exact_at(&mut mark, 0).unwrap();
        mark
    };
    segments.map(|path| (path.clone(), mark(&path))).collect()
}

#[test]
fn a_mark_that_the_disk_lost_when_a_segment_was_used_again_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _, _) = open(folder.path());
    // Until every segment has been used, and one is used again: its mark then has another base.
    let base = |mark: &[u8]| u64::from_le_bytes(mark[8..16].try_into().unwrap());
    let mut count = 0;
    let (path, old) = loop {
        let before = marks(folder.path());
        fill(&store, count..count + 10, 10_000);
        count += 10;
        let after = marks(folder.path());
        let again = before.into_iter().find(|(path, old)| {
            old[..4] == *b"RWM1" && after.iter().any(|(other, new)| other == path && base(new) > base(old))
        });
        if let Some(found) = again {
            break found;
        }
        assert!(count < 10_000, "no segment was used again");
    };
    store.commit(Batch::new().put("t", b"last", &b"kept"[..]), Durability::Durable).unwrap();
    store.abandon();
    doctor(&path).write_all_at(&old, 0).unwrap();
    let (store, report, _) = open(folder.path());
    assert_eq!(report.revision, u64::from(count) + 1);
    whole(&store, &report, count as usize + 1);
    assert_eq!(value(&store, b"last"), b"kept");
}

#[test]
fn without_an_index_the_whole_log_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _, _) = open(folder.path());
    fill(&store, 0..600, 10_000);
    store.abandon();
    for name in ["index-1.redb", "index-2.redb"] {
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
    let segments = marks(folder.path()).len() as u64;
    let (store, report, read) = open(folder.path());
    assert!(!report.damage.is_empty());
    assert!(read >= segments * SEGMENT_BYTES, "{read} bytes were read of {segments} segments");
    assert_eq!(value(&store, &599_u32.to_be_bytes()), vec![7; 10_000]);
}
