//! Removes receipts and idempotency keys whose time is over, on a thread of its own, so that it keeps pace with whatever is
//! enqueued and the driver waits for none of it. It keeps its place in the table, so that what was removed is not passed
//! again, and goes back when something is noted for an earlier time. Used by the driver, which tells what came to the disk; a
//! key that is forgotten late does no harm, since whoever reads one looks at its time.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use ringway_store::{Batch, Durability, Scan, Store, StoreError};
use ringway_worker_kit::Clock;

use crate::record::{self, Forget, Writes};

/// What is forgotten with one commit.
const AT_ONCE: usize = 2048;

/// Changes after which a commit takes no more: what one receipt takes along may be much.
const CHANGES_MAX: usize = 4096;

/// The least time between two commits that do not remove all they can, in milliseconds, so that many receipts that end one
/// after the other share one; and between two that fail.
const PAUSE_MS: u64 = 1000;

#[derive(Debug, Default)]
struct State {
    /// The next time that is known of.
    next_ms: Option<u64>,
    /// The earliest time that was noted since the table was last read.
    noted_ms: Option<u64>,
    stopped: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

/// Tells the thread what is to be forgotten. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Forgetter(Arc<Shared>);

impl fmt::Debug for Forgetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forgetter")
    }
}

/// The first time at which something of these writes is to be forgotten.
pub(crate) fn first_of(writes: &Writes) -> Option<u64> {
    let noted = writes.changes.iter().filter(|write| write.table == record::EXPIRY && write.value.is_some());
    noted.filter_map(|write| Forget::parse(&write.key).ok()).map(|(at_ms, _)| at_ms).min()
}

impl Forgetter {
    /// Something that is on disk is to be forgotten at this time.
    pub(crate) fn note(&self, at_ms: u64) {
        let mut state = self.0.state.lock();
        state.noted_ms = Some(state.noted_ms.map_or(at_ms, |noted| noted.min(at_ms)));
        if state.next_ms.is_none_or(|next| at_ms < next) {
            state.next_ms = Some(at_ms);
            self.0.news.notify_one();
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.0.state.lock().stopped = true;
        self.0.news.notify_one();
    }

    /// Starts the thread. It begins with what is in the table.
    pub(crate) fn start(&self, store: Arc<dyn Store>, clock: Clock) -> std::io::Result<JoinHandle<()>> {
        let (shared, waker) = (Arc::clone(&self.0), Arc::clone(&self.0));
        clock.on_set(move || {
            let _waits_or_has_not_looked_yet = waker.state.lock();
            waker.news.notify_one();
        });
        shared.state.lock().next_ms = Some(0);
        thread::Builder::new().name("queue-forget".to_owned()).spawn(move || {
            let mut passed = Vec::new();
            let mut not_before_ms = 0;
            while shared.wait(&clock, not_before_ms, &mut passed) {
                let now_ms = clock.now_ms();
                let pause = match forget(&*store, &mut passed, now_ms) {
                    Ok(Found::More) => false,
                    Ok(Found::Until(next_ms)) => {
                        let mut state = shared.state.lock();
                        state.next_ms = [next_ms, state.noted_ms].into_iter().flatten().min();
                        true
                    }
                    // Somebody has taken a key again meanwhile: it is read once more.
                    Err(StoreError::Precondition { .. }) => false,
                    Err(error) => {
                        tracing::warn!(%error, "receipts will be forgotten later");
                        true
                    }
                };
                not_before_ms = if pause { now_ms.saturating_add(PAUSE_MS) } else { 0 };
            }
        })
    }
}

impl Shared {
    /// Waits until something is to be forgotten; `false` when the thread is to end. Goes back to what was noted meanwhile.
    fn wait(&self, clock: &Clock, not_before_ms: u64, passed: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return false;
            }
            let due_ms = state.next_ms.map(|at| at.max(not_before_ms));
            // What is kept until a time is there until that time is over.
            if due_ms.is_some_and(|at| at < clock.now_ms()) {
                break;
            }
            clock.wait(&self.news, &mut state, due_ms.map(|at| at.saturating_add(1)));
        }
        if let Some(noted_ms) = state.noted_ms.take() {
            let noted = noted_ms.to_be_bytes();
            if noted[..] < passed[..] {
                *passed = noted.to_vec();
            }
        }
        true
    }
}

/// What is left in the table.
enum Found {
    /// There may be more of the past.
    More,
    /// Nothing before this time, or nothing at all.
    Until(Option<u64>),
}

/// Removes what is over, as much as one commit takes, and moves `passed` behind it.
fn forget(store: &dyn Store, passed: &mut Vec<u8>, now_ms: u64) -> Result<Found, StoreError> {
    let scan = Scan::table(record::EXPIRY).range(Bound::Excluded(passed), Bound::Unbounded).limit(AT_ONCE);
    let entries = store.scan(&scan)?;
    let full = entries.len() == AT_ONCE;
    let mut batch = Batch::new();
    let mut last = None;
    let mut found = if full { Found::More } else { Found::Until(None) };
    for entry in entries {
        if batch.changes().len() > CHANGES_MAX {
            found = Found::More;
            break;
        }
        match Forget::parse(&entry.key) {
            Ok((at_ms, _)) if at_ms >= now_ms => {
                found = Found::Until(Some(at_ms));
                break;
            }
            Ok((_, what)) => {
                batch = erase(batch, store, what, now_ms)?;
                batch = batch.delete(record::EXPIRY, &entry.key);
            }
            Err(error) => tracing::error!(%error, "left as it is"),
        }
        last = Some(entry.key);
    }
    if let Some(last) = last {
        store.commit(batch, Durability::Ephemeral)?;
        *passed = last;
    }
    Ok(found)
}

fn erase(batch: Batch, store: &dyn Store, what: Forget, now_ms: u64) -> Result<Batch, StoreError> {
    match what {
        Forget::Done(key) => {
            let Some(value) = store.get(record::DONE, &key)? else { return Ok(batch) };
            let mut batch = batch.delete(record::DONE, &key);
            let done = record::decode::<record::DoneRecord>(record::DONE, &key, &value.bytes);
            let Ok(done) = done else { return Ok(batch) };
            if done.steps {
                let steps = store.scan(&Scan::table(record::STEP).prefix(&key))?;
                batch = steps.iter().fold(batch, |batch, step| batch.delete(record::STEP, &step.key));
            }
            let Some(id) = done.receipt else { return Ok(batch) };
            let id = id.into_bytes();
            let Some(value) = store.get(record::RECEIPT, &id)? else { return Ok(batch) };
            let its_own = record::decode::<record::ReceiptRecord>(record::RECEIPT, &id, &value.bytes)
                .is_ok_and(|at| record::Place::new(&at.queue, at.seq).key() == key);
            if !its_own {
                return Ok(batch);
            }
            Ok(batch.expect_revision(record::RECEIPT, &id, value.revision).delete(record::RECEIPT, &id))
        }
        Forget::Idempotency(key) => {
            let Some(value) = store.get(record::IDEMPOTENCY, &key)? else { return Ok(batch) };
            let read = record::decode::<record::IdempotencyRecord>(record::IDEMPOTENCY, &key, &value.bytes);
            if read.is_ok_and(|record| record.expires_ms > now_ms) {
                return Ok(batch);
            }
            let batch = batch.expect_revision(record::IDEMPOTENCY, &key, value.revision);
            Ok(batch.delete(record::IDEMPOTENCY, &key))
        }
    }
}

#[cfg(test)]
mod tests;
