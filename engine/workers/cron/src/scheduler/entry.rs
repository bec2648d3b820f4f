//! A job with its trigger: what it is doing, and what is written down of it. Used by `scheduler`, under its lock. It must not
//! know threads, nor call anything.

mod load;
mod pausing;
mod view;

use std::sync::Arc;

use ringway::CallError;
use ringway_store::{Batch, StoreError};
use ringway_worker_kit::Binding;

use crate::config::{Bound, Overlap};
use crate::job::{Job, Millis};
use crate::ledger::Second;
use crate::record::Record;

use pausing::Change;

/// The longest time after which a store that refused is asked again, in milliseconds.
pub(super) const RETRY_MS_MAX: Millis = 30_000;

/// How often what is known of a job is written anew while its trigger is bound: that it is wanted shows in the time.
const TOUCH_MS: Millis = 86_400_000;

/// A job with its trigger.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) binding: Arc<Binding<Bound>>,
    /// Whether the trigger is bound; one that is not stays until its functions have ended and all is written.
    pub(super) live: bool,
    /// Functions that run.
    pub(super) running: usize,
    /// When to look again.
    pub(super) due: Option<Millis>,
    job: Job,
    /// What was asked for last, in the trigger's stead.
    paused: Option<bool>,
    /// A pause or resumption that is not on disk yet. Nothing is decided until it is.
    change: Option<Change>,
    last: Option<Second>,
    /// Slots that were claimed and have not ended.
    started: Vec<Second>,
    /// A claim is on its way to the disk.
    claiming: bool,
    /// Those of `started` that are to be fired once more.
    repeats: Vec<Second>,
    /// A claim was refused, and none was written since: what was given back waits, unless it was passed over. See
    /// `held_back`.
    refused: bool,
    /// When to write again what was refused.
    retry_at: Millis,
    /// Records on their way to the disk, besides a claim and a change.
    writing: usize,
    /// The last record was refused.
    unwritten: bool,
    written: Millis,
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
            change: None,
            last: None,
            started: Vec::new(),
            claiming: false,
            repeats: Vec::new(),
            refused: false,
            retry_at: 0,
            writing: 0,
            unwritten: false,
            written: 0,
            fired: 0,
            interrupted: 0,
            problem: None,
            last_error: None,
        }
    }

    pub(super) fn busy(&self) -> bool {
        self.running > 0 || self.claiming
    }

    /// Whether the disk knows all of it, so that it may be read from there again.
    pub(super) fn at_rest(&self) -> bool {
        !self.busy() && self.change.is_none() && self.writing == 0 && !self.unwritten
    }

    /// Whether slots wait because the store refused them. Those can go without a claim, with another schedule or a pause;
    /// then nothing is held back any more.
    fn held_back(&self) -> bool {
        self.refused && self.job.waiting() > 0
    }

    fn is_paused(&self) -> bool {
        self.paused.unwrap_or(self.binding.config.config.paused)
    }

    /// Slots to claim now.
    pub(super) fn due_slots(&mut self, now: Millis, late_ms_max: u64) -> Vec<Second> {
        if !self.live || self.is_paused() || self.change.is_some() {
            return Vec::new();
        }
        let busy = self.busy();
        let binding = Arc::clone(&self.binding);
        let held_up = busy || self.held_back() || !self.repeats.is_empty();
        self.job.look(&binding.config, now, late_ms_max, held_up);
        if self.claiming || self.retries_after(now) {
            return Vec::new();
        }
        if !self.repeats.is_empty() {
            return std::mem::take(&mut self.repeats);
        }
        self.job.take(binding.config.config.overlap, busy)
    }

    /// Whether the store is left alone for now. A clock that was put back delays that no further.
    fn retries_after(&self, now: Millis) -> bool {
        now < self.retry_at && self.retry_at - now <= RETRY_MS_MAX
    }

    /// When to look at the job again, unless something happens before.
    pub(super) fn next_look(&self, now: Millis) -> Option<Millis> {
        let retry_at = if self.retries_after(now) { self.retry_at } else { now + 1 };
        let rewrite = (self.unwritten && self.writing == 0).then_some(retry_at);
        if !self.live {
            return rewrite;
        }
        let touch = Some(self.written.saturating_add(TOUCH_MS).max(now + 1));
        let decides = !self.is_paused() && self.change.is_none();
        let due = decides.then(|| self.job.next_due(&self.binding.config)).flatten();
        // While a function runs that must not overlap, its end is what is waited for, not the time.
        let free = self.running == 0 || self.binding.config.config.overlap == Overlap::Allow;
        let waits = decides && !self.claiming && (!self.repeats.is_empty() || self.held_back() && free);
        let retry = waits.then_some(retry_at);
        [rewrite, touch, due, retry].into_iter().flatten().min()
    }

    /// What is to be written by itself: what was refused, or what was written long ago.
    pub(super) fn due_record(&mut self, now: Millis) -> Option<Batch> {
        let stale = self.live && self.written.saturating_add(TOUCH_MS) <= now;
        let refused = self.unwritten && !self.retries_after(now);
        (self.writing == 0 && (stale || refused)).then(|| self.record(now))
    }

    /// What is to be written now, by [`Entry::wrote`] told how that went.
    pub(super) fn record(&mut self, now: Millis) -> Batch {
        self.put(Batch::new(), now)
    }

    fn put(&mut self, batch: Batch, now: Millis) -> Batch {
        let (job, paused) = match &self.change {
            Some(change) => (change.job.as_ref().unwrap_or(&self.job), Some(change.paused)),
            None => (&self.job, self.paused),
        };
        let record = Record {
            paused,
            held: paused.unwrap_or(self.binding.config.config.paused),
            last: self.last,
            started: self.started.clone(),
            written_ms: now,
            ..Record::of(job, &self.binding.config)
        };
        (self.written, self.unwritten) = (now, false);
        record.put(batch, &self.binding.id)
    }

    /// A record is on its way.
    pub(super) fn writes(&mut self) {
        self.writing += 1;
    }

    /// A record was written, or refused; it is written again at a time then.
    pub(super) fn wrote(&mut self, refused: Option<Millis>) {
        self.writing = self.writing.saturating_sub(1);
        if let Some(retry_at) = refused {
            (self.unwritten, self.retry_at) = (true, retry_at);
        }
    }

    /// Takes slots to be claimed; gives what is to be written for that.
    pub(super) fn begin_claim(&mut self, slots: &[Second], now: Millis) -> (Claim, Batch) {
        self.claiming = true;
        let claim = Claim {
            new: slots.iter().filter(|slot| !self.started.contains(slot)).copied().collect(),
            slots: slots.to_vec(),
            last_before: self.last,
        };
        self.last = slots.last().copied().max(self.last);
        self.started.extend(&claim.new);
        let batch = self.put(Batch::new(), now);
        (claim, batch)
    }

    /// The claim is on disk; the function is called for each slot.
    pub(super) fn claimed(&mut self, claim: &Claim) {
        self.claiming = false;
        self.problem = None;
        (self.refused, self.retry_at) = (false, 0);
        self.running += claim.slots.len();
        self.fired += claim.slots.len() as u64;
    }

    /// The claim was not written: nothing was decided, and nothing that is written from now on says so.
    pub(super) fn refused(&mut self, claim: Claim, error: &StoreError, retry_at: Millis) {
        self.claiming = false;
        self.started.retain(|slot| !claim.new.contains(slot));
        self.job.give_back(&claim.new);
        self.repeats = claim.slots.into_iter().filter(|slot| !claim.new.contains(slot)).collect();
        self.last = claim.last_before;
        (self.refused, self.unwritten, self.retry_at) = (true, true, retry_at);
        self.problem = Some(format!("a slot could not be written down, so it is not fired yet: {error}"));
    }

    /// A slot's function has ended; gives what is to be written.
    pub(super) fn ended(&mut self, slot: Second, error: Option<CallError>, now: Millis) -> Batch {
        self.started.retain(|started| *started != slot);
        self.ran(error);
        self.put(Batch::new(), now)
    }

    /// The function has ended, well or with an error.
    pub(super) fn ran(&mut self, error: Option<CallError>) {
        self.last_error = error.map(|error| error.to_string());
    }
}

/// Slots on their way to the disk.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) slots: Vec<Second>,
    /// Those that were not claimed before.
    new: Vec<Second>,
    last_before: Option<Second>,
}
