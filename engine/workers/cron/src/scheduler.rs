//! All jobs, and the thread that wakes when one is due. A slot is written down as fired, durably, before its function is
//! called. It must not know how slots are found (`job`), nor what the functions of this worker are called (`functions`).
//!
//! One lock guards the jobs and is never held while something is waited for: commits end in a callback, calls in a future.

mod entry;
mod steering;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ringway::Worker;
use ringway_store::{Batch, Durability, Scan, Store, StoreError};
use ringway_worker_kit::{Binding, Bindings, Spawner};

use crate::clock::{Clock, Woke};
use crate::config::{Bound, Config};
use crate::delivery;
use crate::job::Millis;
use crate::ledger::Second;
use crate::record::{self, Record};

use entry::{Claim, Entry, RETRY_MS_MAX};

/// How soon the store is asked again after it refused, in milliseconds, unless a person has to look after it first.
const RETRY_MS: Millis = 1000;

/// All jobs of one worker.
pub(crate) struct Scheduler {
    pub(crate) clock: Clock,
    pub(crate) config: Config,
    store: Arc<dyn Store>,
    bindings: Bindings<Bound>,
    spawner: Spawner,
    /// The worker, until it is shut down.
    worker: Mutex<Option<Worker>>,
    jobs: Mutex<Jobs>,
    /// Told when a function has ended.
    ended: Condvar,
    /// Triggers have come or gone.
    changed: AtomicBool,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Jobs {
    by_id: BTreeMap<String, Entry>,
    /// When to look at which job again.
    due: BTreeSet<(Millis, String)>,
    /// What the clock showed last.
    last_now: Millis,
}

impl Jobs {
    /// Has a job looked at again at a time, and not before.
    fn look_at(&mut self, id: &str, at: Option<Millis>) {
        let Some(entry) = self.by_id.get_mut(id) else { return };
        if let Some(before) = std::mem::replace(&mut entry.due, at) {
            self.due.remove(&(before, id.to_owned()));
        }
        if let Some(at) = at {
            self.due.insert((at, id.to_owned()));
        }
    }

    fn remove(&mut self, id: &str) {
        self.look_at(id, None);
        self.by_id.remove(id);
    }

    /// Lets go of a job that nobody binds any more, as soon as the disk knows all of it; gives what is to be written for that.
    fn leave(&mut self, id: &str, now: Millis) -> Option<Batch> {
        let entry = self.by_id.get_mut(id).filter(|entry| !entry.live)?;
        let batch = entry.due_record(now);
        if entry.at_rest() && batch.is_none() {
            self.remove(id);
        }
        batch
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Scheduler {
    pub(crate) fn new(
        clock: Clock,
        config: Config,
        store: Arc<dyn Store>,
        bindings: Bindings<Bound>,
        spawner: Spawner,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            config,
            store,
            bindings,
            spawner,
            worker: Mutex::default(),
            jobs: Mutex::default(),
            ended: Condvar::new(),
            changed: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
        })
    }

    /// Gives the scheduler the worker to call with.
    pub(crate) fn attach(&self, worker: Worker) {
        *self.worker.lock() = Some(worker);
    }

    /// Triggers have come or gone.
    pub(crate) fn bindings_changed(&self) {
        self.changed.store(true, Ordering::Release);
        self.clock.ring();
    }

    /// What the timer's thread does until it is told to stop.
    pub(crate) fn live(self: &Arc<Self>) {
        let mut everything = true;
        while !self.stopping.load(Ordering::Acquire) {
            let next = self.turn(everything);
            everything = self.clock.wait(next) == Woke::Set;
        }
    }

    /// Starts nothing more, and waits for functions that run, as long as the configuration says.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.clock.ring();
        let until = Instant::now() + Duration::from_millis(self.config.shutdown_ms_max);
        let mut jobs = self.jobs.lock();
        while jobs.by_id.values().any(Entry::busy) {
            if self.ended.wait_until(&mut jobs, until).timed_out() {
                break;
            }
        }
    }

    /// Lets the worker go.
    pub(crate) fn detach(&self) -> Option<Worker> {
        self.worker.lock().take()
    }

    /// Looks at every job that is due, or at every job; tells when to look again.
    fn turn(self: &Arc<Self>, everything: bool) -> Option<Millis> {
        let mut jobs = self.jobs.lock();
        let now = self.clock.now();
        let everything = everything || now < jobs.last_now;
        jobs.last_now = now;
        if self.changed.swap(false, Ordering::AcqRel) {
            self.follow_bindings(&mut jobs, now);
        }
        let due: Vec<String> = if everything {
            jobs.by_id.keys().cloned().collect()
        } else {
            jobs.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect()
        };
        for id in due {
            self.step(&mut jobs, &id, now);
        }
        jobs.due.first().map(|(at, _)| *at)
    }

