//! Removes receipts and idempotency keys whose time is over. It keeps its place in the table, so that what was removed
//! is not passed again. Used by the driver; a key that is forgotten late does no harm, since whoever reads one looks at
//! its time.

use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use ringway_store::{Durability, Scan, Store};

use crate::record::{self, Forget, Write, Writes};

/// What is forgotten with one commit.
const AT_ONCE: usize = 512;

/// Changes after which a commit takes no more: what one receipt takes along may be much.
const CHANGES_MAX: usize = 4096;

/// The least time between two commits, in milliseconds, so that many receipts that end one after the other share one.
const PAUSE_MS: u64 = 1000;

/// The place in the table, and the next alarm.
#[derive(Debug, Default)]
pub(crate) struct Forgetter {
    next_ms: Option<u64>,
    not_before_ms: u64,
    started: bool,
    /// The last key that was removed for certain.
    passed: Arc<Mutex<Vec<u8>>>,
}

impl Forgetter {
    pub(crate) fn next_alarm(&self) -> Option<u64> {
        if self.started { self.next_ms.map(|at| at.max(self.not_before_ms)) } else { Some(0) }
    }

    /// Sees what is about to be written, for the times in it.
    pub(crate) fn note(&mut self, writes: &Writes) {
        for Write { table, key, value } in &writes.0 {
            if *table == record::EXPIRY
                && value.is_some()
                && let Ok((at, _)) = Forget::parse(key)
            {
                self.next_ms = Some(self.next_ms.map_or(at, |next| next.min(at)));
            }
        }
    }

    /// Removes what is due.
    pub(crate) fn forget(&mut self, now_ms: u64, store: &Arc<dyn Store>) {
        if self.next_alarm().is_none_or(|at| at > now_ms) {
            return;
        }
        self.started = true;
        self.not_before_ms = now_ms + PAUSE_MS;
        let from = self.passed.lock().clone();
        let bounds = (Bound::Excluded(&*from), Bound::Unbounded);
        let entries = match store.scan(&Scan::table(record::EXPIRY).range(bounds.0, bounds.1).limit(AT_ONCE))
        {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "receipts cannot be forgotten");
                return;
            }
        };
        let mut writes = Writes::default();
        let mut last = None;
        self.next_ms = None;
        for entry in entries {
            if writes.0.len() > CHANGES_MAX {
                break;
            }
            match Forget::parse(&entry.key) {
                Ok((at, _)) if at >= now_ms => {
                    self.next_ms = Some(at);
                    break;
                }
                Ok((_, what)) => {
                    erase(&mut writes, store, what, now_ms);
                    writes.delete(record::EXPIRY, entry.key.clone());
                }
                Err(error) => tracing::error!(%error, "left as it is"),
            }
            last = Some(entry.key);
        }
        let Some(last) = last else { return };
        // There may be more of the past.
        self.next_ms.get_or_insert(now_ms);
        let passed = Arc::clone(&self.passed);
        let done = move |outcome: Result<u64, _>| match outcome {
            Ok(_) => *passed.lock() = last,
            Err(error) => tracing::warn!(%error, "receipts will be forgotten later"),
        };
        if let Err(error) = store.submit(writes.into_batch(), Durability::Ephemeral, Box::new(done)) {
            tracing::warn!(%error, "receipts will be forgotten later");
        }
    }
}

fn erase(writes: &mut Writes, store: &Arc<dyn Store>, what: Forget, now_ms: u64) {
    let read = |table: &'static str, key: &[u8]| store.get(table, key).ok().flatten();
    match what {
        Forget::Done(key) => {
            let done = read(record::DONE, &key).and_then(|value| {
                record::decode::<record::DoneRecord>(record::DONE, &key, &value.bytes).ok()
            });
            if done.as_ref().is_some_and(|done| done.steps) {
                erase_steps(writes, store, &key);
            }
            if let Some(receipt) = done.and_then(|done| done.receipt) {
                writes.delete(record::RECEIPT, receipt.into_bytes());
            }
            writes.delete(record::DONE, key);
        }
        Forget::Idempotency(key) => {
            let renewed = read(record::IDEMPOTENCY, &key)
                .and_then(|value| {
                    record::decode::<record::IdempotencyRecord>(record::IDEMPOTENCY, &key, &value.bytes).ok()
                })
                .is_some_and(|record| record.expires_ms > now_ms);
            if !renewed {
                writes.delete(record::IDEMPOTENCY, key);
            }
        }
    }
}

/// Removes the results of the steps of a message.
fn erase_steps(writes: &mut Writes, store: &Arc<dyn Store>, place: &[u8]) {
    match store.scan(&Scan::table(record::STEP).prefix(place)) {
        Ok(entries) => entries.into_iter().for_each(|entry| writes.delete(record::STEP, entry.key)),
        Err(error) => tracing::error!(%error, "results of steps cannot be forgotten"),
    }
}
