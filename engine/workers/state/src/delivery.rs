//! Tells the functions of triggers what happened: in order for each key and trigger, again after a while where a function
//! fails, again after a restart where it is not certain that it knew. Events wait in the outbox of the store, here are only
//! their numbers. Filled by `core` as commits end; its threads start when there is work and wait without polling.
//!
//! A trigger has at most half of the threads, so that a slow function holds up nobody else's.
//!
//! A lane is what one trigger is to be told of one key. It is ready, with a thread, waiting for a time, or parked until
//! its trigger is bound (again); whoever takes it from one of these puts it into another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use ringway::{CallError, CallOptions, Worker};
use ringway_store::{Batch, Durability, Scan, StoreError};

use crate::change::Event;
use crate::core::Core;
use crate::limits::CHUNK;
use crate::tables;

/// An event that has just come into the outbox.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) number: u64,
    pub(crate) key: Arc<[u8]>,
    pub(crate) targets: Vec<Arc<str>>,
}

/// What one trigger is to be told of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lane {
    label: Arc<str>,
    key: Arc<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    Taken,
    /// Until this time.
    Later(u64),
    /// Until the trigger is bound, or this time.
    Parked(u64),
}

#[derive(Debug)]
struct Waiting {
    numbers: VecDeque<u64>,
    failures: u32,
    place: Place,
    /// The timer that will look at this lane: its time and number.
    timer: Option<(u64, u64)>,
}

/// The lanes of one trigger that are ready, and how many of its lanes a thread has.
#[derive(Debug, Default)]
struct Line {
    ready: VecDeque<Arc<Lane>>,
    taken: usize,
    /// Whether it stands in `State::turns`.
    listed: bool,
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<Arc<Lane>, Waiting>,
    /// By the trigger's label, those with a lane that is ready or taken.
    lines: HashMap<Arc<str>, Line>,
    /// The labels of lines that may have a thread, each once; the first is next.
    turns: VecDeque<Arc<str>>,
    /// Threads that one trigger may have.
    share: usize,
    /// Lanes by the time when they are to be looked at; those that have left their place meanwhile included.
    later: BinaryHeap<Reverse<(u64, u64)>>,
    timed: HashMap<u64, Arc<Lane>>,
    timers: u64,
    /// How many triggers are still to be told of an event, by its number, and one that was to be told.
    open: BTreeMap<u64, (usize, Arc<str>)>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    stopping: bool,
}

/// The events that wait, and who tells them.
#[derive(Debug)]
pub(crate) struct Delivery {
    state: Mutex<State>,
    news: Condvar,
}

/// How an attempt ended.
enum Ended {
    /// The trigger has been told, or is not to be.
    Told,
    /// Nobody can be told: the event stays in the store for a person to look at.
    Unreadable,
    /// The function failed, or could not be reached.
    Failed,
    /// Nobody has bound the trigger, who wants to be told until then.
    Unbound { until_ms: u64 },
}

impl State {
    fn make_ready(&mut self, lane: Arc<Lane>) {
        let label = Arc::clone(&lane.label);
        self.lines.entry(Arc::clone(&label)).or_default().ready.push_back(lane);
        self.list(&label);
    }

    /// Gives a line its turn, if it may have a thread and needs one.
    fn list(&mut self, label: &Arc<str>) {
        let Some(line) = self.lines.get_mut(label) else { return };
        if !line.listed && !line.ready.is_empty() && line.taken < self.share {
            line.listed = true;
            self.turns.push_back(Arc::clone(label));
        } else if line.ready.is_empty() && line.taken == 0 {
            self.lines.remove(label);
        }
    }

    /// Takes the lane whose turn it is.
    fn pop(&mut self) -> Option<(Arc<Lane>, u64, u32)> {
        let label = self.turns.pop_front()?;
        let line = self.lines.get_mut(&label)?;
        line.listed = false;
        let lane = line.ready.pop_front()?;
        line.taken += 1;
        self.list(&label);
        let waiting = self.lanes.get_mut(&lane)?;
        waiting.place = Place::Taken;
        let number = *waiting.numbers.front()?;
        Some((lane, number, waiting.failures))
    }

