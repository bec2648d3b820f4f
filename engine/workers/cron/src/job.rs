//! One job: which slots are to be fired now, which wait, which are left out. Pure: the time goes in, slots come out; the same
//! calls in the same order give the same slots. It must not know stores, threads or functions.
//!
//! `seen` is how far the schedule has been looked through, in the clock's time; it goes back with the clock. The ledger says
//! which slots were decided, whatever the clock says later. A slot is decided when it is taken to be fired or left out for
//! good; slots that were missed and not made up for stay undecided, so that they are fired if the clock was wrong and comes to
//! them once more.

use std::collections::VecDeque;

use jiff::Timestamp;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::config::{Bound, CatchUp, JobConfig, Overlap};
use crate::ledger::{Ledger, Second};

/// Milliseconds since 1970, UTC.
pub(crate) type Millis = i64;

/// Missed slots beyond this are no longer counted one by one.
const COUNTED_MAX: u64 = 1000;

/// A slot that is to be fired, and since when nothing else was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    from: Second,
    slot: Second,
}

/// Slots that were not fired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Because the function still ran, or too many waited.
    pub(crate) skipped: u64,
    /// Because nobody was there at their time. At most 1,000 are counted for each gap.
    pub(crate) missed: u64,
}

/// The state of one job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    id: String,
    ledger: Ledger,
    seen: Second,
    waiting: VecDeque<Waiting>,
    pub(crate) left_out: LeftOut,
}

impl Job {
    /// A job that nobody knew before `now`.
    pub(crate) fn new(id: &str, now: Millis) -> Self {
        let seen = now.div_euclid(1000);
        let mut ledger = Ledger::default();
        ledger.cover(seen - 1, seen);
        Self::restored(id, ledger, seen)
    }

