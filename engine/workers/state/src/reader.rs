//! Reading: one value, a scope, the names of scopes, pages of a range. Always from what is committed, without a lock that a
//! commit holds for longer than a moment. Used by the functions. It must not know who asks.

use std::ops::Bound;
use std::sync::Arc;

use ringway_store::{Entry, Scan, Snapshot};

use crate::core::Core;
use crate::error::WriteError;
use crate::limits::CHUNK;
use crate::record::Record;
use crate::{keys, tables};

/// A value as it is found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) key: Vec<u8>,
    pub(crate) record: Record,
    pub(crate) revision: u64,
}

/// Where a range of keys begins and ends, and how much of it is wanted.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) from: Bound<Vec<u8>>,
    pub(crate) to: Bound<Vec<u8>>,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
    pub(crate) bytes_max: usize,
}

/// A part of a range.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) found: Vec<Found>,
    /// Where the next page begins, if there may be one.
    pub(crate) next: Option<Vec<u8>>,
    pub(crate) revision: u64,
}

/// Reads one value with its revision. Costs a look at the store.
pub(crate) fn get(core: &Core, key: &[u8]) -> Result<Option<(Record, u64)>, WriteError> {
    let Some(value) = core.store.get(tables::VALUES, key)? else { return Ok(None) };
    let record = tables::record(key, value.bytes)?;
    let live = record.expires_at_ms().is_none() || record.is_live(core.clock.now_ms());
    Ok(live.then_some((record, value.revision)))
}

/// Reads a page of a range, all of it as of one revision.
pub(crate) fn page(core: &Core, mut range: Range) -> Result<Page, WriteError> {
    let snapshot = core.store.snapshot()?;
    let now_ms = core.clock.now_ms();
    let mut page = Page { found: Vec::new(), next: None, revision: snapshot.revision() };
    let mut bytes = 0;
    loop {
        let wanted = (range.limit - page.found.len()).min(CHUNK);
        let entries = chunk(&*snapshot, &range, wanted)?;
        let ended = entries.len() < wanted;
        for entry in entries {
            let record = tables::record(&entry.key, Arc::clone(&entry.value.bytes))?;
            let edge = Bound::Excluded(entry.key.clone());
            if range.reverse {
                range.to = edge;
            } else {
                range.from = edge;
            }
            if !record.is_live(now_ms) {
                continue;
            }
            bytes += entry.key.len() + record.payload().len();
            let key = entry.key.clone();
            page.found.push(Found { key: entry.key, record, revision: entry.value.revision });
            if page.found.len() == range.limit || bytes >= range.bytes_max {
                page.next = Some(key);
                return Ok(page);
            }
        }
        if ended {
            return Ok(page);
        }
    }
}

fn chunk(snapshot: &dyn Snapshot, range: &Range, limit: usize) -> Result<Vec<Entry>, WriteError> {
    let mut scan = Scan::table(tables::VALUES);
    scan = scan.range(range.from.as_ref().map(Vec::as_slice), range.to.as_ref().map(Vec::as_slice));
    if range.reverse {
        scan = scan.reverse();
    }
    Ok(snapshot.scan(&scan.limit(limit))?)
}

/// Calls `take` with each value of a scope, in the order of keys, as of one revision, until it says no.
pub(crate) fn each(
    core: &Core,
    scope: &str,
    mut take: impl FnMut(&Record) -> bool,
) -> Result<(), WriteError> {
    let snapshot = core.store.snapshot()?;
    let now_ms = core.clock.now_ms();
    let prefix = keys::of_scope(scope);
    let to = Bound::Excluded(keys::behind(&prefix));
    let mut range =
        Range { from: Bound::Included(prefix), to, reverse: false, limit: CHUNK, bytes_max: usize::MAX };
    loop {
        let entries = chunk(&*snapshot, &range, CHUNK)?;
        for entry in &entries {
            let record = tables::record(&entry.key, Arc::clone(&entry.value.bytes))?;
            if record.is_live(now_ms) && !take(&record) {
                return Ok(());
            }
        }
        match entries.last() {
            Some(last) if entries.len() == CHUNK => range.from = Bound::Excluded(last.key.clone()),
            _ => return Ok(()),
        }
    }
}

/// The scopes that hold a value, in order. Costs a look at the store for each of them, however many values it holds.
pub(crate) fn scopes(core: &Core) -> Result<Vec<String>, WriteError> {
    let snapshot = core.store.snapshot()?;
    let now_ms = core.clock.now_ms();
    let mut scopes = Vec::new();
    let mut from = Bound::Unbounded;
    loop {
        let range = Range { from, to: Bound::Unbounded, reverse: false, limit: CHUNK, bytes_max: usize::MAX };
        let entries = chunk(&*snapshot, &range, 1)?;
        let Some(entry) = entries.into_iter().next() else { return Ok(scopes) };
        let (scope, _) = keys::split(&entry.key).ok_or_else(|| {
            tables::unreadable(&entry.key, &crate::record::Unreadable::Damaged(entry.key.len()))
        })?;
        let record = tables::record(&entry.key, entry.value.bytes)?;
        from = if record.is_live(now_ms) {
            let behind = keys::behind(&keys::of_scope(&scope));
            scopes.push(scope);
            Bound::Included(behind)
        } else {
            // Expired and not yet removed; the next may be alive.
            Bound::Excluded(entry.key)
        };
    }
}
