//! What a commit consists of: changes, and conditions on what is there. Built by callers, read by the committer. It must
//! not know how anything is stored.

use std::sync::Arc;

use crate::error::StoreError;
use crate::store::Value;
use crate::{keys, limits};

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged when it is on disk.
    Durable,
    /// Acknowledged when it is visible; a crash of the machine may lose it, a crash of the process not.
    Ephemeral,
}

/// What must hold for a batch to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Absent,
    Revision(u64),
    Bytes(Arc<[u8]>),
}

/// A condition on one key, checked against everything committed before, batches of the same group included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition {
    pub(crate) key: Vec<u8>,
    pub(crate) wanted: Wanted,
}

/// One change, by its key within the whole store.
#[derive(Debug, Clone)]
pub struct Change {
    /// Table and key, as [`parts::join`](crate::parts::join) puts them together.
    pub key: Arc<[u8]>,
    /// `None` removes the key.
    pub value: Option<Arc<[u8]>>,
}

/// Changes that are written together or not at all. Of several changes of one key the last counts.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) changes: Vec<Change>,
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) bytes: usize,
    /// The first thing that is too long; told when the batch is committed.
    pub(crate) too_large: Option<StoreError>,
}

impl Batch {
    /// An empty batch. Committing it gives the revision after everything before it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a value.
    #[must_use]
    pub fn put(self, table: &str, key: &[u8], value: impl Into<Arc<[u8]>>) -> Self {
        self.change(table, key, Some(value.into()))
    }

    /// Removes a key; one that is absent stays so.
    #[must_use]
    pub fn delete(self, table: &str, key: &[u8]) -> Self {
        self.change(table, key, None)
    }

    /// Only if the key is absent.
    #[must_use]
    pub fn expect_absent(self, table: &str, key: &[u8]) -> Self {
        self.expect(table, key, Wanted::Absent)
    }

    /// Only if the key was last written by the commit of this revision.
    #[must_use]
    pub fn expect_revision(self, table: &str, key: &[u8], revision: u64) -> Self {
        self.expect(table, key, Wanted::Revision(revision))
    }

    /// Only if the value is this. Bytes that are shared are not copied.
    #[must_use]
    pub fn expect_bytes(self, table: &str, key: &[u8], bytes: impl Into<Arc<[u8]>>) -> Self {
        self.expect(table, key, Wanted::Bytes(bytes.into()))
    }

    /// What it changes, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Bytes that it takes, keys and overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether anything in it is longer than a store takes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], for the first such thing.
    pub fn fits(&self) -> Result<(), StoreError> {
        self.too_large.clone().map_or(Ok(()), Err)
    }

    /// Whether it has conditions at all.
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        !self.preconditions.is_empty()
    }

    /// Holds its conditions against what each key has now, by the key within the whole store.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] for the first that does not hold, and whatever `now` says.
    pub fn check(&self, now: impl Fn(&[u8]) -> Result<Option<Value>, StoreError>) -> Result<(), StoreError> {
        for (number, condition) in self.preconditions.iter().enumerate() {
            let found = now(&condition.key)?;
            let holds = match &condition.wanted {
                Wanted::Absent => found.is_none(),
                Wanted::Revision(wanted) => found.as_ref().is_some_and(|found| found.revision == *wanted),
                Wanted::Bytes(wanted) => found.as_ref().is_some_and(|found| *found.bytes == **wanted),
            };
            if !holds {
                return Err(StoreError::Precondition { number, found: found.map(|found| found.revision) });
            }
        }
        Ok(())
    }

    fn change(mut self, table: &str, key: &[u8], value: Option<Arc<[u8]>>) -> Self {
        let length = value.as_ref().map_or(0, |value| value.len());
        self.bytes += table.len() + key.len() + length + 32;
        self.measure("the table's name", table.len(), limits::TABLE_BYTES_MAX);
        self.measure("the key", key.len(), limits::KEY_BYTES_MAX);
        self.measure("the value", length, limits::VALUE_BYTES_MAX);
        self.measure("the batch", self.bytes, limits::BATCH_BYTES_MAX);
        if self.too_large.is_none() {
            self.changes.push(Change { key: keys::join(table, key).into(), value });
        }
        self
    }

    fn expect(mut self, table: &str, key: &[u8], wanted: Wanted) -> Self {
        self.measure("the table's name", table.len(), limits::TABLE_BYTES_MAX);
        self.measure("the key", key.len(), limits::KEY_BYTES_MAX);
        if self.too_large.is_none() {
            self.preconditions.push(Precondition { key: keys::join(table, key), wanted });
        }
        self
    }

    fn measure(&mut self, what: &'static str, found: usize, max: usize) {
        if found > max && self.too_large.is_none() {
            self.too_large = Some(StoreError::TooLarge { what, found, max });
        }
    }
}