    /// A job as it was written down.
    pub(crate) fn restored(id: &str, ledger: Ledger, cursor: Second) -> Self {
        Self {
            id: id.to_owned(),
            ledger,
            seen: cursor,
            waiting: VecDeque::new(),
            left_out: LeftOut::default(),
        }
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// From where a restored job has to look: before everything that still waits.
    pub(crate) fn cursor(&self) -> Second {
        self.waiting.iter().map(|waiting| waiting.from).min().map_or(self.seen, |from| from.min(self.seen))
    }

    /// Slots that wait for the function to end.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Passes over all that came before: after a pause, or when the schedule has changed.
    pub(crate) fn begin_at(&mut self, now: Millis) {
        self.left_out.skipped += self.waiting.len() as u64;
        for waiting in std::mem::take(&mut self.waiting) {
            self.ledger.cover(waiting.from, waiting.slot);
        }
        self.seen = now.div_euclid(1000);
    }

    /// Looks through the schedule up to `now`; what is due waits then, or is left out. A step back of the clock is noticed.
    pub(crate) fn look(&mut self, bound: &Bound, now: Millis, late_ms_max: u64, running: bool) {
        let config = &bound.config;
        if now.div_euclid(1000) < self.seen {
            self.seen = now.div_euclid(1000);
            return;
        }
        let on_time = self.missed(bound, now, late_ms_max);
        for (from, slot) in self.due_after(bound, now, on_time) {
            if running && config.overlap == Overlap::Skip {
                self.ledger.cover(from, slot);
                self.left_out.skipped += 1;
            } else {
                self.waiting.push_back(Waiting { from, slot });
            }
            self.seen = slot;
        }
        while self.waiting.len() > config.catch_up_max {
            if let Some(Waiting { from, slot }) = self.waiting.pop_front() {
                self.ledger.cover(from, slot);
                self.left_out.skipped += 1;
            }
        }
    }

    /// Deals with the slots that nobody was there for, and tells where those begin that are on time.
    fn missed(&mut self, bound: &Bound, now: Millis, late_ms_max: u64) -> Second {
        let config = &bound.config;
        let late = i64::try_from(late_ms_max.saturating_add(config.jitter_ms)).unwrap_or(i64::MAX);
        let edge = now.saturating_sub(late).div_euclid(1000);
        let Some(first) = self.next_undecided(bound, self.seen).filter(|slot| *slot <= edge) else {
            return self.seen;
        };
        let due_now = self.next_undecided(bound, edge).is_some_and(|slot| self.due(config, slot) <= now);
        let wanted = match config.catch_up {
            CatchUp::None => 0,
            CatchUp::Last => usize::from(!due_now),
            CatchUp::All => config.catch_up_max,
        };
        let newest = self.newest(bound, edge, wanted);
        let mut slot = Some(first);
        let mut passed_over = 0;
        while let Some(missed) = slot.filter(|slot| newest.front().is_none_or(|newest| slot < newest)) {
            if missed > edge || passed_over == COUNTED_MAX {
                break;
            }
            passed_over += 1;
            slot = self.next_undecided(bound, missed);
        }
        self.left_out.missed += passed_over;
        let mut from = if newest.front() == Some(&first) { Some(self.seen) } else { None };
        for slot in newest {
            self.waiting.push_back(Waiting { from: from.unwrap_or(slot - 1), slot });
            from = Some(slot);
        }
        self.seen = edge;
        edge
    }

    /// The newest undecided slots up to `edge`, in order. Looks back in ever longer strides.
    fn newest(&self, bound: &Bound, edge: Second, wanted: usize) -> VecDeque<Second> {
        let mut found = VecDeque::new();
        let mut stride: Second = 60;
        if wanted == 0 {
            return found;
        }
        loop {
            found.clear();
            let mut at = edge.saturating_sub(stride).max(self.seen);
            while let Some(slot) = self.next_undecided(bound, at).filter(|slot| *slot <= edge) {
                if found.len() == wanted {
                    found.pop_front();
                }
                found.push_back(slot);
                at = slot;
            }
            if found.len() == wanted || edge.saturating_sub(stride) <= self.seen {
                return found;
            }
            stride = stride.saturating_mul(2);
        }
    }

    /// Slots after `from` that are due by now, each with where its span begins.
    fn due_after(&self, bound: &Bound, now: Millis, from: Second) -> Vec<(Second, Second)> {
        let mut found = Vec::new();
        let mut at = from;
        while let Some(slot) = self.next_undecided(bound, at) {
            if slot.saturating_mul(1000) > now || self.due(&bound.config, slot) > now {
                break;
            }
            found.push((at, slot));
            at = slot;
        }
        found
    }

    /// Slots to fire now; they are decided by this.
    pub(crate) fn take(&mut self, overlap: Overlap, running: bool) -> Vec<Second> {
        let mut taken = Vec::new();
        while overlap == Overlap::Allow || (!running && taken.is_empty()) {
            let Some(Waiting { from, slot }) = self.waiting.pop_front() else { break };
            if self.ledger.decided(slot).is_none() {
                taken.push(slot);
            }
            self.ledger.cover(from, slot);
        }
        taken
    }

    /// Takes back that slots were taken: they could not be written down, so they wait in front of all others, undecided.
    pub(crate) fn give_back(&mut self, slots: &[Second]) {
        for slot in slots.iter().rev().copied() {
            self.ledger.uncover(slot);
            self.waiting.push_front(Waiting { from: slot - 1, slot });
        }
    }

    /// When to look again, if nothing happens before.
    pub(crate) fn next_due(&self, bound: &Bound) -> Option<Millis> {
        self.next_undecided(bound, self.seen).map(|slot| self.due(&bound.config, slot))
    }

    /// The next slot.
    pub(crate) fn next_slot(&self, bound: &Bound) -> Option<Second> {
        self.next_undecided(bound, self.seen)
    }

    fn next_undecided(&self, bound: &Bound, after: Second) -> Option<Second> {
        let next = |after: Second| {
            let after = Timestamp::from_second(after).ok()?;
            bound.schedule.next_after(after).map(Timestamp::as_second)
        };
        let mut slot = next(after)?;
        while let Some(end) = self.ledger.decided(slot) {
            slot = next(end)?;
        }
        Some(slot)
    }

    /// When a slot's function is called: the slot, and a delay that is always the same for it.
    fn due(&self, config: &JobConfig, slot: Second) -> Millis {
        let delay = match config.jitter_ms {
            0 => 0,
            max => xxh3_64_with_seed(self.id.as_bytes(), slot.cast_unsigned()) % (max + 1),
        };
        slot.saturating_mul(1000).saturating_add(i64::try_from(delay).unwrap_or(0))
    }
}

#[cfg(test)]
#[path = "job/tests.rs"]
mod tests;
