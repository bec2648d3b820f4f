//! Everything that is kept, in memory: an ordered map whose old versions stay as they are while somebody looks at them.
//! Filled at a start, changed by the writer, read by everybody. It must not know the server.

use std::ops::Bound;
use std::sync::Arc;

use ringway_store::store::Joined;
use ringway_store::{Entry, Scan, Snapshot, StoreError, Value, parts};
use rpds::RedBlackTreeMapSync;

use crate::limits::PART_BYTES;

/// What a key holds.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) revision: u64,
    /// Its bytes, or why they cannot be trusted.
    pub(crate) bytes: Result<Arc<[u8]>, Arc<str>>,
}

impl Held {
    /// Messages that it takes in the bucket.
    pub(crate) fn parts(&self) -> usize {
        self.bytes.as_ref().map_or(1, |bytes| bytes.len().div_ceil(PART_BYTES).max(1))
    }

    fn value(&self, key: &[u8]) -> Result<Value, StoreError> {
        match &self.bytes {
            Ok(bytes) => Ok(Value { revision: self.revision, bytes: Arc::clone(bytes) }),
            Err(reason) => {
                let (table, key) = parts::named(key);
                Err(StoreError::Corrupt { table, key, reason: reason.to_string() })
            }
        }
    }
}

/// Everything as of a revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct At {
    pub(crate) map: RedBlackTreeMapSync<Arc<[u8]>, Held>,
    pub(crate) revision: u64,
}

impl At {
    /// Changes one key; nothing that was handed out before changes.
    pub(crate) fn change(&mut self, key: Arc<[u8]>, revision: u64, value: Option<Arc<[u8]>>) {
        match value {
            Some(bytes) => self.map.insert_mut(key, Held { revision, bytes: Ok(bytes) }),
            None => drop(self.map.remove_mut(&*key)),
        }
    }

    /// Reads one value by its key within the whole store.
    pub(crate) fn read(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.map.get(key).map(|held| held.value(key)).transpose()
    }

    fn entries(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Joined>, StoreError> {
        use Bound::{Excluded, Included};
        let nothing = match (from, to) {
            (Included(from), Included(to)) => from > to,
            (Included(from) | Excluded(from), Included(to) | Excluded(to)) => from >= to,
            _ => false,
        };
        if nothing {
            return Ok(Vec::new());
        }
        let own = |(key, held): (&Arc<[u8]>, &Held)| Ok((Arc::clone(key), held.value(key)?));
        let range = self.map.range::<[u8], _>((from, to));
        if reverse {
            range.rev().take(limit).map(own).collect()
        } else {
            range.take(limit).map(own).collect()
        }
    }
}

impl Snapshot for At {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.read(&parts::join(table, key))
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Entry>, StoreError> {
        let (from, to) = scan.bounds();
        let (from, to) = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let found = self.entries(from, to, scan.is_reverse(), scan.limit_wanted())?;
        Ok(found.into_iter().map(|(key, value)| scan.entry(&key, value)).collect())
    }

    fn all(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Joined>, StoreError> {
        self.entries(after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded, false, limit)
    }
}
