//! Blobs: the same bytes once, damage told, and nothing left of what nobody holds, whenever the process ends.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use ringway_store::blobs::{BlobError, BlobId, Blobs, HOLD, HOLD_VALUE, hold_key};
use ringway_store::files::{Disk, File, Files};
use ringway_store::testing::dice::{Dice, rounds};
use ringway_store::testing::power::Power;
use ringway_store::{Batch, Damage, Durability, Embedded, Options, Scan, Store as _, StoreError};

use crate::tools::small;

fn open(folder: &Path) -> Embedded {
    Embedded::open(folder, Options { segment_bytes: 48 << 20, ..Options::default() }).unwrap().0
}

fn blobs(store: &Embedded) -> &Blobs {
    store.blobs().expect("an embedded store keeps blobs")
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder.join("blobs")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn hold(store: &Embedded, id: &BlobId, holder: &[u8]) {
    store.commit(Batch::new().put(HOLD, &hold_key(id, holder), HOLD_VALUE), Durability::Durable).unwrap();
}

fn let_go(store: &Embedded, id: &BlobId, holder: &[u8]) {
    store.commit(Batch::new().delete(HOLD, &hold_key(id, holder)), Durability::Durable).unwrap();
}

#[test]
fn the_same_bytes_lie_there_once_until_the_last_holder_lets_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bytes = vec![7; 300_000];
    let pins = [blobs(&store).put(&bytes).unwrap(), blobs(&store).put(&bytes).unwrap()];
    let id = pins[0].id();
    assert_eq!((pins[1].id(), pins[1].bytes()), (id, 300_000));
    assert_eq!(files(folder.path()), [id.to_string()]);
    hold(&store, &id, b"a");
    hold(&store, &id, b"b");
    drop(pins);
    for (holder, collected) in [(b"a", false), (b"b", true)] {
        let_go(&store, &id, holder);
        assert_eq!(blobs(&store).collect(&store, &id).unwrap(), collected);
    }
    assert!(files(folder.path()).is_empty());
    assert!(matches!(blobs(&store).read(&id), Err(BlobError::Missing { .. })));
}

#[test]
fn what_is_pinned_is_not_collected() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let pin = blobs(&store).put(b"soon to be held").unwrap();
    let id = pin.id();
    assert!(!blobs(&store).collect(&store, &id).unwrap());
    assert_eq!(blobs(&store).read(&id).unwrap(), b"soon to be held");
    drop(pin);
    assert!(blobs(&store).collect(&store, &id).unwrap());
}

#[test]
fn a_crash_between_put_and_hold_leaves_nothing_and_what_is_held_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (held, lost) = (blobs(&store).put(b"held").unwrap(), blobs(&store).put(b"lost").unwrap());
    hold(&store, &held.id(), b"me");
    let mut cut = blobs(&store).writer().unwrap();
    cut.write(b"half of it").unwrap();
    std::mem::forget(cut);
    fs::write(folder.path().join("blobs/README"), "not ours").unwrap();
    let (held, lost) = (held.id(), lost.id());
    assert_eq!(files(folder.path()).len(), 4);
    store.abandon();
    let store = open(folder.path());
    assert_eq!(blobs(&store).read(&held).unwrap(), b"held");
    assert!(matches!(blobs(&store).read(&lost), Err(BlobError::Missing { .. })));
    let mut left = files(folder.path());
    left.sort();
    assert_eq!(left, ["README".to_owned(), held.to_string()].map(String::from));
}

/// Puts and holds one blob after the other until the power goes; gives those whose hold was acknowledged.
fn work(folder: &Path, power: &Power, round: u64) -> Vec<BlobId> {
    let options = Options { files: Arc::new(power.clone()), ..small() };
    let Ok((store, _)) = Embedded::open(folder, options) else { return Vec::new() };
    let mut acknowledged = Vec::new();
    for number in 0_u64.. {
        let bytes = [round.to_le_bytes(), number.to_le_bytes()].concat().repeat(200);
        let Ok(pin) = blobs(&store).put(&bytes) else { break };
        let batch = Batch::new().put(HOLD, &hold_key(&pin.id(), b"me"), HOLD_VALUE);
        if store.commit(batch, Durability::Durable).is_err() {
            break;
        }
        acknowledged.push(pin.id());
    }
    assert!(power.is_off(), "a put failed while there was power");
    store.abandon();
    acknowledged
}

