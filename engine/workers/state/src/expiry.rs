//! Removes values whose time has come, at that time: one thread that sleeps until the first of them. Readers do not wait for
//! it, an expired value is absent for them at once. It must not know what else a value is for.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_lite::future::block_on;
use parking_lot::{Condvar, Mutex};
use ringway::Worker;
use ringway_store::{Durability, Entry, Scan, StoreError};

use crate::core::{self, Core};
use crate::error::WriteError;
use crate::limits::CHUNK;
use crate::plan::{Action, Operation};
use crate::{keys, tables};

/// How long a store that refuses is left alone, in milliseconds.
const RETRY_MS: u64 = 1000;

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
        match sweep(core, worker, now_ms) {
            Ok(next_ms) => core.news.timer.note(next_ms),
            Err(error) => {
                tracing::warn!(%error, "expired values stay for now");
                core.news.timer.note(Some(now_ms.saturating_add(RETRY_MS)));
            }
        }
    }
}

/// Removes what has expired; gives the time of the next. What cannot be removed is reported, and left to the next sweep.
fn sweep(core: &Arc<Core>, worker: &Worker, now_ms: u64) -> Result<Option<u64>, StoreError> {
    let end = tables::expiry_key(now_ms.saturating_add(1), &[]);
    let mut from = Bound::Unbounded;
    loop {
        let range = Scan::table(tables::EXPIRIES).range(as_slice(&from), Bound::Excluded(&end)).limit(CHUNK);
        let entries = core.store.scan(&range)?;
        if !entries.is_empty() && expire(core, worker, &entries).is_err() {
            // One of them is in the way of the others.
            for entry in &entries {
                if let Err(error) = expire(core, worker, std::slice::from_ref(entry)) {
                    if let WriteError::Store(error) = error {
                        return Err(error);
                    }
                    tracing::error!(%error, "an expired value stays");
                    core.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        match entries.last() {
            Some(last) if entries.len() == CHUNK => from = Bound::Excluded(last.key.clone()),
            _ => break,
        }
    }
    let next = Scan::table(tables::EXPIRIES).range(Bound::Included(&end), Bound::Unbounded).limit(1);
    let next = core.store.scan(&next)?;
    Ok(next.first().and_then(|entry| tables::split_expiry(&entry.key)).map(|(at_ms, _)| at_ms))
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Removes the values of some entries with one commit.
fn expire(core: &Arc<Core>, worker: &Worker, entries: &[Entry]) -> Result<(), WriteError> {
    let mut operations = Vec::with_capacity(entries.len());
    let mut durability = Durability::Ephemeral;
    for entry in entries {
        let Some((at_ms, key)) = tables::split_expiry(&entry.key) else { continue };
        let scope = keys::split(key).map(|(scope, _)| scope).unwrap_or_default();
        if Durability::from(core.config.durability(&scope)) == Durability::Durable {
            durability = Durability::Durable;
        }
        operations.push(Operation { key: key.into(), action: Action::Expire { at_ms }, if_revision: None });
    }
    block_on(core::write(&Arc::downgrade(core), worker, &operations, durability))?;
    core.counters.expired.fetch_add(entries.len() as u64, Ordering::Relaxed);
    Ok(())
}
