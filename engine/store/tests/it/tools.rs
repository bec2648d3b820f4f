//! What the tests share: small stores, rounds and seeds from the environment, copies of folders.

use std::fs;
use std::path::Path;

use ringway_store::testing::dice::Dice;
use ringway_store::{Embedded, OpenReport, Options};

/// Small enough that memory moves and segments change every few commits.
pub(crate) fn small() -> Options {
    Options { memory_bytes: 48 << 10, segment_bytes: 64 << 10, cache_bytes: 1 << 20, ..Options::default() }
}

/// Opens a small store.
pub(crate) fn open(folder: &Path) -> (Embedded, OpenReport) {
    Embedded::open(folder, small()).unwrap()
}

/// How many rounds: `RINGWAY_ROUNDS`, or what `cargo verify` can afford.
pub(crate) fn rounds(short: u64) -> u64 {
    std::env::var("RINGWAY_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

/// Dice from `RINGWAY_SEED`, or from the time; the seed is printed.
pub(crate) fn dice() -> Dice {
    let given = std::env::var("RINGWAY_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() ^ (u64::from(now.subsec_nanos()) << 20)
    });
    println!("RINGWAY_SEED={seed}");
    Dice::new(seed)
}

/// Copies the files of a folder that has no folders in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
