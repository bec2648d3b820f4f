//! The trait, and what its callers hold: entries, scans, snapshots, commits under way. Durable workers know this module
//! and `batch`; it must not know how a store keeps its promise.

use std::fmt::Debug;
use std::future::Future;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use crate::batch::{Batch, Durability};
use crate::blobs::Blobs;
use crate::error::StoreError;
use crate::keys;

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

/// Everything as of one revision. Holding one keeps old versions in memory and on disk.
pub trait Snapshot: Debug + Send + Sync {
    /// The last commit that it shows.
    fn revision(&self) -> u64;

    /// Reads one value.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if every copy is damaged.
    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Value>, StoreError>;

    /// Reads entries in order.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if every copy of one of them is damaged.
    fn scan(&self, scan: &Scan) -> Result<Vec<Entry>, StoreError>;
}

/// What is called when a commit has ended, with its revision.
pub type Done = Box<dyn FnOnce(Result<u64, StoreError>) + Send>;

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
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        self.submit(batch, durability, Box::new(move |outcome| told.tell(outcome)))?;
        Ok(Commit(shared))
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<u64, StoreError>>,
    waker: Option<Waker>,
}

impl Shared {
    fn tell(&self, outcome: Result<u64, StoreError>) {
        let waker = {
            let mut state = self.state.lock();
            state.outcome = Some(outcome);
            state.waker.take()
        };
        self.ended.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A commit under way: a future, or something to wait for. Dropping it changes nothing.
#[derive(Debug)]
pub struct Commit(Arc<Shared>);

impl Commit {
    /// Waits for the end.
    ///
    /// # Errors
    /// Why it was not committed.
    pub fn wait(self) -> Result<u64, StoreError> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome;
            }
            self.0.ended.wait(&mut state);
        }
    }
}

impl Future for Commit {
    type Output = Result<u64, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock();
        if let Some(outcome) = state.outcome.take() {
            return Poll::Ready(outcome);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