#[test]
fn what_is_held_is_whole_after_a_power_cut() {
    let mut dice = Dice::of_environment();
    let folder = tempfile::tempdir().unwrap();
    let mut held = BTreeSet::new();
    for round in 0..rounds(40) {
        let power = Power::new(folder.path(), 20 + dice.below(100)).unwrap();
        held.extend(work(folder.path(), &power, round));
        power.cut(folder.path(), &mut dice).unwrap();
        let (store, report) = crate::tools::open(folder.path());
        assert_eq!(report.damage, [], "round {round}");
        let entries = store.scan(&Scan::table(HOLD)).unwrap();
        let found: BTreeSet<String> = entries
            .iter()
            .map(|entry| entry.key[..32].iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        for id in &held {
            assert!(found.contains(&id.to_string()), "round {round}: the hold of {id} was acknowledged");
        }
        for id in &found {
            let read = blobs(&store).read(&id.parse().unwrap());
            assert!(read.is_ok(), "round {round}: {id} is held: {:?}", read.err());
        }
        let left: BTreeSet<String> = files(folder.path()).into_iter().collect();
        assert_eq!(left, found, "round {round}: what nobody holds is gone");
        store.abandon();
    }
    assert!(held.len() > 20, "only {} holds were acknowledged", held.len());
}

#[test]
fn damage_is_told_and_mended_by_the_next_put() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let id = blobs(&store).put(&bytes).unwrap().id();
    let path = blobs(&store).path(&id);
    let check = |damage: &dyn Fn(&mut Vec<u8>)| {
        let mut damaged = bytes.clone();
        damage(&mut damaged);
        fs::write(&path, &damaged).unwrap();
        let error = blobs(&store).read(&id).unwrap_err();
        assert!(matches!(&error, BlobError::Damaged { id: found, .. } if *found == id), "{error}");
        let pieces = blobs(&store).read_pieces(&id, |_| Ok::<_, BlobError>(())).unwrap_err();
        assert!(pieces.to_string().contains("damaged"), "{pieces}");
        blobs(&store).put(&bytes).unwrap();
        assert_eq!(blobs(&store).read(&id).unwrap(), bytes);
    };
    check(&|bytes| bytes[2_999_999] ^= 1);
    check(&|bytes| bytes.truncate(5));
    check(&|bytes| bytes.push(0));
}

#[test]
fn a_blob_in_pieces_is_the_blob_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let bytes: Vec<u8> = (0..2_500_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut writer = blobs(&store).writer().unwrap();
    bytes.chunks(70_000).for_each(|piece| writer.write(piece).unwrap());
    let pin = writer.finish().unwrap();
    assert_eq!((pin.id(), pin.bytes()), (BlobId::of(&bytes), bytes.len() as u64));
    let mut read = Vec::new();
    blobs(&store)
        .read_pieces(&pin.id(), |piece| {
            read.extend_from_slice(piece);
            Ok::<_, BlobError>(())
        })
        .unwrap();
    assert_eq!(read, bytes);
    drop(blobs(&store).writer().unwrap());
    assert_eq!(files(folder.path()), [pin.id().to_string()], "one that was given up leaves nothing");
}

/// A disk that removes a blob only when it may, and tells that it was asked to.
#[derive(Debug)]
struct Slow {
    asked: Mutex<Sender<()>>,
    may: Mutex<Receiver<()>>,
}

impl Files for Slow {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        Disk.open(path, create)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.parent().is_some_and(|folder| folder.ends_with("blobs")) {
            self.asked.lock().unwrap().send(()).unwrap();
            self.may.lock().unwrap().recv().unwrap();
        }
        Disk.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Disk.sync_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(folder)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        Disk.free_bytes(folder)
    }
}

