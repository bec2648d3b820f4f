//! What a store makes of damage: single flipped bits in a closed store, a file cut short, a process killed while it
//! writes. Each outcome is counted under one of a few words. Used by `main`; it must not know how stores are built.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::engines::{self, Op};
use crate::{key, scattered};

const KEYS: u64 = 20_000;

/// A value that its key tells, so that a wrong one shows.
fn value_of(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(32)
}

/// Flips bits one at a time in copies of a closed store and counts what reading everything gives.
pub fn flips(name: &str, folder: &Path, rounds: usize) -> Result<()> {
    let whole = folder.join("whole");
    fs::create_dir(&whole)?;
    let mut store = engines::open(name, &whole)?;
    for start in (0..KEYS).step_by(100) {
        let group: Vec<Op> =
            (start..start + 100).map(|number| Op::Put(scattered(number), value_of(number))).collect();
        store.commit(&group, true)?;
    }
    drop(store);
    panic::set_hook(Box::new(|_| {}));
    let mut outcomes = BTreeMap::<&str, u32>::new();
    for _ in 0..rounds {
        let copy = folder.join("copy");
        copy_folder(&whole, &copy)?;
        let files = used_files(&copy)?;
        let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        let mut at = fastrand::u64(..total);
        let path = files.iter().find(|(_, bytes)| at.checked_sub(*bytes).map(|rest| at = rest).is_none());
        flip(&path.context("an offset beyond every file")?.0, at)?;
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| look(name, &copy))).unwrap_or("panic");
        *outcomes.entry(outcome).or_default() += 1;
        fs::remove_dir_all(&copy)?;
    }
    println!("{name}: {rounds} flipped bits: {outcomes:?}");
    let mut outcomes = BTreeMap::<&str, u32>::new();
    for _ in 0..20 {
        let copy = folder.join("copy");
        copy_folder(&whole, &copy)?;
        let (path, bytes) =
            used_files(&copy)?.into_iter().max_by_key(|(_, bytes)| *bytes).context("no file")?;
        fs::OpenOptions::new().write(true).open(path)?.set_len(fastrand::u64(..bytes))?;
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| look(name, &copy))).unwrap_or("panic");
        *outcomes.entry(outcome).or_default() += 1;
        fs::remove_dir_all(&copy)?;
    }
    println!("{name}: 20 times the largest file cut short: {outcomes:?}");
    kills(name, folder)
}

/// Opens and reads everything by key and by scan.
fn look(name: &str, folder: &Path) -> &'static str {
    let Ok(mut store) = engines::open(name, folder) else { return "refused when opened" };
    let mut outcome = "nothing lost";
    for number in 0..KEYS {
        match store.get(&scattered(number)) {
            Ok(Some(found)) if found == value_of(number) => {}
            Ok(Some(_)) => return "a wrong value served",
            Ok(None) => outcome = "keys missing, no error when read",
            Err(_) => return "error when read",
        }
    }
    match (outcome, store.check()) {
        ("nothing lost", Ok(true)) => outcome,
        ("nothing lost", _) => "nothing lost, its check complains",
        (_, Ok(true)) => "keys missing, its check is content",
        (_, _) => "keys missing, only its check complains",
    }
}

fn flip(path: &Path, at: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << fastrand::u32(..8);
    file.write_all_at(&byte, at)?;
    Ok(())
}

/// Files with the number of bytes up to the last that is not zero: a preallocated tail is nothing to damage.
fn used_files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(used_files(&path)?);
        } else {
            let bytes = fs::read(&path)?;
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
            files.push((path, used));
        }
    }
    Ok(files)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Writes groups and says each number on standard output once it is durable, until it is killed.
pub fn fill_until_killed(name: &str, folder: &Path) -> Result<()> {
    let mut store = engines::open(name, folder)?;
    let mut output = std::io::stdout().lock();
    for start in (0_u64..).step_by(16) {
        let group: Vec<Op> =
            (start..start + 16).map(|number| Op::Put(key(number), value_of(number))).collect();
        store.commit(&group, true)?;
        writeln!(output, "{}", start + 16)?;
    }
    Ok(())
}

/// Kills a writer at random and looks whether every group that it acknowledged is there, and none half.
fn kills(name: &str, folder: &Path) -> Result<()> {
    let mut violations = 0;
    for round in 0..20 {
        let place = folder.join(format!("killed-{round}"));
        fs::create_dir(&place)?;
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg(&place).args(["fill", name]).stdout(Stdio::piped()).spawn()?;
        std::thread::sleep(Duration::from_millis(fastrand::u64(30..150)));
        child.kill()?;
        let lines = BufReader::new(child.stdout.take().context("no pipe")?).lines();
        let acknowledged: u64 = lines.map_while(Result::ok).last().map_or(Ok(0), |line| line.parse())?;
        child.wait()?;
        let store = engines::open(name, &place)?;
        let found = store.scan(&[], usize::MAX >> 2)?.len() as u64;
        violations += u32::from(found < acknowledged || found % 16 != 0);
    }
    println!("{name}: 20 times killed: {violations} violations");
    Ok(())
}