    fn push(&mut self, notice: Notice) {
        let Some(first) = notice.targets.first() else { return };
        self.open.insert(notice.number, (notice.targets.len(), Arc::clone(first)));
        for label in notice.targets {
            let lane = Arc::new(Lane { label, key: Arc::clone(&notice.key) });
            match self.lanes.get_mut(&lane) {
                Some(waiting) => waiting.numbers.push_back(notice.number),
                None => {
                    let numbers = VecDeque::from([notice.number]);
                    let waiting = Waiting { numbers, failures: 0, place: Place::Ready, timer: None };
                    self.lanes.insert(Arc::clone(&lane), waiting);
                    self.make_ready(lane);
                }
            }
        }
    }

    fn postpone(&mut self, lane: Arc<Lane>, place: Place) {
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        waiting.place = place;
        let (Place::Later(due_ms) | Place::Parked(due_ms)) = place else { return };
        // A lane that is parked again and again has one timer all the while.
        if waiting.timer.is_none_or(|(timer_ms, _)| timer_ms != due_ms) {
            self.timers += 1;
            waiting.timer = Some((due_ms, self.timers));
            self.later.push(Reverse((due_ms, self.timers)));
            self.timed.insert(self.timers, lane);
        }
    }

    /// Makes ready what has waited long enough; gives the time of the next.
    fn wake(&mut self, now_ms: u64) -> Option<u64> {
        while let Some(Reverse((due_ms, timer))) = self.later.peek().copied() {
            if due_ms > now_ms {
                return Some(due_ms);
            }
            self.later.pop();
            let Some(lane) = self.timed.remove(&timer) else { continue };
            let Some(waiting) = self.lanes.get_mut(&lane) else { continue };
            if waiting.timer == Some((due_ms, timer)) {
                waiting.timer = None;
            }
            if waiting.place == Place::Later(due_ms) || waiting.place == Place::Parked(due_ms) {
                waiting.place = Place::Ready;
                self.make_ready(lane);
            }
        }
        None
    }

    fn unpark(&mut self) {
        let mut parked = Vec::new();
        for (lane, waiting) in &mut self.lanes {
            if let Place::Parked(_) = waiting.place {
                waiting.place = Place::Ready;
                parked.push(Arc::clone(lane));
            }
        }
        parked.into_iter().for_each(|lane| self.make_ready(lane));
    }

    /// Puts a lane back after an attempt. Gives the number of the event if nobody else is to be told of it.
    fn put_back(&mut self, lane: &Arc<Lane>, ended: &Ended, retry_at_ms: u64) -> Option<u64> {
        if let Some(line) = self.lines.get_mut(&lane.label) {
            line.taken -= 1;
        }
        let mut told = None;
        match ended {
            Ended::Told | Ended::Unreadable => told = self.advance(lane),
            Ended::Failed => {
                if let Some(waiting) = self.lanes.get_mut(lane) {
                    waiting.failures = waiting.failures.saturating_add(1);
                }
                self.postpone(Arc::clone(lane), Place::Later(retry_at_ms));
            }
            Ended::Unbound { until_ms } => self.postpone(Arc::clone(lane), Place::Parked(*until_ms)),
        }
        self.list(&lane.label);
        told
    }

    /// Goes on to a lane's next event. Gives the number of the one before if nobody else is to be told of it.
    fn advance(&mut self, lane: &Arc<Lane>) -> Option<u64> {
        let waiting = self.lanes.get_mut(lane)?;
        let number = waiting.numbers.pop_front()?;
        waiting.failures = 0;
        if waiting.numbers.is_empty() {
            self.lanes.remove(lane);
        } else {
            waiting.place = Place::Ready;
            self.make_ready(Arc::clone(lane));
        }
        let (open, _) = self.open.get_mut(&number)?;
        *open -= 1;
        if *open > 0 {
            return None;
        }
        self.open.remove(&number);
        Some(number)
    }
}

