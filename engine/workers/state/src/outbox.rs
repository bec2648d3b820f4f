//! What the store says of events that are still to be told: which of their targets have been, and which events nobody
//! needs any more. Read when the worker starts, written by `delivery` after each target. It must not know how a target is
//! told.
//!
//! An event goes with its last target. Until then each target that was told is marked, so that after a restart only the
//! others are told. Marks are not waited for: they outlive the process, and where a machine loses power a target is told
//! once more.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_store::{Batch, Durability, Scan, Snapshot, StoreError};

use crate::change::Event;
use crate::core::{Core, News};
use crate::lanes::{Notice, Taken, Told};
use crate::limits::CHUNK;
use crate::tables;

/// Reads what the outbox has from before the start. Entries that cannot be read are reported and left where they are.
pub(crate) fn recover(core: &Core) -> Result<(), StoreError> {
    let snapshot = core.store.snapshot()?;
    let mut told: HashSet<Vec<u8>> = HashSet::new();
    each(&*snapshot, tables::TOLD, |entry| {
        told.insert(entry.key);
    })?;
    let (mut found, mut gone) = (Vec::new(), Vec::new());
    each(&*snapshot, tables::OUTBOX, |entry| {
        match (tables::number(&entry.key), Event::decode(&entry.value.bytes)) {
            (Some(number), Ok(event)) => {
                let targets_in_all = u32::try_from(event.targets.len()).unwrap_or(u32::MAX);
                let targets: Vec<_> = (0..).zip(event.targets).collect();
                let (past, targets): (Vec<_>, Vec<_>) = targets
                    .into_iter()
                    .partition(|(target, _)| told.remove(&tables::told_key(number, *target)));
                if targets.is_empty() {
                    gone.push((tables::OUTBOX, entry.key));
                    gone.extend(
                        past.iter().map(|(target, _)| (tables::TOLD, tables::told_key(number, *target))),
                    );
                } else {
                    let notice = Notice { number, key: event.change.key, targets, targets_in_all };
                    found.push((entry.value.revision, notice));
                }
            }
            (number, event) => {
                let error = event.err().map(|error| error.to_string());
                tracing::error!(?number, error, "an event of the outbox cannot be read and stays there");
                core.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                told.retain(|key| !key.starts_with(&entry.key));
            }
        }
    })?;
    // Two threads that told the last two targets of an event may have written that down in either order. What is left
    // over must go before its number is given to another event.
    gone.extend(told.into_iter().map(|key| (tables::TOLD, key)));
    for keys in gone.chunks(CHUNK) {
        let batch = keys.iter().fold(Batch::new(), |batch, (table, key)| batch.delete(table, key));
        core.store.commit(batch, Durability::Ephemeral)?;
    }
    // Numbers are given before commits are ordered; within one commit they are in order.
    found.sort_by_key(|(revision, notice)| (*revision, notice.number));
    core.news.outbox.fetch_add(found.len(), Ordering::Relaxed);
    core.news.delivery.add(found.into_iter().map(|(_, notice)| notice).collect());
    Ok(())
}

fn each(
    snapshot: &dyn Snapshot,
    table: &str,
    mut take: impl FnMut(ringway_store::Entry),
) -> Result<(), StoreError> {
    let mut from = Bound::Unbounded;
    loop {
        let range = from.as_ref().map(Vec::as_slice);
        let entries = snapshot.scan(&Scan::table(table).range(range, Bound::Unbounded).limit(CHUNK))?;
        let last = entries.last().filter(|_| entries.len() == CHUNK).map(|entry| entry.key.clone());
        entries.into_iter().for_each(&mut take);
        let Some(last) = last else { return Ok(()) };
        from = Bound::Excluded(last);
    }
}

/// Removes an event and the marks of its targets.
fn forget(batch: Batch, number: u64, targets: u32) -> Batch {
    let batch = batch.delete(tables::OUTBOX, &number.to_be_bytes());
    // The only target of an event is never marked.
    let marked = if targets > 1 { targets } else { 0 };
    (0..marked).fold(batch, |batch, target| batch.delete(tables::TOLD, &tables::told_key(number, target)))
}

fn note(batch: Batch, told: &Told) -> Batch {
    if told.last {
        return forget(batch, told.number, told.targets_in_all);
    }
    batch.put(tables::TOLD, &tables::told_key(told.number, told.target), tables::MARK.to_vec())
}

/// Writes down who has been told, together with what the store did not take before. Waits for nobody.
pub(crate) fn settle(core: &Core, told: Option<Told>) {
    let mut noted = std::mem::take(&mut *core.news.unsettled.lock());
    noted.extend(told);
    if noted.is_empty() {
        return;
    }
    let batch = noted.iter().fold(Batch::new(), note);
    let news: Arc<News> = Arc::clone(&core.news);
    let again = noted.clone();
    let done = Box::new(move |outcome: Result<u64, StoreError>| {
        if let Err(error) = outcome {
            keep(&news, again, &error);
        }
    });
    if let Err(error) = core.store.submit(batch, Durability::Ephemeral, done) {
        keep(&core.news, noted, &error);
    }
    if told.is_some_and(|told| told.last) {
        core.news.outbox.fetch_sub(1, Ordering::Relaxed);
    }
}

fn keep(news: &News, noted: Vec<Told>, error: &StoreError) {
    tracing::warn!(%error, "what was told is written down with the next event; should the engine end before, it is told again");
    news.unsettled.lock().extend(noted);
}

/// Keeps an event that was not taken in time where a person finds it. Waits for the disk.
pub(crate) fn set_aside(core: &Core, taken: &Taken, event: &Event) -> Result<(), StoreError> {
    let key = tables::told_key(taken.number, taken.target);
    let alone = Event { targets: vec![Arc::clone(&taken.lane.label)], ..event.clone() };
    let mut batch = Batch::new().put(tables::UNDELIVERED, &key, alone.encode());
    if taken.targets_in_all == 1 {
        batch = forget(batch, taken.number, 1);
    } else {
        batch = batch.put(tables::TOLD, &key, tables::MARK.to_vec());
    }
    core.store.commit(batch, Durability::Durable)?;
    core.counters.set_aside.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(
        trigger = %taken.lane.label, number = taken.number,
        "an event was not taken in time and is set aside"
    );
    Ok(())
}
