//! How configurations lie in the store. Three tables; every value begins with a byte that names its format, the rest is
//! JSON. It must not know what a change means.
//!
//! - `configuration`: id → the current entry;
//! - `configuration-history`: id, 0, version (8 bytes, big-endian) → what that version was;
//! - `configuration-deleted`: id → the last version of an entry that was deleted, so that no version is given out twice.

use std::ops::Bound;
use std::sync::Arc;

use ringway::Failure;
use ringway_store::{Batch, Scan, Snapshot, Store};
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const ENTRIES: &str = "configuration";
const HISTORY: &str = "configuration-history";
const DELETED: &str = "configuration-deleted";

/// The format that this version writes.
const FORMAT: u8 = 1;

/// What goes wrong with the store, in iii's word for it.
pub(crate) const STORE_ERROR: &str = "ADAPTER_ERROR";

/// A configuration as it is now. Variables in its value are not put in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) schema: Value,
    pub(crate) metadata: Option<Value>,
    pub(crate) value: Value,
    /// Rises by one with every change, also where the entry was deleted in between.
    pub(crate) version: u64,
}

/// What made a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// `configuration::register`.
    Registered,
    /// `configuration::set`.
    Set,
    /// `configuration::rollback`.
    RolledBack,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) version: u64,
    /// Milliseconds of Unix time.
    pub(crate) at_ms: u64,
    pub(crate) cause: Cause,
    /// The version that was gone back to.
    pub(crate) of: Option<u64>,
    pub(crate) value: Value,
}

/// What is known of an id.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// An entry, and the revision of the commit that wrote it.
    Entry { entry: Box<Entry>, revision: u64 },
    /// There was one; its last version, and the revision of the commit that deleted it.
    Deleted { version: u64, revision: u64 },
    /// There never was one.
    Never,
}

impl Stored {
    pub(crate) fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Entry { entry, .. } => Some(entry),
            Self::Deleted { .. } | Self::Never => None,
        }
    }

    /// The version of the next change.
    pub(crate) fn next_version(&self) -> u64 {
        1 + match self {
            Self::Entry { entry, .. } => entry.version,
            Self::Deleted { version, .. } => *version,
            Self::Never => 0,
        }
    }

    /// A batch on condition that all of this still holds.
    fn expected(&self, id: &str) -> Batch {
        let (batch, id) = (Batch::new(), id.as_bytes());
        match self {
            Self::Entry { revision, .. } => batch.expect_revision(ENTRIES, id, *revision),
            Self::Deleted { revision, .. } => {
                batch.expect_absent(ENTRIES, id).expect_revision(DELETED, id, *revision)
            }
            Self::Never => batch.expect_absent(ENTRIES, id).expect_absent(DELETED, id),
        }
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, value)
        .map_err(|error| Failure::with_code(STORE_ERROR, format!("the entry cannot be written: {error}")))?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Failure> {
    let unreadable = |why: String| {
        let text = format!(
            "{what} is in the store and cannot be read: {why}; it is left as it is: use the version that wrote it, or \
             restore a backup"
        );
        Failure::with_code(STORE_ERROR, text)
    };
    match bytes.split_first() {
        Some((&FORMAT, json)) => serde_json::from_slice(json).map_err(|error| unreadable(error.to_string())),
        Some((format, _)) => Err(unreadable(format!("wanted format {FORMAT}, found {format}"))),
        None => Err(unreadable("it is empty".to_owned())),
    }
}

fn history_key(id: &str, version: u64) -> Vec<u8> {
    [id.as_bytes(), &[0], &version.to_be_bytes()].concat()
}

/// Everything that is stored, over any store.
#[derive(Debug, Clone)]
pub(crate) struct Shelf(pub(crate) Arc<dyn Store>);

/// An entry, or the id of one that cannot be read, and why.
pub(crate) type Read = Result<Entry, (String, Failure)>;

impl Shelf {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Failure> {
        self.0.snapshot().map_err(|error| store_failure(STORE_ERROR, &error))
    }

    pub(crate) fn get(&self, id: &str) -> Result<Stored, Failure> {
        let snapshot = self.snapshot()?;
        let read = |table: &str| {
            snapshot.get(table, id.as_bytes()).map_err(|error| store_failure(STORE_ERROR, &error))
        };
        if let Some(value) = read(ENTRIES)? {
            let entry = decode(&format!("the configuration `{id}`"), &value.bytes)?;
            return Ok(Stored::Entry { entry: Box::new(entry), revision: value.revision });
        }
        let Some(value) = read(DELETED)? else { return Ok(Stored::Never) };
        let version = decode(&format!("the last version of the configuration `{id}`"), &value.bytes)?;
        Ok(Stored::Deleted { version, revision: value.revision })
    }

