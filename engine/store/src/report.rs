//! What was found when a store was opened or verified. Filled by `embedded`, read by whoever tells the operator.

use std::path::PathBuf;

/// One thing that was found damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// A file could not be trusted and was renamed; its twin took its place.
    FileReplaced {
        /// Where the damaged file is now.
        set_aside: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// A file could not be trusted, was renamed, and there was no whole twin: what it alone held is lost.
    FileLost {
        /// Where the damaged file is now.
        set_aside: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// A file that should be there is not; its twin took its place.
    FileMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Commits of the log cannot be read; a copy of the log was set aside. Later commits are intact.
    CommitsLost {
        /// The first revision that is missing.
        first: u64,
        /// The last one.
        last: u64,
        /// Where the damaged part of the log is now.
        set_aside: Vec<PathBuf>,
    },
    /// An entry is damaged, or missing, in one copy; the other copy serves it.
    Entry {
        /// Its table.
        table: String,
        /// Its key.
        key: Vec<u8>,
        /// What was found.
        reason: String,
    },
    /// A copy of the index cannot be read to its end.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

/// What happened when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The last revision found.
    pub revision: u64,
    /// Commits that were taken from the log.
    pub replayed: u64,
    /// Bytes at the end of the log that are no whole commit: the write that a crash cut short. Nobody was told that they
    /// are on disk.
    pub torn_bytes: u64,
    /// Whether every page of the index was checked.
    pub checked: bool,
    /// What was found damaged, and what was done about it.
    pub damage: Vec<Damage>,
}
