//! What a worker serves: its functions by index, and where each of them runs. Used by [`super`] for every call and by whoever
//! registers. It must not know channels.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Cache};
use ringway_protocol::control::FunctionSpec;
use ringway_protocol::limits::RELAY_INDEX_START;

use crate::function::{Handler, Placement};

/// Runs below this many nanoseconds count as short.
const SHORT_NS: u64 = 20_000;

/// A run above this many nanoseconds sends an adaptive function back to the pool.
const LONG_NS: u64 = 200_000;

/// Short runs in a row after which an adaptive function runs inline.
const SHORT_RUNS: u32 = 8;

/// Inline runs between two that are timed.
const TIMED_EVERY: u32 = 16;

/// A function as it is registered.
pub(crate) struct Registered {
    pub(crate) id: String,
    pub(crate) spec: FunctionSpec,
    pub(crate) handler: Handler,
    placement: Placement,
    short_runs: AtomicU32,
    runs: AtomicU32,
    /// It is being taken back: that its bit is gone does not mean that somebody may not call it.
    pub(crate) leaving: AtomicBool,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Registered {
    pub(crate) fn new(function: crate::Function) -> Self {
        let crate::Function { id, handler, placement, spec } = function;
        let (short_runs, runs, leaving) = Default::default();
        Self { id, spec, handler, placement, short_runs, runs, leaving }
    }

    #[inline]
    pub(super) fn runs_inline(&self) -> bool {
        match self.placement {
            Placement::Inline => true,
            Placement::Pooled => false,
            Placement::Adaptive => self.short_runs.load(Ordering::Relaxed) >= SHORT_RUNS,
        }
    }

    /// Whether a call holds a thread of the pool for as long as its caller likes.
    pub(super) fn streams_on_thread(&self) -> bool {
        matches!(self.handler, Handler::Stream(_))
    }

    pub(super) fn learn(&self, run_ns: u64) {
        if run_ns <= SHORT_NS {
            let runs = self.short_runs.load(Ordering::Relaxed);
            self.short_runs.store((runs + 1).min(SHORT_RUNS), Ordering::Relaxed);
        } else if run_ns > LONG_NS || !self.runs_inline() {
            self.short_runs.store(0, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn is_timed(&self) -> bool {
        self.placement == Placement::Adaptive && {
            let runs = self.runs.load(Ordering::Relaxed).wrapping_add(1);
            self.runs.store(runs, Ordering::Relaxed);
            runs.is_multiple_of(TIMED_EVERY)
        }
    }
}

/// What a worker serves, by index.
#[derive(Debug, Default)]
pub(crate) struct FunctionTable {
    pub(super) slots: Arc<ArcSwap<Slots>>,
    /// What handles every index of functions that this worker only passes on.
    relay: OnceLock<Arc<Registered>>,
}

pub(super) type Slots = Vec<Option<Arc<Registered>>>;

impl FunctionTable {
    /// The table for one thread to read often: a look at it is one load.
    pub(crate) fn reader(&self) -> Cache<Arc<ArcSwap<Slots>>, Arc<Slots>> {
        Cache::new(Arc::clone(&self.slots))
    }

    #[cold]
    pub(super) fn relay(&self, index: u32) -> Option<&Arc<Registered>> {
        if index >= RELAY_INDEX_START { self.relay.get() } else { None }
    }

    /// Sets what handles calls of relayed functions; the first one stays.
    pub(crate) fn relay_with(&self, relay: Arc<Registered>) {
        let _the_first_stays = self.relay.set(relay);
    }

    /// Changes the table; readers see it whole, before or after.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut Slots) -> R) -> R {
        let mut slots = Vec::clone(&self.slots.load());
        let result = change(&mut slots);
        self.slots.store(Arc::new(slots));
        result
    }

    pub(crate) fn registered(&self) -> Vec<Arc<Registered>> {
        self.slots.load().iter().flatten().cloned().collect()
    }
}
