//! What can go wrong, in words for whoever runs the engine: what was wanted, what was found, what to do.

use std::path::PathBuf;

/// Why a commit or a read did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A condition of the batch did not hold; nothing of the batch was written.
    #[error("precondition {number} of the batch does not hold: the key is {}", at_revision(*found))]
    Precondition {
        /// Which condition, from 0.
        number: usize,
        /// The revision that the key has, `None` if it is absent.
        found: Option<u64>,
    },
    /// The queue in front of the committer is full.
    #[error(
        "{waiting} batches wait to be written, no more are taken: wait for some to end, or send fewer at once"
    )]
    Busy {
        /// Batches that wait.
        waiting: usize,
    },
    /// Something is longer than a store takes.
    #[error("{what} has {found} bytes, at most {max} are taken")]
    TooLarge {
        /// What is too long.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// There is no room on the disk. Nothing of the batch was written; commits work again when there is room.
    #[error("the disk of {folder} is full: {reason}; make room there, commits then work again")]
    DiskFull {
        /// The folder of the store.
        folder: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Whatever keeps the batches cannot be reached, or refuses for now. Nothing of the batch was written; commits work
    /// again when it is back.
    #[error("the store cannot be reached: {reason}; nothing was written, commits work again when it is back")]
    Unavailable {
        /// What was found.
        reason: String,
    },
    /// Another engine has taken what this one kept things in, so that nothing is acknowledged here any more.
    #[error(
        "store_taken: {holder} has taken over {place}, nothing is acknowledged here any more: stop one of the two \
         engines, or give each a name of its own, then restart this one"
    )]
    Taken {
        /// Where things are kept.
        place: String,
        /// Who has it now, as it wrote itself down.
        holder: String,
    },
    /// The disk did something that leaves no certainty, so that nothing is acknowledged any more.
    #[error(
        "store_failed: {reason}; the last commits may or may not be on disk, none is acknowledged until the store is \
         opened again: look after the disk, then restart the engine"
    )]
    Failed {
        /// What the system said.
        reason: String,
    },
    /// Both copies of an entry are damaged.
    #[error(
        "the entry `{}` of the table `{table}` is damaged in both copies: {reason}; restore a backup, other entries are not \
         affected", key.escape_ascii()
    )]
    Corrupt {
        /// The table.
        table: String,
        /// The key, or where a scan had come.
        key: Vec<u8>,
        /// What was found.
        reason: String,
    },
    /// The disk did not let an entry be read, in neither copy. Nothing is known to be damaged.
    #[error(
        "the disk does not let the entry `{}` of the table `{table}` be read: {reason}; nothing says that it is damaged: \
         look after the disk, then restart the engine", key.escape_ascii()
    )]
    Io {
        /// The table.
        table: String,
        /// The key, or where a scan had come.
        key: Vec<u8>,
        /// What the system said.
        reason: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same batch may be taken later, without anybody having done anything to this engine. Nothing of it was
    /// written.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::DiskFull { .. } | Self::Unavailable { .. })
    }
}

/// Why a store could not be opened, backed up or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another engine has the folder.
    #[error("{folder} is in use by process {holder}: stop it, or give this engine another folder")]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// The process that holds it, as it wrote itself down.
        holder: String,
    },
    /// The folder was written by another version.
    #[error("{folder} has format {found}, this engine reads format {wanted}: {advice}")]
    Format {
        /// The folder.
        folder: PathBuf,
        /// The format found.
        found: u32,
        /// The format of this engine.
        wanted: u32,
        /// What to do.
        advice: &'static str,
    },
    /// The disk cannot be written.
    #[error("{folder} cannot be written: {source}; mount it writable, or give the engine another folder")]
    ReadOnly {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The disk is full.
    #[error("the disk of {folder} is full: {source}; make room there")]
    DiskFull {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The index refused, though it had just been found whole or made.
    #[error("{path}: {reason}")]
    Index {
        /// The file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// A backup that is not whole.
    #[error("{path} is no whole backup: {reason}; take another one")]
    Backup {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A backup goes to a file.
    #[error("{path} is no regular file: name another file for the backup")]
    Target {
        /// What was named.
        path: PathBuf,
    },
    /// There is nothing to open.
    #[error("there is no store in {folder}: name the data folder of an engine that has run")]
    NoStore {
        /// The folder.
        folder: PathBuf,
    },
    /// A restore goes into an empty folder only.
    #[error("{folder} is not empty: restore into a folder that is new or empty")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// The running store gave an error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Names the kind of an I/O error on a path of the folder.
    pub(crate) fn io(folder: &std::path::Path, path: &std::path::Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        let folder = folder.to_owned();
        match source.kind() {
            ReadOnlyFilesystem | PermissionDenied => Self::ReadOnly { folder, source },
            _ if is_full(&source) => Self::DiskFull { folder, source },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}

fn at_revision(found: Option<u64>) -> String {
    found.map_or_else(|| "absent".to_owned(), |revision| format!("at revision {revision}"))
}

/// Whether there was no room, by device, quota or file size.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