    /// All entries in the order of their ids; those that cannot be read as their id and why.
    pub(crate) fn all(&self) -> Result<Vec<Read>, Failure> {
        let scan = Scan::table(ENTRIES);
        let found = self.snapshot()?.scan(&scan).map_err(|error| store_failure(STORE_ERROR, &error))?;
        let read = |entry: ringway_store::Entry| {
            let id = String::from_utf8_lossy(&entry.key).into_owned();
            decode(&format!("the configuration `{id}`"), &entry.value.bytes).map_err(|why| (id, why))
        };
        Ok(found.into_iter().map(read).collect())
    }

    pub(crate) fn version(&self, id: &str, version: u64) -> Result<Option<Version>, Failure> {
        let found = self.snapshot()?.get(HISTORY, &history_key(id, version));
        let found = found.map_err(|error| store_failure(STORE_ERROR, &error))?;
        found.map(|value| decode(&format!("version {version} of `{id}`"), &value.bytes)).transpose()
    }

    /// Versions before one, the newest first.
    pub(crate) fn history(&self, id: &str, before: u64, limit: usize) -> Result<Vec<Version>, Failure> {
        let (from, to) = (history_key(id, 0), history_key(id, before));
        let scan = Scan::table(HISTORY).range(Bound::Included(&from), Bound::Excluded(&to));
        let found = self.snapshot()?.scan(&scan.reverse().limit(limit));
        let found = found.map_err(|error| store_failure(STORE_ERROR, &error))?;
        found.iter().map(|entry| decode(&format!("a version of `{id}`"), &entry.value.bytes)).collect()
    }

    /// The change from what was read to a new entry, with its version and without those that are too old.
    pub(crate) fn change(
        &self,
        before: &Stored,
        entry: &Entry,
        version: &Version,
        history_max: u32,
    ) -> Result<Batch, Failure> {
        let id = entry.id.as_bytes();
        let batch = before.expected(&entry.id).put(ENTRIES, id, encode(entry)?);
        let mut batch = batch.put(HISTORY, &history_key(&entry.id, entry.version), encode(version)?);
        if let Stored::Deleted { .. } = before {
            batch = batch.delete(DELETED, id);
        }
        let oldest = (entry.version + 1).saturating_sub(u64::from(history_max.max(1)));
        let (from, to) = (history_key(&entry.id, 0), history_key(&entry.id, oldest));
        let scan = Scan::table(HISTORY).range(Bound::Included(&from), Bound::Excluded(&to));
        let old = self.snapshot()?.scan(&scan).map_err(|error| store_failure(STORE_ERROR, &error))?;
        for entry in old {
            batch = batch.delete(HISTORY, &entry.key);
        }
        Ok(batch)
    }

    /// Removes an entry and its versions; how far they had come is kept.
    pub(crate) fn removal(&self, before: &Stored, entry: &Entry) -> Result<Batch, Failure> {
        let id = entry.id.as_str();
        let batch = before.expected(id).put(DELETED, id.as_bytes(), encode(&entry.version)?);
        let mut batch = batch.delete(ENTRIES, id.as_bytes());
        let (from, to) = (history_key(id, 0), history_key(id, u64::MAX));
        let scan = Scan::table(HISTORY).range(Bound::Included(&from), Bound::Included(&to));
        let old = self.snapshot()?.scan(&scan).map_err(|error| store_failure(STORE_ERROR, &error))?;
        for entry in old {
            batch = batch.delete(HISTORY, &entry.key);
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told() {
        for bytes in [&b""[..], &[2, b'{', b'}'], &[1, b'{'], &[1, b'{', b'}']] {
            let error = decode::<Entry>("the configuration `x`", bytes).unwrap_err().into_error();
            assert_eq!(error.user_code.as_deref(), Some(STORE_ERROR));
            assert!(error.message.contains("`x`") && error.message.contains("backup"), "{error}");
        }
    }

    #[test]
    fn ids_that_begin_alike_have_histories_of_their_own() {
        assert!(history_key("a", u64::MAX) < history_key("a-b", 0));
        assert!(history_key("a", 9) < history_key("a", 10));
    }
}