#[test]
fn while_a_file_is_removed_only_those_wait_who_put_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let ((tell, asked), (allow, may)) = (channel(), channel());
    let files = Arc::new(Slow { asked: Mutex::new(tell), may: Mutex::new(may) });
    let options = Options { segment_bytes: 48 << 20, files, ..Options::default() };
    let store = Embedded::open(folder.path(), options).unwrap().0;
    let id = blobs(&store).put(b"large").unwrap().id();
    let other = blobs(&store).put(b"other").unwrap();
    thread::scope(|scope| {
        let removed = scope.spawn(|| blobs(&store).collect(&store, &id).unwrap());
        asked.recv().unwrap();
        // The disk is busy with the file; whoever has to do with another blob does not wait for it.
        drop(other);
        drop(blobs(&store).put(b"one more").unwrap());
        let again = scope.spawn(|| blobs(&store).put(b"large").unwrap());
        allow.send(()).unwrap();
        assert!(removed.join().unwrap());
        let again = again.join().unwrap();
        assert_eq!(
            blobs(&store).read(&again.id()).unwrap(),
            b"large",
            "put anew, not found and then removed"
        );
    });
}

#[test]
fn what_cannot_be_swept_is_told_and_keeps_no_store_from_opening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (held, stray) = (blobs(&store).put(b"held").unwrap().id(), blobs(&store).put(b"stray").unwrap().id());
    hold(&store, &held, b"a holder of its own");
    store.close().unwrap();
    // Nobody can remove a folder as a file.
    let stuck = folder.path().join("blobs/stuck.new");
    fs::create_dir(&stuck).unwrap();
    let options = || Options { segment_bytes: 48 << 20, check_bytes_max: 0, ..Options::default() };
    let (store, report) = Embedded::open(folder.path(), options()).unwrap();
    assert!(
        matches!(report.damage.as_slice(), [Damage::Unswept { path, .. }] if *path == stuck),
        "{:?}",
        report.damage
    );
    let mut left = files(folder.path());
    left.sort();
    let mut expected = [held.to_string(), "stuck.new".to_owned()];
    expected.sort();
    assert_eq!(left, expected, "the others are swept");
    drop(blobs(&store).put(b"stray").unwrap());
    store.close().unwrap();
    fs::remove_dir(&stuck).unwrap();
    for name in ["index-1.redb", "index-2.redb"] {
        let path = folder.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let found = bytes.windows(19).enumerate().filter(|(_, part)| part == b"a holder of its own");
        let places: Vec<usize> = found.map(|(at, _)| at).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at + 18] ^= 1);
        fs::write(&path, bytes).unwrap();
    }
    let (store, report) = Embedded::open(folder.path(), options()).unwrap();
    assert!(
        matches!(report.damage.as_slice(), [Damage::Unswept { reason, .. }] if reason.contains("both copies")),
        "{:?}",
        report.damage
    );
    assert!(matches!(store.scan(&Scan::table(HOLD)), Err(StoreError::Corrupt { .. })));
    for id in [held, stray] {
        assert!(blobs(&store).read(&id).is_ok(), "nobody knows who holds {id}");
    }
}

#[test]
fn blobs_whose_holds_may_be_lost_are_set_aside_and_never_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let id = blobs(&store).put(b"was held").unwrap().id();
    hold(&store, &id, b"me");
    std::mem::forget(blobs(&store).writer().unwrap());
    store.close().unwrap();
    for name in ["index-1.redb", "index-2.redb"] {
        fs::write(folder.path().join(name), vec![9; 10_000]).unwrap();
    }
    // Young as this store is, its log still has what the index lost.
    let segments = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let segments = segments.filter(|path| path.extension().is_some_and(|ending| ending == "seg"));
    segments.for_each(|path| fs::remove_file(path).unwrap());
    let aside = format!("{id}.lost");
    let report =
        Embedded::open(folder.path(), Options { segment_bytes: 48 << 20, ..Options::default() }).unwrap().1;
    assert!(
        report.damage.iter().any(|damage| matches!(damage, Damage::BlobsSetAside { count: 1, .. })),
        "{:?}",
        report.damage
    );
    assert_eq!(files(folder.path()), std::slice::from_ref(&aside));
    drop(open(folder.path()));
    assert_eq!(files(folder.path()), [aside], "there was no damage the second time");
    assert_eq!(fs::read(folder.path().join(format!("blobs/{id}.lost"))).unwrap(), b"was held");
}
