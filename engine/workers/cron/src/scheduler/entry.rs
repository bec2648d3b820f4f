//! A job with its trigger: what it is doing, and what is written down of it. Used by `scheduler`, under its lock. It must not
//! know threads, nor call anything.

use std::sync::Arc;

use ringway::CallError;
use ringway_store::{Batch, Store, StoreError};
use ringway_worker_kit::Binding;

use crate::config::{Bound, Interrupted};
use crate::delivery::rfc3339;
use crate::functions::JobView;
use crate::job::{Job, Millis};
use crate::ledger::Second;
use crate::record::{self, Record};

/// A job with its trigger.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) binding: Arc<Binding<Bound>>,
    /// Whether the trigger is bound; one that is not stays until its functions have ended.
    pub(super) live: bool,
    /// Functions that run.
    pub(super) running: usize,
    /// When to look again.
    pub(super) due: Option<Millis>,
    job: Job,
    /// What was asked for last, in the trigger's stead.
    paused: Option<bool>,
    last: Option<Second>,
    /// Slots that were claimed and have not ended.
    started: Vec<Second>,
    /// A claim is on its way to the disk.
    claiming: bool,
    /// Slots whose claim was refused, and when to try again.
    unclaimed: Vec<Second>,
    retry_at: Millis,
    fired: u64,
    interrupted: u64,
    problem: Option<String>,
    last_error: Option<String>,
}

impl Entry {
    fn new(binding: &Arc<Binding<Bound>>, job: Job) -> Self {
        Self {
            binding: Arc::clone(binding),
            live: true,
            running: 0,
            due: None,
            job,
            paused: None,
            last: None,
            started: Vec::new(),
            claiming: false,
            unclaimed: Vec::new(),
            retry_at: 0,
            fired: 0,
            interrupted: 0,
            problem: None,
            last_error: None,
        }
    }

    /// A job as the store knows it, or one that begins now; and what is to be written at once.
    pub(super) fn load(
        store: &dyn Store,
        binding: &Arc<Binding<Bound>>,
        now: Millis,
    ) -> (Self, Option<Batch>) {
        let id = &binding.id;
        let found = match store.get(record::TABLE, id.as_bytes()) {
            Ok(found) => found,
            Err(error) => {
                let mut entry = Self::new(binding, Job::new(id, now));
                entry.report(format!("what fired before cannot be read ({error}); the job begins anew"));
                return (entry, None);
            }
        };
        let Some(value) = found else {
            let entry = Self::new(binding, Job::new(id, now));
            let batch = entry.put(Batch::new(), now);
            return (entry, Some(batch));
        };
        match Record::decode(&value.bytes) {
            Ok(record) => (Self::go_on(binding, record, now), None),
            Err(error) => {
                let mut entry = Self::new(binding, Job::new(id, now));
                let aside = record::TABLE_ASIDE;
                entry.report(format!("what fired before cannot be read ({error}); it was moved to table `{aside}`, the job begins anew"));
                let batch = record::set_aside(Batch::new(), id, &value.bytes, now);
                let batch = entry.put(batch, now);
                (entry, Some(batch))
            }
        }
    }

    fn go_on(binding: &Arc<Binding<Bound>>, record: Record, now: Millis) -> Self {
        let mut entry = Self::new(binding, record.job(&binding.id));
        let schedule = &binding.config.schedule;
        if (record.expression.as_str(), record.timezone.as_str()) != (schedule.expression(), schedule.zone())
        {
            entry.job.begin_at(now);
        }
        (entry.paused, entry.last) = (record.paused, record.last);
        if entry.is_paused() {
            entry.job.begin_at(now);
        }
        if record.started.is_empty() {
            return entry;
        }
        match binding.config.config.if_interrupted {
            Interrupted::Repeat => {
                entry.unclaimed.clone_from(&record.started);
                entry.started = record.started;
            }
            Interrupted::Skip => {
                entry.interrupted = record.started.len() as u64;
                let slots: Vec<String> = record.started.iter().map(|slot| rfc3339(slot * 1000)).collect();
                tracing::warn!(target: "ringway", job = binding.id, ?slots, "interrupted, and not known to have ended");
            }
        }
        entry
    }

    fn report(&mut self, problem: String) {
        tracing::error!(target: "ringway", job = self.binding.id, problem, "a job's record");
        self.problem = Some(problem);
    }