impl Delivery {
    /// Nothing waits; a trigger may have half of this many threads.
    pub(crate) fn new(threads: usize) -> Self {
        let state = State { share: threads.div_ceil(2), ..State::default() };
        Self { state: Mutex::new(state), news: Condvar::new() }
    }

    /// Takes events, newer than all before. Does not wait for anybody but for short looks at the list.
    pub(crate) fn add(&self, notices: Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        notices.into_iter().for_each(|notice| state.push(notice));
        drop(state);
        self.news.notify_one();
    }

    /// Triggers were bound: those that wait for that are looked at.
    pub(crate) fn rebound(&self) {
        self.state.lock().unpark();
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
        let first = state.open.values().next();
        first.map_or_else(|| "nobody any more".to_owned(), |(_, label)| format!("`{label}`"))
    }
}

/// Reads what the outbox has from before the start. Entries that cannot be read are reported and left where they are.
pub(crate) fn recover(core: &Core) -> Result<(), StoreError> {
    let mut found = Vec::new();
    let snapshot = core.store.snapshot()?;
    let mut from = std::ops::Bound::Unbounded;
    loop {
        let range = from.as_ref().map(Vec::as_slice);
        let scan = Scan::table(tables::OUTBOX).range(range, std::ops::Bound::Unbounded).limit(CHUNK);
        let entries = snapshot.scan(&scan)?;
        let last = entries.last().filter(|_| entries.len() == CHUNK).map(|entry| entry.key.clone());
        for entry in entries {
            match (tables::number(&entry.key), Event::decode(&entry.value.bytes)) {
                (Some(number), Ok(event)) => {
                    let notice = Notice { number, key: event.change.key, targets: event.targets };
                    found.push((entry.value.revision, notice));
                }
                (number, event) => {
                    let error = event.err().map(|error| error.to_string());
                    tracing::error!(?number, error, "an event of the outbox cannot be read and stays there");
                    core.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let Some(last) = last else { break };
        from = std::ops::Bound::Excluded(last);
    }
    // Numbers are given before commits are ordered; within one commit they are in order.
    found.sort_by_key(|(revision, notice)| (*revision, notice.number));
    core.news.outbox.fetch_add(found.len(), Ordering::Relaxed);
    core.news.delivery.add(found.into_iter().map(|(_, notice)| notice).collect());
    Ok(())
}

/// Starts a thread, if more are allowed.
pub(crate) fn start(core: &Arc<Core>, worker: &Worker) -> std::io::Result<()> {
    let (core_of_thread, worker) = (Arc::clone(core), worker.clone());
    let thread = std::thread::Builder::new().name("state-deliver".to_owned());
    let thread = thread.spawn(move || run(&core_of_thread, &worker))?;
    core.news.delivery.state.lock().threads.push(thread);
    Ok(())
}

fn run(core: &Arc<Core>, worker: &Worker) {
    while let Some((lane, number, failures)) = take(core, worker) {
        let ended = tell(core, worker, &lane, number);
        let config = &core.config;
        let factor = 1_u64.checked_shl(failures.min(40)).unwrap_or(u64::MAX);
        let pause_ms = config.retry_ms.saturating_mul(factor).min(config.retry_ms_max);
        let retry_at_ms = core.clock.now_ms().saturating_add(pause_ms);
        let told = core.news.delivery.state.lock().put_back(&lane, &ended, retry_at_ms);
        if let Some(number) = told.filter(|_| !matches!(ended, Ended::Unreadable)) {
            // Should this be lost in a crash, the functions are told once more.
            let batch = Batch::new().delete(tables::OUTBOX, &number.to_be_bytes());
            if let Err(error) = core.store.start(batch, Durability::Ephemeral) {
                tracing::warn!(%error, "an event that was told stays in the outbox until the next start");
            }
            core.news.outbox.fetch_sub(1, Ordering::Relaxed);
        }
        core.news.delivery.news.notify_one();
    }
}

/// Waits for a lane that is ready; `None` when the worker ends.
fn take(core: &Arc<Core>, worker: &Worker) -> Option<(Arc<Lane>, u64, u32)> {
    let delivery = &core.news.delivery;
    let mut state = delivery.state.lock();
    loop {
        if state.stopping {
            return None;
        }
        let next_ms = state.wake(core.clock.now_ms());
        if let Some(taken) = state.pop() {
            let more = !state.turns.is_empty();
            let idle = state.idle > 0;
            let grow = more && !idle && state.threads.len() < core.config.delivery_threads;
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

fn tell(core: &Core, worker: &Worker, lane: &Lane, number: u64) -> Ended {
    let event = match core.store.get(tables::OUTBOX, &number.to_be_bytes()) {
        Ok(Some(value)) => Event::decode(&value.bytes).map_err(|error| error.to_string()),
        Ok(None) => return Ended::Told,
        Err(error) => Err(error.to_string()),
    };
    let told = event.and_then(|event| {
        let payload = event.change.payload().map_err(|error| error.to_string())?;
        Ok((event, payload))
    });
    let (event, payload) = match told {
        Ok(told) => told,
        Err(error) => {
            tracing::error!(number, error, "an event cannot be read; it stays, later ones are told");
            core.counters.unreadable.fetch_add(1, Ordering::Relaxed);
            return Ended::Unreadable;
        }
    };
    let until_ms = event.created_ms.saturating_add(core.config.retention_ms);
    let overdue = until_ms <= core.clock.now_ms();
    let Some(binding) = core.triggers.load().labelled(&lane.label) else {
        return if overdue { set_aside(core, lane, number, &event) } else { Ended::Unbound { until_ms } };
    };
    let options = CallOptions::new().timeout(Duration::from_millis(core.config.delivery_timeout_ms));
    match ringway_worker_kit::deliver(worker, &binding, &payload, options) {
        Ok(_) => {
            core.counters.delivered.fetch_add(1, Ordering::Relaxed);
            Ended::Told
        }
        Err(error) => {
            core.counters.attempts_failed.fetch_add(1, Ordering::Relaxed);
            failed(core, lane, number, &event, overdue, &error)
        }
    }
}

fn failed(core: &Core, lane: &Lane, number: u64, event: &Event, overdue: bool, error: &CallError) -> Ended {
    if error.user_code.as_deref() == Some("CONDITION_ERROR") {
        tracing::warn!(trigger = %lane.label, %error, "the condition does not fit this change");
        return Ended::Told;
    }
    tracing::debug!(trigger = %lane.label, %error, "a function of a state trigger will be called again");
    if overdue { set_aside(core, lane, number, event) } else { Ended::Failed }
}

/// Keeps an event that was not taken in time where a person finds it.
fn set_aside(core: &Core, lane: &Lane, number: u64, event: &Event) -> Ended {
    let mut key = number.to_be_bytes().to_vec();
    key.extend_from_slice(lane.label.as_bytes());
    key.truncate(ringway_store::limits::KEY_BYTES_MAX);
    let alone = Event { targets: vec![Arc::clone(&lane.label)], ..event.clone() };
    let batch = Batch::new().put(tables::UNDELIVERED, &key, alone.encode());
    match core.store.commit(batch, Durability::Durable) {
        Ok(_) => {
            tracing::warn!(trigger = %lane.label, number, "an event was not taken in time and is set aside");
            core.counters.set_aside.fetch_add(1, Ordering::Relaxed);
            Ended::Told
        }
        Err(_) => Ended::Failed,
    }
}
