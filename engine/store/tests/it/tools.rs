//! What the tests share: small stores, copies of folders.

use std::fs;
use std::path::Path;

use ringway_store::{Embedded, OpenReport, Options};

/// Small enough that memory moves and segments change every few commits.
pub(crate) fn small() -> Options {
    Options { memory_bytes: 48 << 10, segment_bytes: 64 << 10, cache_bytes: 1 << 20, ..Options::default() }
}

/// Opens a small store.
pub(crate) fn open(folder: &Path) -> (Embedded, OpenReport) {
    Embedded::open(folder, small()).unwrap()
}

/// Copies the files of a folder that has no folders in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
