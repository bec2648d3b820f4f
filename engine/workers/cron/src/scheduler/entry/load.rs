//! Where an entry comes from: the store, or nothing; and what becomes of it when its trigger is bound anew. It must not know
//! when that is.

use std::sync::Arc;

use ringway_store::{Batch, Store};
use ringway_worker_kit::Binding;

use super::Entry;
use crate::config::{Bound, Interrupted};
use crate::delivery::rfc3339;
use crate::job::{Job, Millis};
use crate::record::{self, Record};

impl Entry {
    /// A job as the store knows it, or one that begins now; and what is to be written at once.
    pub(in crate::scheduler) fn load(
        store: &dyn Store,
        binding: &Arc<Binding<Bound>>,
        now: Millis,
    ) -> (Self, Option<Batch>) {
        let id = &binding.id;
        let begin = || Self::new(binding, Job::new(id, now));
        let found = match store.get(record::TABLE, id.as_bytes()) {
            Ok(found) => found,
            Err(error) => {
                let mut entry = begin();
                entry.written = now;
                entry.report(format!("what fired before cannot be read ({error}); the job begins anew"));
                return (entry, None);
            }
        };
        let Some(value) = found else {
            let mut entry = begin();
            let batch = entry.record(now);
            return (entry, Some(batch));
        };
        match Record::decode(&value.bytes) {
            Ok(record) => Self::go_on(binding, record, now),
            Err(error) => {
                let mut entry = begin();
                let aside = record::TABLE_ASIDE;
                entry.report(format!("what fired before cannot be read ({error}); it was moved to table `{aside}`, the job begins anew"));
                let batch = record::set_aside(Batch::new(), id, &value.bytes, now);
                let batch = entry.put(batch, now);
                (entry, Some(batch))
            }
        }
    }

    fn go_on(binding: &Arc<Binding<Bound>>, record: Record, now: Millis) -> (Self, Option<Batch>) {
        let mut entry = Self::new(binding, record.job(&binding.id));
        (entry.paused, entry.last, entry.written) = (record.paused, record.last, record.written_ms);
        let schedule = &binding.config.schedule;
        let another = (record.expression.as_str(), record.timezone.as_str())
            != (schedule.expression(), schedule.zone());
        let asleep = record.held || entry.is_paused();
        if another || asleep {
            entry.job.begin_at(now);
        }
        let mut changed = another || record.held != entry.is_paused();
        if !record.started.is_empty() {
            entry.started = record.started;
            entry.repeats.clone_from(&entry.started);
            if asleep || binding.config.config.if_interrupted == Interrupted::Skip {
                entry.leave_interrupted();
                changed = true;
            }
        }
        let batch = changed.then(|| entry.record(now));
        (entry, batch)
    }

    /// Slots whose function was called, or was about to be, when the engine ended, are not fired again.
    pub(super) fn leave_interrupted(&mut self) {
        let left = std::mem::take(&mut self.repeats);
        if left.is_empty() {
            return;
        }
        self.started.retain(|slot| !left.contains(slot));
        self.interrupted += left.len() as u64;
        let slots: Vec<String> = left.iter().map(|slot| rfc3339(slot.saturating_mul(1000))).collect();
        tracing::warn!(target: "ringway", job = self.binding.id, ?slots, "interrupted, and not known to have ended");
    }

    fn report(&mut self, problem: String) {
        tracing::error!(target: "ringway", job = self.binding.id, problem, "a job's record");
        self.problem = Some(problem);
    }

    /// The trigger was bound anew, perhaps with another configuration; gives what is to be written. What came while the
    /// job was paused, or by another schedule, is not made up for.
    pub(in crate::scheduler) fn bind_again(
        &mut self,
        binding: &Arc<Binding<Bound>>,
        now: Millis,
    ) -> Option<Batch> {
        let was_paused = self.is_paused();
        let old = std::mem::replace(&mut self.binding, Arc::clone(binding));
        self.live = true;
        let (old, new) = (&old.config.schedule, &binding.config.schedule);
        let another = (old.expression(), old.zone()) != (new.expression(), new.zone());
        let paused = self.is_paused();
        if another || was_paused != paused {
            self.begin_at(now);
        }
        if was_paused != paused {
            let id = &binding.id;
            tracing::info!(target: "ringway", job = id, paused, "a job was paused or resumed by its trigger");
            self.leave_interrupted();
        }
        (another || was_paused != paused).then(|| self.record(now))
    }
}
