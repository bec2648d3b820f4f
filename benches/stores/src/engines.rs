//! The stores behind one small face: open, commit a group durably, read. Each with the settings that its own
//! documents give for "durable when commit returns". Used by every measurement; it must not know what is measured.

use std::ops::Bound;
use std::path::Path;

use anyhow::Result;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use ringway_store::{Batch, Durability, Embedded, Options, Scan, Store};
use rusqlite::OptionalExtension;

/// Cache that each store may use, in bytes.
pub const CACHE_BYTES: usize = 64 << 20;

/// One change of a group.
#[derive(Debug, Clone)]
pub enum Op {
    /// Write a value.
    Put(Vec<u8>, Vec<u8>),
    /// Remove a key.
    Delete(Vec<u8>),
}

/// What the measurements need of a store.
pub trait Engine: Send {
    /// Applies the group in one transaction; on return it is on disk if `durable`.
    fn commit(&mut self, group: &[Op], durable: bool) -> Result<()>;
    /// Reads one value.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// The first `limit` entries from `from` on, in order.
    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// The library's own check of everything, where it has one: whether all is well.
    fn check(&mut self) -> Result<bool>;
}

/// Names of the stores, as on the command line.
pub const NAMES: [&str; 4] = ["redb", "fjall", "sqlite", "ringway"];

/// Opens or makes a store in the folder.
pub fn open(name: &str, folder: &Path) -> Result<Box<dyn Engine>> {
    Ok(match name {
        "redb" => Box::new(Redb::open(folder)?),
        "fjall" => Box::new(Fjall::open(folder)?),
        "sqlite" => Box::new(Sqlite::open(folder)?),
        "ringway" => Box::new(Ringway::open(folder)?),
        other => anyhow::bail!("wanted one of {NAMES:?}, found {other}"),
    })
}

struct Redb(redb::Database);

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

impl Redb {
    fn open(folder: &Path) -> Result<Self> {
        let database = redb::Builder::new().set_cache_size(CACHE_BYTES).create(folder.join("store.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Self(database))
    }
}

impl Engine for Redb {
    fn commit(&mut self, group: &[Op], durable: bool) -> Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(if durable {
            redb::Durability::Immediate
        } else {
            redb::Durability::None
        })?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for op in group {
                match op {
                    Op::Put(key, value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                    Op::Delete(key) => drop(table.remove(key.as_slice())?),
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        Ok(ReadableTable::get(&table, key)?.map(|value| value.value().to_vec()))
    }

    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        let mut entries = Vec::new();
        for entry in ReadableTable::range::<&[u8]>(&table, from..)?.take(limit) {
            let (key, value) = entry?;
            entries.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(entries)
    }

    fn check(&mut self) -> Result<bool> {
        Ok(self.0.check_integrity()?)
    }
}

struct Fjall {
    entries: fjall::Keyspace,
    database: fjall::Database,
}

impl Fjall {
    fn open(folder: &Path) -> Result<Self> {
        let database = fjall::Database::builder(folder.join("store.fjall"))
            .cache_size(CACHE_BYTES as u64)
            .manual_journal_persist(true)
            .open()?;
        let entries = database.keyspace("entries", fjall::KeyspaceCreateOptions::default)?;
        Ok(Self { entries, database })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, group: &[Op], durable: bool) -> Result<()> {
        let mut batch = self.database.batch().durability(durable.then_some(fjall::PersistMode::SyncData));
        for op in group {
            match op {
                Op::Put(key, value) => batch.insert(&self.entries, key.as_slice(), value.as_slice()),
                Op::Delete(key) => batch.remove(&self.entries, key.as_slice()),
            }
        }
        batch.commit()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.entries.get(key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        for guard in self.entries.range(from..).take(limit) {
            let (key, value) = guard.into_inner()?;
            entries.push((key.to_vec(), value.to_vec()));
        }
        Ok(entries)
    }

    fn check(&mut self) -> Result<bool> {
        // It has no check of its own: reading everything verifies each block.
        for guard in self.entries.iter() {
            guard.into_inner()?;
        }
        Ok(true)
    }
}

struct Sqlite(rusqlite::Connection);

impl Sqlite {
    fn open(folder: &Path) -> Result<Self> {
        let connection = rusqlite::Connection::open(folder.join("store.sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "cache_size", -(CACHE_BYTES as i64 / 1024))?;
        connection.set_prepared_statement_cache_capacity(16);
        connection
            .execute("CREATE TABLE IF NOT EXISTS entries (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID", [])?;
        Ok(Self(connection))
    }
}

impl Engine for Sqlite {
    fn commit(&mut self, group: &[Op], durable: bool) -> Result<()> {
        self.0.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" })?;
        let transaction = self.0.transaction()?;
        {
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO entries VALUES (?1, ?2)")?;
            let mut delete = transaction.prepare_cached("DELETE FROM entries WHERE k = ?1")?;
            for op in group {
                match op {
                    Op::Put(key, value) => put.execute((key, value))?,
                    Op::Delete(key) => delete.execute((key,))?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut get = self.0.prepare_cached("SELECT v FROM entries WHERE k = ?1")?;
        Ok(get.query_row((key,), |row| row.get(0)).optional()?)
    }

    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut scan = self.0.prepare_cached("SELECT k, v FROM entries WHERE k >= ?1 ORDER BY k LIMIT ?2")?;
        let rows = scan.query_map((from, limit as i64), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
    }

    fn check(&mut self) -> Result<bool> {
        let found: String = self.0.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        Ok(found == "ok")
    }
}

/// Our own, on redb. Each change of a durable group is a batch of its own, as from as many callers.
struct Ringway(Embedded);

impl Ringway {
    fn open(folder: &Path) -> Result<Self> {
        Ok(Self(Embedded::open(folder, Options { cache_bytes: CACHE_BYTES / 2, ..Options::default() })?.0))
    }
}

fn with(batch: Batch, op: &Op) -> Batch {
    match op {
        Op::Put(key, value) => batch.put("entries", key, value.as_slice()),
        Op::Delete(key) => batch.delete("entries", key),
    }
}

impl Engine for Ringway {
    fn commit(&mut self, group: &[Op], durable: bool) -> Result<()> {
        if !durable {
            self.0.commit(group.iter().fold(Batch::new(), with), Durability::Ephemeral)?;
            return Ok(());
        }
        let (last, others) = group.split_last().expect("a group is not empty");
        for op in others {
            self.0.submit(with(Batch::new(), op), Durability::Durable, Box::new(drop))?;
        }
        // The committer takes them in order, so that the last is told last.
        self.0.commit(with(Batch::new(), last), Durability::Durable)?;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.0.get("entries", key)?.map(|value| value.bytes.to_vec()))
    }

    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let scan = Scan::table("entries").range(Bound::Included(from), Bound::Unbounded).limit(limit);
        let entries = self.0.scan(&scan)?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value.bytes.to_vec())).collect())
    }

    fn check(&mut self) -> Result<bool> {
        Ok(self.0.verify().is_empty())
    }
}
