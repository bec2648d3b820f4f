//! Reading: items, groups, streams, logs. Always from what is committed, without a lock that a commit holds for longer than
//! a moment. Used by the functions, the triggers, the janitor. It must not know who asks.

use std::ops::Bound;
use std::sync::Arc;

use ringway_store::{Entry as Stored, Scan, Snapshot};
use ringway_worker_kit::names;

use crate::core::Core;
use crate::error::Refusal;
use crate::limits::CHUNK;
use crate::place::{self, Place, Reader};
use crate::record::{Cursor, Entry, Head, Item};
use crate::tables;

/// What is known of a group; none if it is new.
pub(crate) fn head(snapshot: &dyn Snapshot, place: &Place) -> Result<Option<Head>, Refusal> {
    let Some(value) = snapshot.get(tables::HEADS, &place.key)? else { return Ok(None) };
    let head = Head::decode(&value.bytes);
    head.map(Some).map_err(|error| Refusal::of(place, "the head", error))
}

/// An item, if it is there.
pub(crate) fn item(core: &Core, place: &Place, id: &str) -> Result<Option<Item>, Refusal> {
    item_of(core, &*core.store.snapshot()?, place, id)
}

pub(crate) fn item_of(
    core: &Core,
    snapshot: &dyn Snapshot,
    place: &Place,
    id: &str,
) -> Result<Option<Item>, Refusal> {
    let key = place.item(id).map_err(Refusal::Name)?;
    let Some(value) = snapshot.get(tables::ITEMS, &key)? else { return Ok(None) };
    let item = Item::read(value.bytes).map_err(|error| Refusal::item(place, id, error))?;
    Ok(Some(item).filter(|item| item.is_live(core.now_ms())))
}

/// Calls `take` with each entry of a table from a key on, in chunks, until it says no.
fn walk(
    snapshot: &dyn Snapshot,
    table: &str,
    mut from: Bound<Vec<u8>>,
    to: &Bound<Vec<u8>>,
    mut take: impl FnMut(Stored) -> Result<bool, Refusal>,
) -> Result<(), Refusal> {
    loop {
        let range =
            Scan::table(table).range(from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let entries = snapshot.scan(&range.limit(CHUNK))?;
        let last = entries.last().filter(|_| entries.len() == CHUNK).map(|entry| entry.key.clone());
        for entry in entries {
            if !take(entry)? {
                return Ok(());
            }
        }
        match last {
            Some(last) => from = Bound::Excluded(last),
            None => return Ok(()),
        }
    }
}

/// Calls `take` with each item of a group after an id, in the order of ids, as of one revision, until it says no.
pub(crate) fn items(
    core: &Core,
    snapshot: &dyn Snapshot,
    place: &Place,
    after: Option<&str>,
    mut take: impl FnMut(&str, Item) -> bool,
) -> Result<(), Refusal> {
    let now_ms = core.now_ms();
    let from = match after {
        Some(id) => Bound::Excluded(place.item(id).map_err(Refusal::Name)?),
        None => Bound::Included(place.key.to_vec()),
    };
    walk(snapshot, tables::ITEMS, from, &Bound::Excluded(names::behind(&place.key)), |entry| {
        let id = String::from_utf8_lossy(&entry.key[place.key.len()..]);
        let item = Item::read(entry.value.bytes).map_err(|error| Refusal::item(place, &id, error))?;
        Ok(!item.is_live(now_ms) || take(&id, item))
    })
}

/// The groups of one stream, or of all, that hold an item, in order. Costs a look at the store for each.
pub(crate) fn groups(core: &Core, stream: Option<&str>) -> Result<Vec<Place>, Refusal> {
    let (snapshot, now_ms) = (core.store.snapshot()?, core.now_ms());
    let prefix = stream.map(place::of_stream);
    let to = prefix.as_ref().map_or(Bound::Unbounded, |prefix| Bound::Excluded(names::behind(prefix)));
    let mut from = prefix.map_or(Bound::Unbounded, Bound::Included);
    let mut found = Vec::new();
    loop {
        let mut next = None;
        walk(&*snapshot, tables::ITEMS, from, &to, |entry| {
            // Items that expired and were not removed yet do not make a group.
            let live = Item::read(entry.value.bytes).map_or(true, |item| item.is_live(now_ms));
            if live {
                next = Place::take(&entry.key).map(|(place, _)| place);
            }
            Ok(!live)
        })?;
        let Some(place) = next else { return Ok(found) };
        from = Bound::Included(names::behind(&place.key));
        found.push(place);
    }
}

/// Calls `take` with each group that was ever written and not forgotten, items or not, and the revision of its last commit,
/// until it says no. What cannot be read is left out and counted.
pub(crate) fn heads(
    core: &Core,
    stream: Option<&str>,
    after: Option<&Place>,
    mut take: impl FnMut(Place, Head, u64) -> bool,
) -> Result<(), Refusal> {
    let snapshot = core.store.snapshot()?;
    let prefix = stream.map(place::of_stream);
    let to = prefix.as_ref().map_or(Bound::Unbounded, |prefix| Bound::Excluded(names::behind(prefix)));
    let from = match after {
        Some(place) => Bound::Excluded(place.key.to_vec()),
        None => prefix.map_or(Bound::Unbounded, Bound::Included),
    };
    walk(&*snapshot, tables::HEADS, from, &to, |entry| {
        match (Place::take(&entry.key), Head::decode(&entry.value.bytes)) {
            (Some((place, [])), Ok(head)) => Ok(take(place, head, entry.value.revision)),
            _ => {
                core.counters.unreadable.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tracing::error!(key = ?entry.key, "the head of a group cannot be read and stays there");
                Ok(true)
            }
        }
    })
}

/// An entry as it is found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) sequence: u64,
    /// The commit that wrote it.
    pub(crate) revision: u64,
    /// Bytes that it takes in the store.
    pub(crate) bytes: u64,
    pub(crate) entry: Result<Entry, crate::record::Unreadable>,
}

