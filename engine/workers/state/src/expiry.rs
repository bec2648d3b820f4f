//! Removes values whose time has come, at that time: one thread that sleeps until the first of them. Readers do not wait for
//! it, an expired value is absent for them at once. What cannot be removed for now (the disk or the outbox is full) is
//! tried again, later each time; what cannot be read is reported once and passed over. It must not know what else a value
//! is for.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_lite::future::block_on;
use parking_lot::{Condvar, Mutex};
use ringway::{TraceContext, Worker};
use ringway_store::{Durability, Entry, Scan, StoreError};

use crate::core::{self, Core};
use crate::error::WriteError;
use crate::limits::CHUNK;
use crate::plan::{Action, Operation};
use crate::{keys, tables};

/// Milliseconds until a refusal is tried again; doubled for each further one in a row.
const RETRY_MS: u64 = 1000;

/// Milliseconds between attempts at most.
const RETRY_MS_MAX: u64 = 60_000;

#[derive(Debug, Default)]
struct State {
    due_ms: Option<u64>,
    stopping: bool,
}

/// When the next value expires.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    state: Mutex<State>,
    news: Condvar,
}

impl Timer {
    /// Takes note of a value that will expire.
    pub(crate) fn note(&self, at_ms: Option<u64>) {
        let Some(at_ms) = at_ms else { return };
        let mut state = self.state.lock();
        if state.due_ms.is_none_or(|due_ms| at_ms < due_ms) {
            state.due_ms = Some(at_ms);
            self.news.notify_one();
        }
    }

    /// Has the thread look at the clock.
    pub(crate) fn look(&self) {
        let _seen = self.state.lock();
        self.news.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.news.notify_one();
    }
}

/// The thread's life.
pub(crate) fn run(core: &Arc<Core>, worker: &Worker) {
    // What was there before the start.
    core.news.timer.note(Some(0));
    let mut sweeper = Sweeper { core, worker, passed_over: HashSet::new() };
    let mut refusals = 0_u32;
    loop {
        {
            let mut state = core.news.timer.state.lock();
            while !state.stopping && state.due_ms.is_none_or(|due_ms| due_ms > core.clock.now_ms()) {
                let due_ms = state.due_ms;
                core.clock.wait(&core.news.timer.news, &mut state, due_ms);
            }
            if state.stopping {
                return;
            }
            state.due_ms = None;
        }
        let now_ms = core.clock.now_ms();
        let swept = sweeper.sweep(now_ms);
        core.news.timer.note(swept.next_ms);
        match swept.refusal {
            None => refusals = 0,
            Some(error) => {
                let pause_ms = RETRY_MS.saturating_mul(1 << refusals.min(6)).min(RETRY_MS_MAX);
                refusals = refusals.saturating_add(1);
                tracing::warn!(%error, pause_ms, "expired values stay for now; readers do not see them");
                core.news.timer.note(Some(now_ms.saturating_add(pause_ms)));
            }
        }
    }
}

/// What came of a look at everything that has expired.
#[derive(Debug, Default)]
struct Swept {
    /// When the next value expires.
    next_ms: Option<u64>,
    /// Why some could not be removed now.
    refusal: Option<WriteError>,
}

struct Sweeper<'a> {
    core: &'a Arc<Core>,
    worker: &'a Worker,
    /// Entries of the index of expiries that cannot be read, or whose value cannot; they have been reported.
    passed_over: HashSet<Vec<u8>>,
}

