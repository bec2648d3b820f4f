//! What was found when a store was opened or verified. Filled by `embedded`, read by whoever tells the operator.

use std::fmt;
use std::path::{Path, PathBuf};

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
    /// What no entry names could not be looked through or removed when the store was opened; it takes room and harms nothing.
    Unswept {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Blobs that no entry names were renamed to `ID.lost` and not removed, since entries that named them may be lost.
    BlobsSetAside {
        /// Their folder.
        folder: PathBuf,
        /// How many.
        count: usize,
    },
    /// A copy of the index cannot be read to its end.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| path.display().to_string();
        match self {
            Self::FileReplaced { set_aside, reason } => {
                let aside = shown(set_aside);
                write!(
                    f,
                    "a file of the store was damaged ({reason}) and made anew, nothing is lost; the damaged one is {aside}"
                )
            }
            Self::FileLost { set_aside, reason } => {
                let aside = shown(set_aside);
                write!(
                    f,
                    "a file of the store was damaged ({reason}) and had no whole twin: what it alone held is lost; the \
                     damaged one is {aside}, a backup may have what it held"
                )
            }
            Self::FileMissing { path } => {
                write!(f, "{} was missing and was made anew from its twin", shown(path))
            }
            Self::CommitsLost { first, last, set_aside } => {
                let aside: Vec<_> = set_aside.iter().map(|path| shown(path)).collect();
                write!(
                    f,
                    "the commits {first} to {last} are damaged in the log and lost, those after them are not; the damaged \
                     part is {}",
                    aside.join(", ")
                )
            }
            Self::Entry { table, key, reason } => {
                let key = key.escape_ascii();
                write!(
                    f,
                    "the entry `{key}` of the table `{table}` is damaged in one copy ({reason}), the other one serves it"
                )
            }
            Self::Unswept { path, reason } => {
                let path = shown(path);
                write!(
                    f,
                    "{path} was to be cleared of blobs that nothing names and was not: {reason}; they take room and harm \
                     nothing, mend that and restart the engine"
                )
            }
            Self::BlobsSetAside { folder, count } => {
                let folder = shown(folder);
                write!(
                    f,
                    "{count} blobs that nothing names are now {folder}/ID.lost, since what named them may be lost; cut the \
                     ending off one that is needed while the engine is stopped and its hold is restored, remove the others"
                )
            }
            Self::Unreadable { path, reason } => {
                write!(f, "{} cannot be read to its end: {reason}", shown(path))
            }
        }
    }
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
    /// The folder, if other users may look into it, and then the files in it that they may read. What the store makes is
    /// for its own user alone; what was there before is left as it is.
    pub open_to_others: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_in_words() {
        let check = |damage: Damage, expected: &[&str]| {
            let found = damage.to_string();
            for expected in expected {
                assert!(found.contains(expected), "`{expected}` is not in {found}");
            }
            assert!(!found.contains(['{', '[']), "{found}");
        };
        let path = || PathBuf::from("/x/y");
        let reason = || "its checksum does not fit it".to_owned();
        check(Damage::FileReplaced { set_aside: path(), reason: reason() }, &["nothing is lost", "/x/y"]);
        check(Damage::FileLost { set_aside: path(), reason: reason() }, &["lost", "backup", "/x/y"]);
        check(Damage::FileMissing { path: path() }, &["/x/y was missing"]);
        check(Damage::CommitsLost { first: 3, last: 7, set_aside: vec![path()] }, &["3 to 7", "/x/y"]);
        let key = b"a\x00\xffb".to_vec();
        check(Damage::Entry { table: "t".to_owned(), key, reason: reason() }, &["`a\\x00\\xffb`", "`t`"]);
        check(Damage::Unswept { path: path(), reason: reason() }, &["/x/y", "checksum", "restart"]);
        check(Damage::BlobsSetAside { folder: path(), count: 3 }, &["3 blobs", "/x/y/ID.lost"]);
        check(Damage::Unreadable { path: path(), reason: reason() }, &["/x/y", "checksum"]);
    }
}
