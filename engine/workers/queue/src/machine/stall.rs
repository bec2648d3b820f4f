//! A store that takes nothing: a full disk, too much that waits, a failure. How a message ended could not be written down, so
//! that nothing is started; what has ended meanwhile is kept, and once a second one write shows whether the store takes some
//! again. The first commit that succeeds, whoever made it, ends it. Used by the machine; it must not know what a store is.

use std::collections::VecDeque;

use super::{Machine, Pending, Ticket};
use crate::record::{self, Writes};

/// How long until a write shows whether the store takes some again, in milliseconds.
const AGAIN_MS: u64 = 1000;

/// What is known of the store.
#[derive(Debug, Default)]
pub(super) struct Stall {
    stalled: bool,
    /// When to look.
    probe_ms: Option<u64>,
    /// What is to be written, in the order in which it was refused.
    kept: VecDeque<(Ticket, Pending)>,
}

impl Stall {
    pub(super) fn is(&self) -> bool {
        self.stalled
    }

    pub(super) fn alarm(&self) -> Option<u64> {
        self.probe_ms
    }

    pub(super) fn keep(&mut self, ticket: Ticket, pending: Pending) {
        self.kept.push_back((ticket, pending));
    }
}

impl Machine {
    /// Whether the store takes nothing.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stall.stalled
    }

    pub(super) fn store_refuses(&mut self, now_ms: u64) {
        self.stall.stalled = true;
        self.stall.probe_ms.get_or_insert_with(|| now_ms.saturating_add(AGAIN_MS));
    }

    pub(super) fn store_works(&mut self, now_ms: u64) {
        if !self.stall.stalled {
            return;
        }
        self.stall.stalled = false;
        self.stall.probe_ms = None;
        for (ticket, pending) in std::mem::take(&mut self.stall.kept) {
            self.write_again(ticket, pending);
        }
        self.start_all(now_ms);
    }

    /// Looks whether the store works again, if it is time.
    pub(super) fn probe(&mut self, now_ms: u64) {
        if self.stall.probe_ms.is_none_or(|at| at > now_ms) {
            return;
        }
        self.stall.probe_ms = None;
        match self.stall.kept.pop_front() {
            Some((ticket, pending)) => self.write_again(ticket, pending),
            None => {
                let mut writes = Writes::default();
                writes.put(record::META, record::PROBE.to_vec(), &now_ms);
                self.commit(Pending::Note, writes);
            }
        }
    }

    fn write_again(&mut self, ticket: Ticket, mut pending: Pending) {
        if let Pending::Kept { writes, .. } = &mut pending {
            // What was changed once more since has a commit of its own.
            writes.changes.retain(|change| self.kept.get(&change.place()) == Some(&ticket));
        }
        if let Pending::End { writes, .. } | Pending::Kept { writes, .. } = &pending {
            let writes = writes.clone();
            self.commit(pending, writes);
        }
    }
}