    fn follow_bindings(self: &Arc<Self>, jobs: &mut Jobs, now: Millis) {
        let live = self.bindings.all();
        let ids: BTreeSet<&str> = live.iter().map(|binding| binding.id.as_str()).collect();
        let gone: Vec<String> = jobs.by_id.keys().filter(|id| !ids.contains(id.as_str())).cloned().collect();
        for id in gone {
            if let Some(entry) = jobs.by_id.get_mut(&id) {
                entry.live = false;
                jobs.look_at(&id, Some(now));
            }
        }
        for binding in live.iter() {
            let batch = match jobs.by_id.get_mut(&binding.id) {
                Some(entry) if entry.live && Arc::ptr_eq(&entry.binding, binding) => continue,
                Some(entry) => entry.bind_again(binding, now),
                None => {
                    let (entry, batch) = Entry::load(&*self.store, binding, now);
                    jobs.by_id.insert(binding.id.clone(), entry);
                    batch
                }
            };
            if let Some(batch) = batch {
                self.write_down(jobs, &binding.id, batch, Durability::Durable);
            }
            jobs.look_at(&binding.id, Some(now));
        }
    }

    /// Writes without waiting. The job stays known until it has been written, even when its trigger goes, so that nobody
    /// reads an older record.
    fn write_down(self: &Arc<Self>, jobs: &mut Jobs, id: &str, batch: Batch, durability: Durability) {
        let Some(entry) = jobs.by_id.get_mut(id) else { return };
        entry.writes();
        let (scheduler, job) = (Arc::clone(self), id.to_owned());
        let done = Box::new(move |outcome: Result<u64, StoreError>| {
            let spawner = scheduler.spawner.clone();
            spawner.spawn(async move { scheduler.wrote(&job, outcome.err().as_ref()) });
        });
        if let Err(error) = self.store.submit(batch, durability, done) {
            entry.wrote(Some(self.retry_at(id, &error)));
        }
    }

    fn wrote(self: &Arc<Self>, id: &str, error: Option<&StoreError>) {
        let refused = error.map(|error| self.retry_at(id, error));
        let mut jobs = self.jobs.lock();
        let Some(entry) = jobs.by_id.get_mut(id) else { return };
        entry.wrote(refused);
        if refused.is_none() && entry.live {
            return;
        }
        jobs.look_at(id, Some(self.clock.now()));
        drop(jobs);
        self.clock.ring();
    }

    /// When to write a record again that was refused.
    fn retry_at(&self, id: &str, error: &StoreError) -> Millis {
        tracing::warn!(target: "ringway", job = id, %error, "what is known of a job could not be written");
        self.clock.now() + retry_after(error)
    }

    /// Looks at one job: what is due is claimed.
    fn step(self: &Arc<Self>, jobs: &mut Jobs, id: &str, now: Millis) {
        let Some(entry) = jobs.by_id.get_mut(id) else { return };
        let stopping = self.stopping.load(Ordering::Acquire);
        let slots = if stopping { Vec::new() } else { entry.due_slots(now, self.config.late_ms_max) };
        if !slots.is_empty() {
            self.claim(entry, id, &slots, now);
        }
        let batch = if entry.live { entry.due_record(now) } else { jobs.leave(id, now) };
        if let Some(batch) = batch {
            self.write_down(jobs, id, batch, Durability::Ephemeral);
        }
        let next = jobs.by_id.get(id).and_then(|entry| entry.next_look(now));
        jobs.look_at(id, next);
    }

    /// Writes slots down as fired; their function is called when that is on disk.
    fn claim(self: &Arc<Self>, entry: &mut Entry, id: &str, slots: &[Second], now: Millis) {
        let (claim, batch) = entry.begin_claim(slots, now);
        let scheduler = Arc::clone(self);
        let (job, binding) = (id.to_owned(), Arc::clone(&entry.binding));
        let claim = Arc::new(Mutex::new(Some(claim)));
        let claimed = Arc::clone(&claim);
        let done = Box::new(move |outcome: Result<u64, StoreError>| {
            let Some(claim) = claimed.lock().take() else { return };
            let spawner = scheduler.spawner.clone();
            spawner.spawn(async move { scheduler.claimed(&job, &binding, claim, outcome) });
        });
        if let Err(error) = self.store.submit(batch, Durability::Durable, done)
            && let Some(claim) = claim.lock().take()
        {
            refuse(entry, id, claim, &error, now);
        }
    }