    /// The trigger was bound anew, perhaps with another configuration.
    pub(super) fn bind_again(&mut self, binding: &Arc<Binding<Bound>>, now: Millis) {
        let (old, new) = (&self.binding.config.schedule, &binding.config.schedule);
        if (old.expression(), old.zone()) != (new.expression(), new.zone()) {
            self.job.begin_at(now);
        }
        self.binding = Arc::clone(binding);
        self.live = true;
    }

    pub(super) fn busy(&self) -> bool {
        self.running > 0 || self.claiming
    }

    fn is_paused(&self) -> bool {
        self.paused.unwrap_or(self.binding.config.config.paused)
    }

    /// Slots to claim now.
    pub(super) fn due_slots(&mut self, now: Millis, late_ms_max: u64) -> Vec<Second> {
        if !self.live || self.is_paused() {
            return Vec::new();
        }
        let busy = self.busy() || !self.unclaimed.is_empty();
        let binding = Arc::clone(&self.binding);
        self.job.look(&binding.config, now, late_ms_max, busy);
        if self.claiming {
            return Vec::new();
        }
        if !self.unclaimed.is_empty() {
            return if now < self.retry_at { Vec::new() } else { std::mem::take(&mut self.unclaimed) };
        }
        self.job.take(binding.config.config.overlap, busy)
    }

    /// When to look at the job again, unless something happens before.
    pub(super) fn next_look(&self, now: Millis) -> Option<Millis> {
        if !self.live || self.is_paused() {
            return None;
        }
        let retry = (!self.claiming && !self.unclaimed.is_empty()).then_some(self.retry_at.max(now + 1));
        [self.job.next_due(&self.binding.config), retry].into_iter().flatten().min()
    }

    fn put(&self, batch: Batch, now: Millis) -> Batch {
        let record = Record {
            paused: self.paused,
            last: self.last,
            started: self.started.clone(),
            written_ms: now,
            ..Record::of(&self.job, &self.binding.config)
        };
        record.put(batch, &self.binding.id)
    }

    /// Takes slots to be claimed; gives what is to be written for that.
    pub(super) fn begin_claim(&mut self, slots: &[Second], now: Millis) -> Batch {
        self.claiming = true;
        self.last = slots.last().copied().max(self.last);
        self.started
            .extend(slots.iter().filter(|slot| !self.started.contains(slot)).copied().collect::<Vec<_>>());
        self.put(Batch::new(), now)
    }

    /// The claim is on disk; the function is called for each slot.
    pub(super) fn claimed(&mut self, slots: &[Second]) {
        self.claiming = false;
        self.problem = None;
        self.running += slots.len();
        self.fired += slots.len() as u64;
    }

    /// The claim was not written.
    pub(super) fn refused(&mut self, slots: Vec<Second>, error: &StoreError, retry_at: Millis) {
        self.claiming = false;
        self.unclaimed = slots;
        self.retry_at = retry_at;
        self.problem = Some(format!("a slot could not be written down, so it is not fired yet: {error}"));
    }

    /// A slot's function has ended; gives what is to be written.
    pub(super) fn ended(&mut self, slot: Second, error: Option<CallError>, now: Millis) -> Batch {
        self.started.retain(|started| *started != slot);
        self.last_error = error.map(|error| error.to_string());
        self.put(Batch::new(), now)
    }

    /// Pauses or resumes; gives what is to be written. What came before is not made up for.
    pub(super) fn pause(&mut self, paused: bool, now: Millis) -> Batch {
        if self.is_paused() != paused {
            self.job.begin_at(now);
        }
        self.paused = Some(paused);
        self.put(Batch::new(), now)
    }

    /// The job as callers see it.
    pub(super) fn view(&self, id: &str) -> JobView {
        let Bound { schedule, config: _ } = &self.binding.config;
        let next = if self.is_paused() { None } else { self.job.next_slot(&self.binding.config) };
        JobView {
            id: id.to_owned(),
            expression: schedule.expression().to_owned(),
            timezone: schedule.zone().to_owned(),
            function_id: self.binding.function_id.clone(),
            next: next.map(|slot| rfc3339(slot.saturating_mul(1000))),
            last: self.last.map(|slot| rfc3339(slot.saturating_mul(1000))),
            paused: self.is_paused(),
            running: self.running + usize::from(self.claiming),
            waiting: self.job.waiting() + self.unclaimed.len(),
            fired: self.fired,
            skipped: self.job.left_out.skipped,
            missed: self.job.left_out.missed,
            interrupted: self.interrupted,
            last_error: self.last_error.clone(),
            problem: self.problem.clone(),
        }
    }
}
