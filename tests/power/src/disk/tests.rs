//! What is left of files and names, in both modes.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use super::*;

/// Names in the root and what the files hold.
fn listing(disk: &Disk) -> Vec<(String, Vec<u8>)> {
    let entries = disk.entries(ROOT).unwrap();
    let named = entries.into_iter().map(|(name, facts)| {
        let bytes = facts.length.map(|_| disk.read(facts.number, 0, usize::MAX).unwrap());
        (name.to_string_lossy().into_owned(), bytes.unwrap_or_default())
    });
    named.collect()
}

fn names(disk: &Disk) -> String {
    listing(disk).into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
}

/// Every list of names that a cut may leave.
fn outcomes(disk: &Disk) -> BTreeSet<String> {
    (0..64_u64).map(|choice| names(&disk.after_cut(Mode::Strict, &mut |limit| choice % limit).0)).collect()
}

fn file(disk: &Disk, name: &str) -> u64 {
    disk.make(ROOT, OsStr::new(name), false).unwrap().number
}

fn rename(disk: &Disk, from: &str, to: &str) {
    disk.rename((ROOT, OsStr::new(from)), (ROOT, OsStr::new(to))).unwrap();
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|&one| one.to_owned()).collect()
}

#[test]
fn a_journal_keeps_the_order_of_names() {
    let disk = Disk::new(Mode::Journalled);
    file(&disk, "a");
    rename(&disk, "a", "b");
    file(&disk, "c");
    disk.remove(ROOT, OsStr::new("b"), false).unwrap();
    assert_eq!(outcomes(&disk), set(&["", "a", "b", "b c", "c"]));
}

#[test]
fn a_journal_reaches_the_disk_with_a_new_file_that_is_synced_and_not_with_an_old_one() {
    let disk = Disk::new(Mode::Journalled);
    let old = file(&disk, "old");
    disk.write(old, 0, b"1").unwrap();
    disk.sync(old).unwrap();
    file(&disk, "new");
    disk.write(old, 0, b"2").unwrap();
    disk.sync(old).unwrap();
    assert_eq!(names(&disk), "new old");
    let disk = disk.after_cut(Mode::Journalled, &mut |_| 0).0;
    assert_eq!(listing(&disk), [("old".to_owned(), b"2".to_vec())]);
    disk.write(old, 0, b"longer").unwrap();
    file(&disk, "new");
    disk.sync(old).unwrap();
    assert_eq!(names(&disk.after_cut(Mode::Strict, &mut |_| 0).0), "new old");
}

#[test]
fn a_strict_disk_has_a_name_only_with_its_folder() {
    let disk = Disk::new(Mode::Strict);
    let value = file(&disk, "value.new");
    disk.write(value, 0, b"1").unwrap();
    disk.sync(value).unwrap();
    assert_eq!(outcomes(&disk), set(&[""]));
    let disk = Disk::new(Mode::Strict);
    let value = file(&disk, "value.new");
    disk.sync_folder(ROOT).unwrap();
    rename(&disk, "value.new", "value");
    disk.write(value, 0, b"1").unwrap();
    let (left, lost) = disk.after_cut(Mode::Strict, &mut |limit| limit - 1);
    assert_eq!(listing(&left), [("value.new".to_owned(), Vec::new())]);
    assert_eq!(lost, Lost { sectors: 1, names: 2 });
}

#[test]
fn a_folder_is_there_with_the_folder_above() {
    let disk = Disk::new(Mode::Strict);
    let folder = disk.make(ROOT, OsStr::new("folder"), true).unwrap().number;
    disk.make(folder, OsStr::new("inner"), false).unwrap();
    disk.sync_folder(folder).unwrap();
    assert_eq!(names(&disk.after_cut(Mode::Strict, &mut |_| 0).0), "");
    let disk = Disk::new(Mode::Strict);
    let folder = disk.make(ROOT, OsStr::new("folder"), true).unwrap().number;
    disk.make(folder, OsStr::new("inner"), false).unwrap();
    disk.sync_folder(ROOT).unwrap();
    let left = disk.after_cut(Mode::Strict, &mut |_| 0).0;
    assert_eq!(names(&left), "folder");
    assert_eq!(left.entries(folder), Ok(Vec::new()));
}

#[test]
fn the_power_goes_with_the_operation_that_was_chosen() {
    let disk = Disk::new(Mode::Journalled);
    let value = file(&disk, "value");
    disk.sync(value).unwrap();
    disk.arm(2);
    disk.write(value, 0, b"1").unwrap();
    assert!(!disk.wait_until_off(Duration::ZERO));
    assert_eq!(disk.sync(value), Err(Errno::PowerOff), "a sync that the cut meets was not made");
    assert!(disk.wait_until_off(Duration::ZERO));
    assert_eq!(disk.read(value, 0, 1), Err(Errno::PowerOff));
    assert_eq!(disk.facts(value), Err(Errno::PowerOff));
    let left: BTreeSet<_> =
        (0..4).map(|choice| listing(&disk.after_cut(Mode::Strict, &mut |limit| choice % limit).0)).collect();
    let with = |bytes: &[u8]| vec![("value".to_owned(), bytes.to_vec())];
    assert_eq!(left, BTreeSet::from([with(b""), with(b"1")]));
}

#[test]
fn what_programs_see_is_written_to_a_folder() {
    let disk = Disk::new(Mode::Strict);
    let folder = disk.make(ROOT, OsStr::new("folder"), true).unwrap().number;
    let inner = disk.make(folder, OsStr::new("inner"), false).unwrap().number;
    disk.write(inner, 3, b"x").unwrap();
    assert_eq!(disk.remove(ROOT, OsStr::new("folder"), true), Err(Errno::NotEmpty));
    assert_eq!(disk.make(folder, OsStr::new("inner"), false), Err(Errno::Exists));
    let here = std::env::temp_dir().join(format!("ringway-power-written-{}", std::process::id()));
    std::fs::create_dir_all(&here).unwrap();
    disk.write_to(&here).unwrap();
    let found = std::fs::read(here.join("folder/inner")).unwrap();
    std::fs::remove_dir_all(&here).unwrap();
    assert_eq!(found, b"\0\0\0x");
}
