//! Memory and index together, as of one revision: what a snapshot reads. Newer layers win over older ones. Made by
//! `embedded`, swapped when memory moves to the index. It must not know how commits come in.

use std::ops::Bound;
use std::sync::Arc;

use crate::error::StoreError;
use crate::keys;
use crate::memory::{Memory, Version};
use crate::pair::{Broken, Readers};
use crate::store::{Entry, Joined, Scan, Snapshot, Value};

/// Versions taken from a layer at once.
const CHUNK: usize = 256;

/// The layers, newest first.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) active: Arc<Memory>,
    /// What is being moved to the index.
    pub(crate) frozen: Option<Arc<Memory>>,
    pub(crate) index: Arc<Readers>,
}

/// A view up to a revision.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) view: Arc<View>,
    pub(crate) revision: u64,
}

fn unread(broken: Broken) -> StoreError {
    let (table, key) = keys::split(&broken.key).unwrap_or(("", &broken.key));
    let (table, key, reason) = (table.to_owned(), key.to_vec(), broken.reason);
    if broken.by_disk {
        StoreError::Io { table, key, reason }
    } else {
        StoreError::Corrupt { table, key, reason }
    }
}

/// One layer being read in chunks, with the bounds of what is left.
struct Layer<'a> {
    source: Source<'a>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    /// What has been read and not yet taken, next one last.
    ready: Vec<Version>,
    ended: bool,
}

enum Source<'a> {
    Memory(&'a Memory),
    Index(&'a Readers),
}

impl Layer<'_> {
    /// The key that comes next.
    fn peek(&mut self, reverse: bool, revision: u64, limit: usize) -> Result<Option<&Version>, StoreError> {
        if self.ready.is_empty() && !self.ended {
            let (from, to) = (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice));
            let wanted = limit.clamp(1, CHUNK);
            let mut chunk: Vec<Version> = match self.source {
                Source::Memory(memory) => memory.versions(from, to, reverse, revision, wanted),
                Source::Index(readers) => {
                    let entries = readers.chunk(from, to, reverse, wanted).map_err(unread)?;
                    entries
                        .into_iter()
                        .map(|(key, value)| (key.into(), value.revision, Some(value.bytes)))
                        .collect()
                }
            };
            self.ended = chunk.len() < wanted;
            if let Some((last, _, _)) = chunk.last() {
                let edge = Bound::Excluded(last.to_vec());
                if reverse { self.to = edge } else { self.from = edge }
            }
            chunk.reverse();
            self.ready = chunk;
        }
        Ok(self.ready.last())
    }
}

impl At {
    /// Reads one value by its key within the whole store.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>, StoreError> {
        if let Some(found) = self.view.active.get(key, self.revision) {
            return Ok(found);
        }
        if let Some(found) = self.view.frozen.as_ref().and_then(|frozen| frozen.get(key, self.revision)) {
            return Ok(found);
        }
        self.view.index.get(key).map_err(unread)
    }

    /// Up to `limit` entries by their keys within the whole store.
    pub(crate) fn entries(
        &self,
        from: Bound<Vec<u8>>,
        to: Bound<Vec<u8>>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Joined>, StoreError> {
        let layer =
            |source| Layer { source, from: from.clone(), to: to.clone(), ready: Vec::new(), ended: false };
        let mut layers = vec![layer(Source::Memory(&self.view.active))];
        layers.extend(self.view.frozen.as_deref().map(|frozen| layer(Source::Memory(frozen))));
        layers.push(layer(Source::Index(&self.view.index)));
        let mut found = Vec::new();
        while found.len() < limit {
            let mut next: Option<Arc<[u8]>> = None;
            for layer in &mut layers {
                if let Some((key, _, _)) = layer.peek(reverse, self.revision, limit)? {
                    let nearer =
                        next.as_ref().is_none_or(|next| if reverse { key > next } else { key < next });
                    if nearer {
                        next = Some(Arc::clone(key));
                    }
                }
            }
            let Some(key) = next else { break };
            let mut newest = None;
            for layer in &mut layers {
                if layer.ready.last().is_some_and(|version| version.0 == key) {
                    let version = layer.ready.pop();
                    newest = newest.or(version);
                }
            }
            if let Some((key, revision, Some(bytes))) = newest {
                found.push((key, Value { revision, bytes }));
            }
        }
        Ok(found)
    }
}

impl Snapshot for At {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn get(&self, table: &str, key: &[u8]) -> Result<Option<Value>, StoreError> {
        Self::get(self, &keys::join(table, key))
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Entry>, StoreError> {
        let (from, to) = scan.bounds();
        let entries = self.entries(from, to, scan.is_reverse(), scan.limit_wanted())?;
        Ok(entries.into_iter().map(|(key, value)| scan.entry(&key, value)).collect())
    }

    fn all(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Joined>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_vec()));
        self.entries(from, Bound::Unbounded, false, limit)
    }
}