/// Entries of a log from a number on, at most so many; ends early after so many bytes, but not before the first.
pub(crate) fn entries(
    snapshot: &dyn Snapshot,
    place: &Place,
    from: u64,
    limit: usize,
    bytes_max: usize,
) -> Result<Vec<Found>, Refusal> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let to = Bound::Excluded(names::behind(&place.key));
    // The store copies nothing, but whole chunks would keep much in memory.
    let mut from = Bound::Included(place.entry(from));
    while found.len() < limit {
        let wanted = (limit - found.len()).min(64);
        let range =
            Scan::table(tables::LOG).range(from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let chunk = snapshot.scan(&range.limit(wanted))?;
        let ended = chunk.len() < wanted;
        for entry in chunk {
            let Some(sequence) = tables::number(&entry.key) else { continue };
            let size = entry.key.len() + entry.value.bytes.len();
            if !found.is_empty() && bytes + size > bytes_max {
                return Ok(found);
            }
            bytes += size;
            let decoded = Entry::decode(&entry.value.bytes);
            let revision = entry.value.revision;
            found.push(Found { sequence, revision, bytes: size as u64, entry: decoded });
            from = Bound::Excluded(entry.key);
        }
        if ended {
            break;
        }
    }
    Ok(found)
}

/// The first entry for which something holds that holds for all after it. Costs a look for each doubling of the log.
pub(crate) fn first_entry(
    snapshot: &dyn Snapshot,
    place: &Place,
    head: &Head,
    holds: impl Fn(&Found) -> bool,
) -> Result<u64, Refusal> {
    let (mut low, mut high) = (head.first, head.last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = entries(snapshot, place, middle, 1, 0)?;
        if found.first().is_none_or(&holds) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// How far somebody has read.
pub(crate) fn cursor(
    snapshot: &dyn Snapshot,
    place: &Place,
    reader: &Reader,
) -> Result<Option<Cursor>, Refusal> {
    let key = place.reader(reader).map_err(Refusal::Name)?;
    let Some(value) = snapshot.get(tables::CURSORS, &key)? else { return Ok(None) };
    let cursor = Cursor::decode(&value.bytes);
    cursor.map(Some).map_err(|error| Refusal::of(place, "how far somebody has read", error))
}

/// How far everybody has read a group's log, by reader.
pub(crate) fn cursors(snapshot: &dyn Snapshot, place: &Place) -> Result<Vec<(Reader, Cursor)>, Refusal> {
    let mut found = Vec::new();
    let to = Bound::Excluded(names::behind(&place.key));
    walk(snapshot, tables::CURSORS, Bound::Included(place.key.to_vec()), &to, |entry| {
        let reader = Reader::read(&entry.key[place.key.len()..]);
        if let (Some(reader), Ok(cursor)) = (reader, Cursor::decode(&entry.value.bytes)) {
            found.push((reader, cursor));
        }
        Ok(true)
    })?;
    Ok(found)
}

/// The JSON text of an entry's data, or of what stands for it.
pub(crate) fn json_of(data: &Arc<[u8]>) -> &[u8] {
    if data.is_empty() { b"null" } else { data }
}
