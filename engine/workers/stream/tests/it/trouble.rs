//! A store that a test can damage, and get ahead of. It must not know what is kept.

use std::sync::Arc;

use parking_lot::Mutex;
use ringway_store::store::{Done, Joined};
use ringway_store::{Batch, Durability, Embedded, Entry, Scan, Snapshot, Store, StoreError, Value, parts};

/// What is wrong with a store.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// Keys of entries that are damaged. A key tells its table.
    damaged: Mutex<Vec<Vec<u8>>>,
    /// What is committed right before the first batch that removes something from a table.
    ahead: Mutex<Option<(&'static str, Batch)>>,
}

impl Trouble {
    pub(crate) fn damage(&self, key: &[u8]) {
        self.damaged.lock().push(key.to_vec());
    }

    pub(crate) fn mend(&self) {
        self.damaged.lock().clear();
    }

    /// Has a batch committed right before the first one that removes something from a table.
    pub(crate) fn get_ahead(&self, table: &'static str, batch: Batch) {
        *self.ahead.lock() = Some((table, batch));
    }

    /// Whether that has happened.
    pub(crate) fn got_ahead(&self) -> bool {
        self.ahead.lock().is_none()
    }

    fn check(&self, key: &[u8]) -> Result<(), StoreError> {
        if self.damaged.lock().iter().any(|damaged| damaged == key) {
            let reason = "a test says so".to_owned();
            return Err(StoreError::Corrupt { table: String::new(), key: key.to_vec(), reason });
        }
        Ok(())
    }

    fn takes(&self, batch: &Batch) -> Option<Batch> {
        let removes = |table: &str| {
            let gone = batch.changes().iter().filter(|change| change.value.is_none());
            gone.into_iter().any(|change| parts::named(&change.key).0 == table)
        };
        self.ahead.lock().take_if(|(table, _)| removes(table)).map(|(_, batch)| batch)
    }
}

#[derive(Debug)]
pub(crate) struct Troubled {
    pub(crate) store: Arc<Embedded>,
    pub(crate) trouble: Arc<Trouble>,
}

impl Store for Troubled {
    fn submit(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), StoreError> {
        if let Some(first) = self.trouble.takes(&batch) {
            self.store.commit(first, durability)?;
        }
        self.store.submit(batch, durability, done)
    }

    fn wait_for_room(&self) {
        self.store.wait_for_room();
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        let (snapshot, trouble) = (self.store.snapshot()?, Arc::clone(&self.trouble));
        Ok(Box::new(TroubledSnapshot { snapshot, trouble }))
    }
}

#[derive(Debug)]
struct TroubledSnapshot {
    snapshot: Box<dyn Snapshot>,
    trouble: Arc<Trouble>,
}

impl Snapshot for TroubledSnapshot {
    fn revision(&self) -> u64 {
        self.snapshot.revision()
    }

    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Value>, StoreError> {
        self.trouble.check(key)?;
        self.snapshot.get(table, key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Entry>, StoreError> {
        let found = self.snapshot.scan(scan)?;
        found.iter().try_for_each(|entry| self.trouble.check(&entry.key))?;
        Ok(found)
    }

    fn all(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Joined>, StoreError> {
        self.snapshot.all(after, limit)
    }
}