impl Sweeper<'_> {
    /// Removes what has expired.
    fn sweep(&mut self, now_ms: u64) -> Swept {
        let end = tables::expiry_key(now_ms.saturating_add(1), &[]);
        let mut swept = Swept::default();
        let (mut from, mut to) = (Bound::Unbounded, end.clone());
        loop {
            match self.scan(&from, Bound::Excluded(&to), CHUNK) {
                Ok(entries) => {
                    self.remove(&entries, &mut swept);
                    from = match entries.last() {
                        Some(last) if entries.len() == CHUNK => Bound::Excluded(last.key.clone()),
                        // Everything before one that cannot be read; now what is behind it.
                        _ if to < end => Bound::Excluded(std::mem::replace(&mut to, end.clone())),
                        _ => break,
                    };
                }
                Err(StoreError::Corrupt { key, reason, .. }) if key < to && is_ahead(&key, &from) => {
                    self.pass_over(&key, &reason);
                    to = key;
                }
                Err(error) => {
                    swept.refusal = Some(error.into());
                    break;
                }
            }
        }
        self.look_ahead(end, &mut swept);
        swept
    }

    /// Looks when the next value expires.
    fn look_ahead(&mut self, end: Vec<u8>, swept: &mut Swept) {
        let mut from = Bound::Included(end);
        loop {
            match self.scan(&from, Bound::Unbounded, 1) {
                Ok(entries) => {
                    let next = entries.first().and_then(|entry| tables::split_expiry(&entry.key));
                    swept.next_ms = next.map(|(at_ms, _)| at_ms);
                    return;
                }
                Err(StoreError::Corrupt { key, reason, .. }) if is_ahead(&key, &from) => {
                    self.pass_over(&key, &reason);
                    from = Bound::Excluded(key);
                }
                Err(error) => {
                    swept.refusal = Some(error.into());
                    return;
                }
            }
        }
    }

    fn scan(&self, from: &Bound<Vec<u8>>, to: Bound<&[u8]>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let from = from.as_ref().map(Vec::as_slice);
        self.core.store.scan(&Scan::table(tables::EXPIRIES).range(from, to).limit(limit))
    }

    /// Removes the values of some entries, those that can be.
    fn remove(&mut self, entries: &[Entry], swept: &mut Swept) {
        let entries: Vec<&Entry> =
            entries.iter().filter(|entry| !self.passed_over.contains(&entry.key)).collect();
        if entries.is_empty() || self.expire(&entries).is_ok() {
            return;
        }
        // One of them is in the way of the others.
        for entry in entries {
            match self.expire(&[entry]) {
                Ok(()) => {}
                Err(error @ (WriteError::Unreadable(_) | WriteError::Store(StoreError::Corrupt { .. }))) => {
                    self.pass_over(&entry.key, &error);
                }
                Err(error @ (WriteError::OutboxFull { .. } | WriteError::Contended(_))) => {
                    swept.refusal = Some(error);
                }
                // The others would hear the same.
                Err(error) => {
                    swept.refusal = Some(error);
                    return;
                }
            }
        }
    }

    /// Removes the values of some entries with one commit.
    fn expire(&self, entries: &[&Entry]) -> Result<(), WriteError> {
        let mut operations = Vec::with_capacity(entries.len());
        let mut durability = Durability::Ephemeral;
        for entry in entries {
            let Some((at_ms, key)) = tables::split_expiry(&entry.key) else { continue };
            let scope = keys::split(key).map(|(scope, _)| scope).unwrap_or_default();
            if Durability::from(self.core.config.durability(&scope)) == Durability::Durable {
                durability = Durability::Durable;
            }
            let action = Action::Expire { at_ms };
            operations.push(Operation { key: key.into(), action, if_revision: None });
        }
        // Whoever set the time to live has long gone on.
        let nobody = TraceContext::default();
        block_on(core::write(&Arc::downgrade(self.core), self.worker, &operations, durability, nobody))?;
        self.core.counters.expired.fetch_add(entries.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn pass_over(&mut self, key: &[u8], error: &dyn std::fmt::Display) {
        if self.passed_over.insert(key.to_vec()) {
            tracing::error!(%error, "an expired value cannot be read and stays; others are removed");
            self.core.counters.unreadable.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a key lies behind where a scan began, so that beginning there is progress.
fn is_ahead(key: &[u8], from: &Bound<Vec<u8>>) -> bool {
    match from {
        Bound::Unbounded => !key.is_empty(),
        Bound::Included(from) => key >= from.as_slice(),
        Bound::Excluded(from) => key > from.as_slice(),
    }
}
