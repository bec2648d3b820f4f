//! Removes what is due: items whose time has come, at that time; entries beyond the retention of their stream; groups of
//! which nothing is left; triggers that nobody binds any more. One future that sleeps until there is something to do.
//! Readers do not wait for it: an expired item is absent for them at once. It must not know what else an item is for.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use async_channel::{Receiver, Sender};
use futures_lite::future;
use parking_lot::Mutex;
use ringway::TraceContext;
use ringway_store::{Batch, Durability, Entry, Scan, StoreError};

use crate::config::Rules;
use crate::core::{self, Core};
use crate::error::Refusal;
use crate::limits::CHUNK;
use crate::place::{Place, Reader};
use crate::plan::Act;
use crate::reader::Found;
use crate::record::Head;
use crate::{reader, tables};

/// How long what the store refuses is left alone, in milliseconds.
const RETRY_MS: u64 = 1000;

#[derive(Debug, Default)]
struct Due {
    expiry_ms: Option<u64>,
    /// Groups whose logs are longer than they may be.
    over: HashSet<Place>,
}

/// What is due when.
#[derive(Debug)]
pub(crate) struct Timer {
    due: Mutex<Due>,
    nudge: Sender<()>,
}

impl Timer {
    /// A timer, and what the janitor hears of it.
    pub(crate) fn new() -> (Self, Receiver<()>) {
        let (nudge, nudged) = async_channel::bounded(1);
        (Self { due: Mutex::default(), nudge }, nudged)
    }

    /// Takes note of an item that will expire.
    pub(crate) fn note(&self, at_ms: Option<u64>) {
        let Some(at_ms) = at_ms else { return };
        let mut due = self.due.lock();
        if due.expiry_ms.is_none_or(|due_ms| at_ms < due_ms) {
            due.expiry_ms = Some(at_ms);
            let _nudged_or_full = self.nudge.try_send(());
        }
    }

    /// Takes note of a log that is longer than it may be.
    pub(crate) fn over(&self, place: &Place) {
        if self.due.lock().over.insert(place.clone()) {
            let _nudged_or_full = self.nudge.try_send(());
        }
    }
}

/// Whether a log is so much longer than it may be that it is worth a commit.
pub(crate) fn is_over(head: &Head, rules: &Rules) -> bool {
    let more = |max: u64| max.saturating_add(max / 8);
    head.entries() > more(rules.retention_entries) || head.log_bytes > more(rules.retention_bytes)
}

/// The janitor's life; ends with the worker.
pub(crate) async fn run(core: Weak<Core>, nudged: Receiver<()>) {
    let mut check_at_ms = 0;
    loop {
        let Some(held) = core.upgrade() else { return };
        let (bell, every_ms) = (held.bell.clone(), held.config.retention_check_ms);
        drop(held);
        let now_ms = bell.clock().now_ms();
        let mut wake_ms = match work(&core, now_ms, now_ms >= check_at_ms).await {
            Ok(next_ms) => next_ms,
            Err(Refusal::Leaving) => return,
            Err(error) => {
                tracing::warn!(%error, "expired items and old entries of streams stay for now");
                Some(now_ms.saturating_add(RETRY_MS))
            }
        };
        if now_ms >= check_at_ms {
            check_at_ms = now_ms.saturating_add(every_ms);
        }
        wake_ms = Some(wake_ms.map_or(check_at_ms, |wake_ms| wake_ms.min(check_at_ms)));
        let told = async {
            // Its other end lives as long as the core.
            let _told = nudged.recv().await;
        };
        future::or(bell.at(wake_ms.unwrap_or(check_at_ms)), told).await;
    }
}

fn up(core: &Weak<Core>) -> Result<Arc<Core>, Refusal> {
    core.upgrade().ok_or(Refusal::Leaving)
}

/// Whether it is in the way of everything. What is damaged is in its own way only.
fn is_general(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Leaving => true,
        Refusal::Store(error) => !matches!(error, StoreError::Corrupt { .. }),
        _ => false,
    }
}