    fn claimed(
        self: &Arc<Self>,
        id: &str,
        binding: &Arc<Binding<Bound>>,
        claim: Claim,
        outcome: Result<u64, StoreError>,
    ) {
        let mut jobs = self.jobs.lock();
        let now = self.clock.now();
        if let Some(entry) = jobs.by_id.get_mut(id) {
            match outcome {
                Ok(_) => {
                    entry.claimed(&claim);
                    for slot in claim.slots {
                        let delivery =
                            Arc::clone(self).deliver_slot(id.to_owned(), Arc::clone(binding), slot);
                        self.spawner.spawn(delivery);
                    }
                }
                Err(error) => refuse(entry, id, claim, &error, now),
            }
        }
        jobs.look_at(id, Some(now));
        drop(jobs);
        // Whoever shuts this down waits for claims as well.
        self.ended.notify_all();
        self.clock.ring();
    }

    async fn deliver_slot(self: Arc<Self>, id: String, binding: Arc<Binding<Bound>>, slot: Second) {
        let running = Running { scheduler: Arc::clone(&self), id: id.clone() };
        let payload = delivery::payload(&id, slot.saturating_mul(1000), self.clock.now());
        let worker = self.worker.lock().clone();
        let Some(worker) = worker else { return };
        let outcome = delivery::deliver(&worker, &binding, &payload).await;
        drop(worker);
        if outcome.is_err() && self.worker.lock().is_none() {
            // Broken off by the end of this worker: how the function ended is not known, so the slot stays started.
            return;
        }
        if let Err(error) = &outcome {
            tracing::warn!(target: "ringway", job = id, function = binding.function_id, %error, "a scheduled function failed");
        }
        let mut jobs = self.jobs.lock();
        if let Some(entry) = jobs.by_id.get_mut(&id) {
            let batch = entry.ended(slot, outcome.err(), self.clock.now());
            self.write_down(&mut jobs, &id, batch, Durability::Ephemeral);
        }
        drop(jobs);
        drop(running);
    }

    fn stopped_running(&self, id: &str) {
        let mut jobs = self.jobs.lock();
        let now = self.clock.now();
        if let Some(entry) = jobs.by_id.get_mut(id) {
            entry.running = entry.running.saturating_sub(1);
        }
        jobs.look_at(id, Some(now));
        drop(jobs);
        self.ended.notify_all();
        self.clock.ring();
    }

    /// Forgets jobs that nobody has bound for long, by the time of the newest record, whatever the clock says now; what a
    /// person said of one is kept. Gives how many those were. When this has ended, all that was written before can be read.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) fn forget(&self) -> Result<usize, StoreError> {
        // Empty, but it comes after all that a worker before this one left on its way.
        self.store.commit(Batch::new(), Durability::Ephemeral)?;
        let records = self.store.scan(&Scan::table(record::TABLE))?;
        let read: Vec<(Vec<u8>, Record)> = records
            .into_iter()
            .filter_map(|entry| Some((entry.key, Record::decode(&entry.value.bytes).ok()?)))
            .collect();
        let newest = read.iter().map(|(_, record)| record.written_ms).max().unwrap_or(0);
        let oldest = newest.saturating_sub(i64::from(self.config.forget_days) * 86_400_000);
        let mut batch = Batch::new();
        let mut count = 0;
        let forgotten = |record: &Record| record.written_ms < oldest && record.paused.is_none();
        for (key, _) in read.iter().filter(|(_, record)| forgotten(record)) {
            batch = batch.delete(record::TABLE, key);
            count += 1;
        }
        if count > 0 {
            self.store.commit(batch, Durability::Ephemeral)?;
        }
        Ok(count)
    }
}

fn refuse(entry: &mut Entry, id: &str, claim: Claim, error: &StoreError, now: Millis) {
    tracing::error!(target: "ringway", job = id, %error, "a slot could not be written down, so it is not fired yet");
    entry.refused(claim, error, now + retry_after(error));
}

fn retry_after(error: &StoreError) -> Millis {
    if record::may_pass(error) { RETRY_MS } else { RETRY_MS_MAX }
}

/// Counts a function as running until it is dropped.
struct Running {
    scheduler: Arc<Scheduler>,
    id: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.scheduler.stopped_running(&self.id);
    }
}
