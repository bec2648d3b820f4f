//! The harness itself: programs find an ordinary folder with locks, and stores that leave out a sync are found out by the
//! same cuts that one with all of them outlives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::time::Duration;

use ringway_power::{Disk, Mode, Mounted};
use ringway_tests::dice::Dice;
use ringway_tests::member::Member;

use super::MODES;

/// Cuts for each program and mode.
const CUTS: u64 = 12;
/// A program that writes until the disk fails has failed by then.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_program_finds_an_ordinary_folder() {
    let mounted = Mounted::new(&Disk::new(Mode::Strict)).unwrap();
    let (folder, path) = (mounted.folder().join("folder"), mounted.folder().join("folder/file"));
    fs::create_dir_all(&folder).unwrap();
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).unwrap();
    file.write_all(b"one ").unwrap();
    file.write_all(b"two").unwrap();
    file.set_len(5).unwrap();
    file.write_all(b"hree").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), fs::metadata(&path).unwrap().len()), ("one three", 9));
    fs::rename(&path, folder.join("other")).unwrap();
    fs::write(folder.join("more"), vec![7; 3 << 20]).unwrap();
    assert_eq!(fs::read(folder.join("more")).unwrap(), vec![7; 3 << 20]);
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["more", "other"]);
    assert!(fs::remove_dir(&folder).is_err(), "it is not empty");
    fs::remove_file(folder.join("more")).unwrap();
    fs::remove_file(folder.join("other")).unwrap();
    fs::remove_dir(&folder).unwrap();
}

#[test]
fn a_lock_holds_until_its_file_is_closed() {
    let mounted = Mounted::new(&Disk::new(Mode::Strict)).unwrap();
    let path = mounted.folder().join("LOCK");
    let held = File::create(&path).unwrap();
    held.try_lock().unwrap();
    let other = File::open(&path).unwrap();
    assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
    drop(held);
    other.try_lock().unwrap();
}

#[test]
fn when_the_power_is_off_every_call_fails() {
    let disk = Disk::new(Mode::Journalled);
    let mounted = Mounted::new(&disk).unwrap();
    let path = mounted.folder().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"x").unwrap();
    disk.power_off();
    let failed = |outcome: std::io::Result<()>| outcome.unwrap_err().raw_os_error();
    let eio = Some(5);
    assert_eq!(failed(file.write_all(b"y")), eio);
    assert_eq!(failed(file.sync_all()), eio);
    assert_eq!(failed(fs::rename(&path, mounted.folder().join("other"))), eio);
    let listed = fs::read_dir(mounted.folder()).and_then(|mut names| names.next().transpose());
    assert_eq!(failed(listed.map(drop)), eio);
}

/// In how many cuts a number that was told as kept was not there.
fn violations(mode: Mode, syncs: &str) -> usize {
    let mut dice = Dice::new(7);
    let cuts = (0..CUTS).filter(|_| {
        let disk = Disk::new(mode);
        let mounted = Mounted::new(&disk).unwrap();
        disk.arm(10 + dice.below(60));
        let program = Member::spawn(&["renamer", &mounted.folder().to_string_lossy(), syncs], &[]);
        assert!(disk.wait_until_off(PATIENCE), "the program does not write");
        let told = program.rest();
        let kept = told.last().and_then(|line| line.strip_prefix("kept ")?.parse().ok()).unwrap_or(0_u64);
        let plain = tempfile::tempdir().unwrap();
        disk.after_cut(mode, &mut |limit| dice.below(limit)).0.write_to(plain.path()).unwrap();
        let text = fs::read_to_string(plain.path().join("number")).unwrap_or_default();
        text.parse().unwrap_or(0_u64) < kept
    });
    cuts.count()
}

#[test]
fn a_store_that_leaves_out_a_sync_is_found_out() {
    for mode in MODES {
        for (syncs, found_out) in [("nothing", true), ("file", true), ("both", false)] {
            let violations = violations(mode, syncs);
            println!(
                "summary: {mode:?}, write and rename, synced: {syncs}: {violations} of {CUTS} cuts lost something"
            );
            assert_eq!(violations > 0, found_out, "{mode:?}, {syncs}: {violations} of {CUTS} cuts");
        }
    }
}
