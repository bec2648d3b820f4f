//! What a handler knows about its call, and what nested calls inherit from it.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use ringway_ipc::clock::now_ns;
use ringway_protocol::baggage::Baggage;
use ringway_protocol::{SpanId, TraceContext, TraceId, WorkerId};
use serde_json::Value;

use crate::meta::Meta;
use crate::worker::Worker;

/// What calls made by this thread, or by this future, inherit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited {
    pub(crate) trace: TraceContext,
    pub(crate) deadline_ns: u64,
    /// The worker whose handler runs here, or 0.
    pub(crate) worker: WorkerId,
}

const NOTHING: Inherited = Inherited { trace: NO_TRACE, deadline_ns: 0, worker: WorkerId::new(0) };

impl Default for Inherited {
    fn default() -> Self {
        NOTHING
    }
}

thread_local! {
    static INHERITED: Cell<Inherited> = const { Cell::new(NOTHING) };
    static BAGGAGE: RefCell<Option<Arc<Baggage>>> = const { RefCell::new(None) };
}

const NO_TRACE: TraceContext = TraceContext { trace_id: TraceId::NONE, span_id: SpanId::NONE, flags: 0 };

#[inline]
pub(crate) fn inherited() -> Inherited {
    INHERITED.get()
}

pub(crate) fn inherited_baggage() -> Option<Arc<Baggage>> {
    BAGGAGE.with_borrow(Clone::clone)
}

/// Makes `trace` the active span of this thread until the guard is dropped.
pub(crate) fn enter_trace(trace: TraceContext) -> Entered {
    enter(Inherited { trace, ..INHERITED.get() }, None)
}

/// Makes a call's context the one that nested calls inherit, until the guard is dropped.
#[inline]
pub(crate) fn enter(inherited: Inherited, baggage: Option<Arc<Baggage>>) -> Entered {
    let before = INHERITED.replace(inherited);
    let baggage_before = baggage.map(|baggage| BAGGAGE.replace(Some(baggage)));
    Entered { before, baggage_before }
}

/// Restores the context of the thread when dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    before: Inherited,
    baggage_before: Option<Option<Arc<Baggage>>>,
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        INHERITED.set(self.before);
        if let Some(baggage) = self.baggage_before.take() {
            BAGGAGE.set(baggage);
        }
    }
}

/// What a handler is told about its call.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) worker: Worker,
    pub(crate) caller: WorkerId,
    pub(crate) inherited: Inherited,
    pub(crate) cancel: Option<CancelToken>,
    pub(crate) meta: Option<Arc<Meta>>,
}

impl Context {
    /// The worker that serves the call, for calling on.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The worker that made the call. Known from the channel it came by, so it cannot be forged.
    #[must_use]
    pub fn caller(&self) -> WorkerId {
        self.caller
    }

    /// The call's own span: parent of whatever the handler does.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        self.inherited.trace
    }

    /// Absolute deadline in nanoseconds of `CLOCK_MONOTONIC`, if the caller set one.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        (self.inherited.deadline_ns != 0).then_some(self.inherited.deadline_ns)
    }

    /// Time left until the deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline_ns().map(|deadline| Duration::from_nanos(deadline.saturating_sub(now_ns())))
    }

    /// Whether the caller has given up. Handlers that run inline are not told: they are meant to be over by then.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(CancelToken::is_cancelled)
    }

    /// The token that is cancelled when the caller gives up.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone().unwrap_or_default()
    }

    /// What the caller sent beside the body.
    #[must_use]
    pub fn metadata(&self) -> Option<&Value> {
        self.meta.as_ref()?.metadata.as_ref()
    }

    /// W3C baggage of the call.
    #[must_use]
    pub fn baggage(&self) -> Option<&Baggage> {
        self.meta.as_ref()?.baggage.as_ref()
    }

    pub(crate) fn enter(&self) -> Entered {
        let baggage = self.baggage().map(|baggage| Arc::new(baggage.clone()));
        enter(self.inherited, baggage)
    }
}

/// Tells a handler that its caller has given up.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl CancelToken {
    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Acquire)
    }

    /// Waits until it is cancelled.
    pub async fn cancelled(&self) {
        std::future::poll_fn(|cx| {
            if self.is_cancelled() {
                return Poll::Ready(());
            }
            let mut wakers = self.shared.wakers.lock();
            // Polled many times before that, it is to be woken once.
            if !wakers.iter().any(|known| known.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            drop(wakers);
            // Cancelled between the look and the registration: the waker may have been missed.
            if self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(crate) fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Release);
        for waker in std::mem::take(&mut *self.shared.wakers.lock()) {
            waker.wake();
        }
    }
}
