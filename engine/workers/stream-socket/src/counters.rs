//! What the worker counts. It must not know what a number leads to.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What there is, and what was done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Clients now.
    pub clients: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Clients that were not let in: by their origin, by the auth function, or as there were too many.
    pub refused: u64,
    /// Clients that were dropped because they took nothing.
    pub stalled: u64,
    /// Messages of clients that were none.
    pub malformed: u64,
    /// Messages that were sent.
    pub sent: u64,
}

/// The numbers as they change. Each stands for itself, so none orders anything.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) subscriptions: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) stalled: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) sent: AtomicU64,
}

impl Counting {
    pub(crate) fn report(&self, clients: usize) -> Counters {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counters {
            clients: clients as u64,
            subscriptions: read(&self.subscriptions),
            refused: read(&self.refused),
            stalled: read(&self.stalled),
            malformed: read(&self.malformed),
            sent: read(&self.sent),
        }
    }
}

pub(crate) fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn uncount(number: &AtomicU64) {
    number.fetch_sub(1, Ordering::Relaxed);
}