/// What was done, or nothing where that was refused for a reason of its own, which is reported and counted.
///
/// # Errors
/// What is in the way of everything.
fn or_pass_over<T>(core: &Weak<Core>, what: &str, outcome: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
    match outcome {
        Ok(done) => Ok(Some(done)),
        Err(error) if is_general(&error) => Err(error),
        Err(error) => {
            tracing::error!(%error, "{what} stays for now");
            up(core)?.counters.unreadable.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
    }
}

/// Does what is due; gives the time of the next expiry.
async fn work(core: &Weak<Core>, now_ms: u64, check: bool) -> Result<Option<u64>, Refusal> {
    let over = {
        let held = up(core)?;
        let mut due = held.news.timer.due.lock();
        due.expiry_ms = None;
        std::mem::take(&mut due.over)
    };
    let expired = expire(core, now_ms).await;
    let next_ms = or_pass_over(core, "what has expired", expired)?
        .unwrap_or_else(|| Some(now_ms.saturating_add(RETRY_MS)));
    for place in over {
        let trimmed = trim(core, &place, now_ms).await;
        or_pass_over(core, "what is too much of a log", trimmed)?;
    }
    if check {
        let checked = check_all(core, now_ms).await;
        or_pass_over(core, "what is old", checked)?;
    }
    let held = up(core)?;
    let mut due = held.news.timer.due.lock();
    // Earlier ones that were noted meanwhile stay, and have nudged.
    due.expiry_ms = due.expiry_ms.into_iter().chain(next_ms).min();
    Ok(next_ms)
}

/// Removes what has expired; gives the time of the next. What cannot be read is reported and left.
async fn expire(core: &Weak<Core>, now_ms: u64) -> Result<Option<u64>, Refusal> {
    let end = tables::expiry_key(now_ms.saturating_add(1), &[]);
    let mut from = Bound::Unbounded;
    loop {
        let range =
            Scan::table(tables::EXPIRIES).range(from.as_ref().map(Vec::as_slice), Bound::Excluded(&end));
        let entries = up(core)?.store.scan(&range.limit(CHUNK))?;
        let mut by_place: HashMap<Place, Vec<Act>> = HashMap::new();
        for (place, act) in entries.iter().filter_map(expiry) {
            by_place.entry(place).or_default().push(act);
        }
        for (place, acts) in by_place {
            expire_of(core, &place, &acts).await?;
        }
        match entries.last() {
            Some(last) if entries.len() == CHUNK => from = Bound::Excluded(last.key.clone()),
            _ => break,
        }
    }
    let next = Scan::table(tables::EXPIRIES).range(Bound::Included(&end), Bound::Unbounded).limit(1);
    let next = up(core)?.store.scan(&next)?;
    Ok(next.first().and_then(|entry| tables::split_expiry(&entry.key)).map(|(at_ms, _)| at_ms))
}

fn expiry(entry: &Entry) -> Option<(Place, Act)> {
    let (at_ms, key) = tables::split_expiry(&entry.key)?;
    let (place, item) = Place::take(key)?;
    Some((place, Act::Expire { item: std::str::from_utf8(item).ok()?.into(), at_ms }))
}

/// Removes items of one group, together or, where one is in the way of the others, one by one. One that stays is tried again
/// at the next look.
async fn expire_of(core: &Weak<Core>, place: &Place, acts: &[Act]) -> Result<(), Refusal> {
    match core::write(core, place, acts, TraceContext::default()).await {
        Ok(_) => {
            up(core)?.counters.expired.fetch_add(acts.len() as u64, Ordering::Relaxed);
            return Ok(());
        }
        Err(error) if is_general(&error) => return Err(error),
        Err(_) => {}
    }
    for act in acts {
        let expired = core::write(core, place, std::slice::from_ref(act), TraceContext::default()).await;
        if or_pass_over(core, "an expired item", expired)?.is_some() {
            up(core)?.counters.expired.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The oldest entry that a trigger still has to be told of.
fn held_from(core: &Core, place: &Place, head: &Head) -> Result<u64, Refusal> {
    let snapshot = core.store.snapshot()?;
    let mut held = u64::MAX;
    for (number, since) in core.news.delivery.watching(place) {
        let next = match reader::cursor(&*snapshot, place, &Reader::Trigger(number))? {
            Some(cursor) => cursor.done + 1,
            None => reader::first_entry(&*snapshot, place, head, |found| found.revision > since)?,
        };
        held = held.min(next);
    }
    Ok(held)
}

/// Removes the entries of a group that are beyond its retention, except those that triggers wait for.
async fn trim(core: &Weak<Core>, place: &Place, now_ms: u64) -> Result<(), Refusal> {
    loop {
        let act = {
            let held = up(core)?;
            let Some(head) = reader::head(&*held.store.snapshot()?, place)? else { return Ok(()) };
            excess(&held, place, &head, now_ms)?
        };
        let Some(act) = act else { return Ok(()) };
        let Act::Trim { first, keep_from, .. } = act else { return Ok(()) };
        core::write(core, place, &[act], TraceContext::default()).await?;
        up(core)?.counters.trimmed.fetch_add(keep_from - first, Ordering::Relaxed);
        if keep_from - first < CHUNK as u64 {
            return Ok(());
        }
    }
}

/// What is too much of a log, at most a chunk of it. Costs a look at the oldest entry where nothing is.
fn excess(core: &Core, place: &Place, head: &Head, now_ms: u64) -> Result<Option<Act>, Refusal> {
    let rules = core.config.rules(&place.stream);
    let snapshot = core.store.snapshot()?;
    let old_ms = now_ms.saturating_sub(rules.retention_ms);
    let given_up_ms = now_ms.saturating_sub(core.config.trigger_retention_ms);
    let time_of = |found: &Found| found.entry.as_ref().map_or(0, |entry| entry.time_ms);
    let (mut entries, mut bytes, mut keep_from) = (head.entries(), head.log_bytes, head.first);
    let is_much = |entries: u64, bytes: u64, time_ms: u64| {
        entries > rules.retention_entries || bytes > rules.retention_bytes || time_ms < old_ms
    };
    let oldest = reader::entries(&*snapshot, place, head.first, 1, 0)?;
    if !oldest.first().is_some_and(|oldest| is_much(entries, bytes, time_of(oldest))) {
        return Ok(None);
    }
    let held = held_from(core, place, head)?;
    let is_held = |found: &Found| found.sequence >= held && time_of(found) >= given_up_ms;
    if oldest.first().is_some_and(is_held) {
        return Ok(None);
    }
    for found in reader::entries(&*snapshot, place, head.first, CHUNK, usize::MAX)? {
        if !is_much(entries, bytes, time_of(&found)) || is_held(&found) {
            break;
        }
        (entries, bytes, keep_from) =
            (entries.saturating_sub(1), bytes.saturating_sub(found.bytes), found.sequence + 1);
    }
    let bytes = head.log_bytes - bytes.min(head.log_bytes);
    Ok((keep_from > head.first).then_some(Act::Trim { first: head.first, keep_from, bytes }))
}

/// Forgets triggers that nobody has bound for too long. The record of one goes after its places in all logs: without it, and
/// with those still there, a crash would have its number and its places given to another.
async fn forget_triggers(core: &Weak<Core>, now_ms: u64) -> Result<(), Refusal> {
    let gone = {
        let held = up(core)?;
        held.news.delivery.forget_old(&held, now_ms)
    };
    if gone.is_empty() {
        return Ok(());
    }
    let is_of_gone = |key: &[u8]| {
        let reader = Place::take(key).and_then(|(_, rest)| Reader::read(rest));
        matches!(reader, Some(Reader::Trigger(number)) if gone.contains(&number))
    };
    let mut from = Bound::Unbounded;
    loop {
        let range = Scan::table(tables::CURSORS).range(from.as_ref().map(Vec::as_slice), Bound::Unbounded);
        let cursors = up(core)?.store.scan(&range.limit(CHUNK))?;
        let of_gone = cursors.iter().filter(|entry| is_of_gone(&entry.key));
        let batch = of_gone.fold(Batch::new(), |batch, entry| batch.delete(tables::CURSORS, &entry.key));
        if !batch.changes().is_empty() {
            commit(core, batch).await?;
        }
        match cursors.last() {
            Some(last) if cursors.len() == CHUNK => from = Bound::Excluded(last.key.clone()),
            _ => break,
        }
    }
    let record = |batch: Batch, number: &u64| batch.delete(tables::TRIGGERS, &number.to_be_bytes());
    commit(core, gone.iter().fold(Batch::new(), record)).await?;
    up(core)?.news.delivery.forgotten(&gone);
    Ok(())
}

/// Waits for a commit without the core, so that the store is not let go on its own thread.
async fn commit(core: &Weak<Core>, batch: Batch) -> Result<(), Refusal> {
    let commit = up(core)?.store.start(batch, Durability::Ephemeral)?;
    commit.await?;
    Ok(())
}

/// Looks at the age of everything.
async fn check_all(core: &Weak<Core>, now_ms: u64) -> Result<(), Refusal> {
    let forgotten = forget_triggers(core, now_ms).await;
    or_pass_over(core, "a trigger that nobody binds any more", forgotten)?;
    let mut after: Option<Place> = None;
    loop {
        let mut groups = Vec::new();
        {
            let held = up(core)?;
            reader::heads(&held, None, after.as_ref(), |place, head, _| {
                groups.push((place, head));
                groups.len() < CHUNK
            })?;
        }
        for (place, head) in &groups {
            let checked = check_one(core, place, head, now_ms).await;
            or_pass_over(core, "what is old of a group", checked)?;
        }
        match groups.pop() {
            Some((last, _)) if groups.len() + 1 == CHUNK => after = Some(last),
            _ => return Ok(()),
        }
    }
}

async fn check_one(core: &Weak<Core>, place: &Place, head: &Head, now_ms: u64) -> Result<(), Refusal> {
    if head.entries() > 0 {
        trim(core, place, now_ms).await?;
    }
    let act = {
        let held = up(core)?;
        let snapshot = held.store.snapshot()?;
        let Some(head) = reader::head(&*snapshot, place)? else { return Ok(()) };
        if head.items > 0 || head.entries() > 0 {
            return Ok(());
        }
        let cursors = reader::cursors(&*snapshot, place)?;
        let cursors = cursors.iter().filter_map(|(reader, _)| place.reader(reader).ok()).collect();
        let floor = held.floor.fetch_max(head.last, Ordering::Relaxed).max(head.last);
        Act::Forget { floor, cursors }
    };
    core::write(core, place, &[act], TraceContext::default()).await?;
    Ok(())
}
