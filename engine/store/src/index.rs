//! One file of the index: a redb database that holds every entry, sealed, with the revision that it has come to. There
//! are two of them with the same contents, see `pair`. It must not know about the log or the other file.
//!
//! A value is stored as revision (8), seal (8), bytes. redb is asked to check every page when a file is opened. Some of
//! its paths panic on damaged pages, so that each call is fenced and a panic is an error like any other.

use std::io;
use std::ops::Bound;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::files::File;
use crate::keys;
use crate::memory::Version;
use crate::store::Value;

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");
const SEAL_BYTES: usize = 16;

/// A bound of a range over keys.
pub(crate) type Edge<'a> = Bound<&'a [u8]>;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) format: u32,
    /// Everything up to here is in it.
    pub(crate) revision: u64,
}

/// Passes redb's calls on to the seam.
#[derive(Debug)]
struct Backend(Arc<dyn File>);

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write_at(offset, data)
    }
}

/// Runs a call of the library; an error or a panic says whether it was the disk.
fn fenced<T, E: Into<redb::Error>>(call: impl FnOnce() -> Result<T, E>) -> Result<T, Refusal> {
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.into().into()),
        Err(panic) => Err(Refusal::Damaged(panicked(&*panic))),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    format!("the library panicked: {text}")
}

/// Why a file could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The disk refused; the file may be whole.
    #[error("{0}")]
    Disk(io::Error),
    /// The file is not what it should be.
    #[error("{0}")]
    Damaged(String),
}

impl From<redb::Error> for Refusal {
    fn from(error: redb::Error) -> Self {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        match error {
            // An early end and a wrong magic are the file's fault, everything else the disk's.
            redb::Error::Io(error) if !matches!(error.kind(), UnexpectedEof | InvalidData) => {
                Self::Disk(error)
            }
            redb::Error::PreviousIo => Self::Disk(io::Error::other(
                "a call before failed, and the file is not asked again until it is opened anew",
            )),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// An open file of the index.
#[derive(Debug)]
pub(crate) struct Index {
    database: Option<Database>,
}

impl Index {
    /// Opens a file, or begins an empty one; checks every page of it if told to.
    pub(crate) fn open(file: Arc<dyn File>, cache_bytes: usize, check: bool) -> Result<Self, Refusal> {
        let database = fenced(|| {
            let mut builder = redb::Builder::new();
            builder.set_cache_size(cache_bytes).set_check_integrity_on_open(check);
            builder.create_with_backend(Backend(file))
        })?;
        Ok(Self { database: Some(database) })
    }

    fn database(&self) -> Result<&Database, redb::Error> {
        self.database.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    /// What the file says of itself; `None` if nothing was ever written to it.
    pub(crate) fn facts(&self) -> Result<Option<Facts>, Refusal> {
        fenced(|| {
            let table = match self.database()?.begin_read()?.open_table(FACTS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                table => table?,
            };
            let fact = |name: &str| Ok::<_, redb::Error>(table.get(name)?.map_or(0, |fact| fact.value()));
            let format = u32::try_from(fact("format")?).unwrap_or(u32::MAX);
            Ok::<_, redb::Error>(Some(Facts { format, revision: fact("revision")? }))
        })
    }

    /// Writes versions, newest of each key, in one durable transaction.
    pub(crate) fn apply(
        &self,
        versions: &mut dyn Iterator<Item = Version>,
        facts: Facts,
    ) -> Result<(), Refusal> {
        fenced(|| {
            let mut transaction = self.database()?.begin_write()?;
            transaction.set_quick_repair(true);
            {
                let mut entries = transaction.open_table(ENTRIES)?;
                let mut sealed = Vec::new();
                for (key, revision, value) in versions {
                    match value {
                        Some(value) => {
                            sealed.clear();
                            sealed.extend_from_slice(&revision.to_le_bytes());
                            sealed.extend_from_slice(&keys::seal(&key, revision, &value).to_le_bytes());
                            sealed.extend_from_slice(&value);
                            entries.insert(&*key, sealed.as_slice())?;
                        }
                        None => {
                            entries.remove(&*key)?;
                        }
                    }
                }
                let mut table = transaction.open_table(FACTS)?;
                table.insert("format", u64::from(facts.format))?;
                table.insert("revision", facts.revision)?;
            }
            transaction.commit()?;
            Ok::<_, redb::Error>(())
        })
    }

    /// A view of the file as it is now.
    pub(crate) fn reader(&self) -> Result<Reader, Refusal> {
        fenced(|| Ok::<_, redb::Error>(Reader(self.database()?.begin_read()?.open_table(ENTRIES)?)))
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let database = self.database.take();
        // A library that met damage may panic once more; the store goes on with the other file.
        drop(fenced(|| database.map_or(Ok(()), Database::close)));
    }
}

/// A file of the index as of one checkpoint.
pub(crate) struct Reader(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Reader")
    }
}

/// What was stored with a key, if its seal is right.
fn unseal(key: &[u8], stored: &[u8]) -> Result<Value, String> {
    let wrong = || "its seal does not fit it".to_owned();
    let (seal, bytes) = stored.split_at_checked(SEAL_BYTES).ok_or_else(wrong)?;
    let word = |at: usize| seal[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    if word(8) != keys::seal(key, word(0), bytes) {
        return Err(wrong());
    }
    Ok(Value { revision: word(0), bytes: bytes.into() })
}

/// An entry as it was read: its key, and its value or what is wrong with it.
pub(crate) type Read = (Vec<u8>, Result<Value, String>);

impl Reader {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>, Refusal> {
        let stored = fenced(|| {
            let found = ReadableTable::get(&self.0, key)?;
            Ok::<_, redb::StorageError>(found.map(|stored| unseal(key, stored.value())))
        })?;
        stored.transpose().map_err(Refusal::Damaged)
    }

    /// Up to `limit` entries within the bounds, in order or against it.
    pub(crate) fn entries(
        &self,
        from: Edge<'_>,
        to: Edge<'_>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Read>, Refusal> {
        if is_empty(from, to) {
            return Ok(Vec::new());
        }
        fenced(|| {
            let mut range = ReadableTable::range::<&[u8]>(&self.0, (from, to))?;
            let mut found = Vec::new();
            while found.len() < limit {
                let next = if reverse { range.next_back() } else { range.next() };
                let Some(entry) = next else { break };
                let (key, stored) = entry?;
                found.push((key.value().to_vec(), unseal(key.value(), stored.value())));
            }
            Ok::<_, redb::StorageError>(found)
        })
    }
}

/// Whether no key lies within the bounds.
pub(crate) fn is_empty(from: Edge<'_>, to: Edge<'_>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
    }
}
