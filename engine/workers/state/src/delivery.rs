//! Tells the functions of triggers what happened: in order for each key and trigger, again after a while where a function
//! fails, again after a restart where it is not certain that it knew. Events wait in the outbox of the store, here are only
//! their numbers, in `lanes`. Filled by `core` as commits end; its threads start when there is work and wait without polling.
//!
//! A call holds a thread until its function answers, so one thread more than are busy waits for news, as far as the
//! settings allow: what comes next for another trigger does not wait for that answer. A trigger has at most half of the
//! threads, so that one whose function is slow leaves the other half to the others; two such triggers may have all of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use ringway::{CallOptions, Worker};
use ringway_store::StoreError;
use ringway_worker_kit::deliver::pause_ms;
use ringway_worker_kit::{Delivered, deliver};

use crate::change::Event;
use crate::core::Core;
use crate::lanes::{Ended, Lanes, Notice, Taken};
use crate::{outbox, tables};

#[derive(Debug, Default)]
struct State {
    lanes: Lanes,
    threads: Vec<JoinHandle<()>>,
    /// How many were started.
    started: usize,
    idle: usize,
    stopping: bool,
}

/// The events that wait, and who tells them.
#[derive(Debug)]
pub(crate) struct Delivery {
    state: Mutex<State>,
    news: Condvar,
}

impl Delivery {
    /// Nothing waits; a trigger may have half of this many threads.
    pub(crate) fn new(threads: usize) -> Self {
        let state = State { lanes: Lanes::new(threads.div_ceil(2)), ..State::default() };
        Self { state: Mutex::new(state), news: Condvar::new() }
    }

    /// Takes events, newer than all before. Does not wait for anybody but for short looks at the list.
    pub(crate) fn add(&self, notices: Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        notices.into_iter().for_each(|notice| state.lanes.push(notice));
        drop(state);
        self.news.notify_one();
    }

    /// Triggers with these labels were bound, and can be found: what waits for them is looked at.
    pub(crate) fn bound<'a>(&self, labels: impl Iterator<Item = &'a Arc<str>>) {
        let mut state = self.state.lock();
        labels.for_each(|label| state.lanes.bound(label));
        drop(state);
        self.news.notify_all();
    }

    /// Has a thread look at the clock.
    pub(crate) fn look(&self) {
        let _seen = self.state.lock();
        self.news.notify_all();
    }

    /// Lets the threads go, each after the call that it waits for.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.news.notify_all();
    }

    /// Waits until the threads have gone.
    pub(crate) fn wait_for_end(&self) {
        loop {
            let threads = std::mem::take(&mut self.state.lock().threads);
            if threads.is_empty() {
                return;
            }
            // One that panicked has said so. One that started another has put it into the list.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
    }

    /// Who the oldest event waits for, in words.
    pub(crate) fn oldest(&self) -> String {
        let state = self.state.lock();
        state.lanes.oldest().map_or_else(|| "nobody any more".to_owned(), |label| format!("`{label}`"))
    }
}

/// Starts a thread, if more are allowed.
pub(crate) fn start(core: &Arc<Core>, worker: &Worker) -> std::io::Result<()> {
    let state = &core.news.delivery.state;
    {
        // Counted before it is there, as two that take lanes at once may both want one more.
        let mut state = state.lock();
        if state.started >= core.config.delivery_threads {
            return Ok(());
        }
        state.started += 1;
    }
    let (core_of_thread, worker) = (Arc::clone(core), worker.clone());
    let thread = std::thread::Builder::new().name("state-deliver".to_owned());
    match thread.spawn(move || run(&core_of_thread, &worker)) {
        Ok(thread) => state.lock().threads.push(thread),
        Err(error) => {
            state.lock().started -= 1;
            return Err(error);
        }
    }
    Ok(())
}

fn run(core: &Arc<Core>, worker: &Worker) {
    while let Some(taken) = take(core, worker) {
        let ended = tell(core, worker, &taken);
        // Triggers can be found before `bound` is called, so that one of the two sees the other.
        let is_bound = |label: &str| core.triggers.load().labelled(label).is_some();
        let told = core.news.delivery.state.lock().lanes.put_back(&taken, ended, is_bound);
        if told.is_some() {
            outbox::settle(core, told);
        }
        core.news.delivery.news.notify_one();
    }
}

