//! The trait, and what its callers hold: entries, scans, snapshots, commits under way. Durable workers know this module
//! and `batch`; it must not know how a store keeps its promise.

use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use crate::batch::{Batch, Durability};
use crate::blobs::Blobs;
use crate::error::StoreError;
use crate::keys;
use crate::told::{Told, told};

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The commit that wrote it.
    pub revision: u64,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

/// A key with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, without its table.
    pub key: Vec<u8>,
    /// What it holds.
    pub value: Value,
}

/// Which entries of a table to return, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub(crate) table: String,
    pub(crate) from: Bound<Vec<u8>>,
    pub(crate) to: Bound<Vec<u8>>,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
}

impl Scan {
    /// The whole table, in order, as many entries as a scan returns at most.
    #[must_use]
    pub fn table(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            reverse: false,
            limit: crate::limits::SCAN_MAX,
        }
    }

    /// Keys with this beginning.
    #[must_use]
    pub fn prefix(mut self, prefix: &[u8]) -> Self {
        self.from = Bound::Included(prefix.to_vec());
        self.to = keys::after_prefix(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self
    }

    /// Keys within bounds.
    #[must_use]
    pub fn range(mut self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Self {
        self.from = from.map(<[u8]>::to_vec);
        self.to = to.map(<[u8]>::to_vec);
        self
    }

    /// From the last key to the first.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// At most so many entries.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.min(crate::limits::SCAN_MAX);
        self
    }
}

impl Scan {
    /// The bounds by keys within the whole store.
    #[must_use]
    pub fn bounds(&self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let within = |bound: &Bound<Vec<u8>>| bound.as_ref().map(|key| keys::join(&self.table, key));
        let table = keys::join(&self.table, &[]);
        let to = match within(&self.to) {
            Bound::Unbounded => keys::after_prefix(&table).map_or(Bound::Unbounded, Bound::Excluded),
            to => to,
        };
        let from = match within(&self.from) {
            Bound::Unbounded => Bound::Included(table),
            from => from,
        };
        (from, to)
    }

    /// Whether it goes from the last key to the first.
    #[must_use]
    pub fn is_reverse(&self) -> bool {
        self.reverse
    }

    /// At most how many entries it wants.
    #[must_use]
    pub fn limit_wanted(&self) -> usize {
        self.limit
    }

    /// What was found under a key within the whole store, by its key within the table.
    #[must_use]
    pub fn entry(&self, key: &[u8], value: Value) -> Entry {
        Entry { key: key[(1 + self.table.len()).min(key.len())..].to_vec(), value }
    }
}

/// Everything as of one revision. Holding one keeps old versions in memory and on disk.
pub trait Snapshot: Debug + Send + Sync {
    /// The last commit that it shows.
    fn revision(&self) -> u64;

    /// Reads one value.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if every copy is damaged, [`StoreError::Io`] if the disk gives none.
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Value>, StoreError>;

    /// Reads entries in order.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if every copy of one of them is damaged, [`StoreError::Io`] if the disk gives none.
    fn scan(&self, scan: &Scan) -> Result<Vec<Entry>, StoreError>;

    /// Reads entries of all tables, in order of their keys within the whole store, from behind a key.
    ///
    /// # Errors
    /// As for a scan.
    fn all(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Joined>, StoreError>;
}

/// An entry of any table, by its key within the whole store.
pub type Joined = (Arc<[u8]>, Value);

/// What is called when a commit has ended, with its revision.
pub type Done = Box<dyn FnOnce(Result<u64, StoreError>) + Send>;

/// What follows the end of a commit.
pub type Then = Box<dyn FnOnce(&Result<u64, StoreError>) + Send>;

/// A commit under way: the revision, or why it was not committed.
pub type Commit = Told<Result<u64, StoreError>>;

/// Ordered byte keys in named tables. A table exists while it holds a key.
pub trait Store: Debug + Send + Sync {
    /// Hands a batch over and returns; `done` is called once, on a thread of the store, and must not block.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when too many wait, `TooLarge`, `Failed`, `Closed`. Then `done` is never called.
    fn submit(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), StoreError>;

    /// Waits until fewer batches wait than the queue takes, or the store has ended.
    fn wait_for_room(&self);

    /// Everything committed so far.
    ///
    /// # Errors
    /// `Closed`.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// The blobs that lie beside it, where it keeps any.
    fn blobs(&self) -> Option<&Blobs> {
        None
    }

    /// Reads one value as it is now.
    ///
    /// # Errors
    /// As for a snapshot.
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.snapshot()?.get(table, key)
    }

    /// Reads entries in order as they are now.
    ///
    /// # Errors
    /// As for a snapshot.
    fn scan(&self, scan: &Scan) -> Result<Vec<Entry>, StoreError> {
        self.snapshot()?.scan(scan)
    }

    /// Commits and waits; gives the revision, which is greater than that of every commit before. Waits for room in the
    /// queue. Costs a share of one `fdatasync` if durable.
    ///
    /// # Errors
    /// Every error but `Busy`.
    fn commit(&self, batch: Batch, durability: Durability) -> Result<u64, StoreError> {
        loop {
            match self.start(batch.clone(), durability) {
                Err(StoreError::Busy { .. }) => self.wait_for_room(),
                Err(error) => return Err(error),
                Ok(commit) => return commit.wait(),
            }
        }
    }

    /// Commits; the revision is told by a future, which needs no runtime.
    ///
    /// # Errors
    /// As [`Store::submit`].
    fn start(&self, batch: Batch, durability: Durability) -> Result<Commit, StoreError> {
        self.start_then(batch, durability, Box::new(|_| ()))
    }

    /// As [`Store::start`]; `then` runs before the future tells the outcome, on a thread of the store, in the order of the
    /// commits, and also when nobody waits any more. It must not block.
    ///
    /// # Errors
    /// As [`Store::submit`]. Then `then` is never called.
    fn start_then(&self, batch: Batch, durability: Durability, then: Then) -> Result<Commit, StoreError> {
        let (teller, told) = told();
        let done = move |outcome: Result<u64, StoreError>| {
            then(&outcome);
            teller.tell(outcome);
        };
        self.submit(batch, durability, Box::new(done))?;
        Ok(told)
    }
}