/// Waits for a lane that is ready; `None` when the worker ends.
fn take(core: &Arc<Core>, worker: &Worker) -> Option<Taken> {
    let delivery = &core.news.delivery;
    let mut state = delivery.state.lock();
    loop {
        if state.stopping {
            return None;
        }
        let next_ms = state.lanes.wake(core.clock.now_ms());
        if let Some(taken) = state.lanes.pop() {
            let more = state.lanes.has_more();
            let idle = state.idle > 0;
            let grow = !idle && state.started < core.config.delivery_threads;
            drop(state);
            if more && idle {
                delivery.news.notify_one();
            }
            if grow && let Err(error) = start(core, worker) {
                tracing::warn!(%error, "functions of state triggers are called by fewer threads than allowed");
            }
            return Some(taken);
        }
        state.idle += 1;
        core.clock.wait(&delivery.news, &mut state, next_ms);
        state.idle -= 1;
    }
}

fn tell(core: &Core, worker: &Worker, taken: &Taken) -> Ended {
    let stored = match core.store.get(tables::OUTBOX, &taken.number.to_be_bytes()) {
        Ok(Some(stored)) => stored.bytes,
        Ok(None) => return Ended::Told,
        Err(StoreError::Corrupt { reason, .. }) => return unreadable(core, taken, &reason),
        Err(error) => return failed(core, taken, &error),
    };
    let created_ms = match Event::created_ms(&stored) {
        Ok(created_ms) => created_ms,
        Err(error) => return unreadable(core, taken, &error),
    };
    let until_ms = created_ms.saturating_add(core.config.retention_ms);
    let overdue = until_ms <= core.clock.now_ms();
    let Some(binding) = core.triggers.load().labelled(&taken.lane.label) else {
        return if overdue { set_aside(core, taken, &stored) } else { Ended::Unbound { until_ms } };
    };
    let told = Event::decode(&stored).and_then(|event| Ok((event.change.payload()?, event.trace)));
    let (payload, trace) = match told {
        Ok(told) => told,
        Err(error) => return unreadable(core, taken, &error),
    };
    let timeout = Duration::from_millis(core.config.delivery_timeout_ms);
    let options = CallOptions::new().timeout(timeout).parent(trace);
    match deliver(worker, &binding, &payload, options) {
        // Its condition did not hold, so that nobody was told.
        Ok(Delivered::Skipped) => Ended::Told,
        Ok(Delivered::Answered(_)) => {
            core.counters.delivered.fetch_add(1, Ordering::Relaxed);
            Ended::Told
        }
        Err(error) => {
            core.counters.attempts_failed.fetch_add(1, Ordering::Relaxed);
            if overdue { set_aside(core, taken, &stored) } else { failed(core, taken, &error) }
        }
    }
}

fn unreadable(core: &Core, taken: &Taken, error: &dyn std::fmt::Display) -> Ended {
    tracing::error!(number = taken.number, %error, "an event cannot be read; it stays, later ones are told");
    core.counters.unreadable.fetch_add(1, Ordering::Relaxed);
    Ended::Unreadable
}

fn failed(core: &Core, taken: &Taken, error: &dyn std::fmt::Display) -> Ended {
    tracing::debug!(trigger = %taken.lane.label, %error, "a function of a state trigger will be called again");
    let config = &core.config;
    let pause_ms = pause_ms(config.retry_ms, config.retry_ms_max, taken.failures);
    Ended::Failed { retry_at_ms: core.clock.now_ms().saturating_add(pause_ms) }
}

fn set_aside(core: &Core, taken: &Taken, stored: &[u8]) -> Ended {
    let event = match Event::decode(stored) {
        Ok(event) => event,
        Err(error) => return unreadable(core, taken, &error),
    };
    match outbox::set_aside(core, taken, &event) {
        Ok(()) => Ended::Told,
        Err(error) => failed(core, taken, &error),
    }
}
