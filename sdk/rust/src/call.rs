//! Making calls: picking a replica, publishing, waiting, trying elsewhere, and the caller's span.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use ringway_ipc::clock::now_ns;
use ringway_ipc::frame::Header;
use ringway_protocol::baggage::Baggage;
use ringway_protocol::control::CatalogFunction;
use ringway_protocol::header::{Encoding, Flags, Kind};
use ringway_protocol::telemetry::{FunctionRef, SpanKind, SpanName, SpanRecord, SpanStart};
use ringway_protocol::{CallError, ErrorCode, InvocationId, SpanId, Started, TraceContext, WorkerId};
use serde_json::Value;

use crate::callee::span_to_u64;
use crate::caller::CallerChannel;
use crate::context::{self, Inherited};
use crate::control::TimerId;
use crate::message::Message;
use crate::meta::Meta;
use crate::pending::Outcome;
use crate::routes::{Route, Target};
use crate::stream::Inbox;
use crate::wire::{self, Received};
use crate::worker::Inner;

/// A call that runs longer than this shows up as a live span.
const LIVE_AFTER_NS: u64 = 10_000_000;

/// How often a call is tried on another replica, or with a fresh route, before its error is final.
const ATTEMPTS_MAX: usize = 8;

/// How a call is made: its time, and what travels beside its body.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    timeout: Option<Duration>,
    deadline_ns: Option<u64>,
    idempotent: bool,
    meta: Meta,
}

impl CallOptions {
    /// The worker's default timeout, nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The reply must come within this time. The callee sees the deadline, and nested calls inherit it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The reply must come before this moment, in nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn deadline_ns(mut self, deadline_ns: u64) -> Self {
        self.deadline_ns = Some(deadline_ns);
        self
    }

    /// JSON that the handler reads with [`crate::Context::metadata`].
    #[must_use]
    pub fn metadata(mut self, value: Value) -> Self {
        self.meta.metadata = Some(value);
        self
    }

    /// W3C baggage; nested calls inherit it.
    #[must_use]
    pub fn baggage(mut self, baggage: Baggage) -> Self {
        self.meta.baggage = Some(baggage);
        self
    }

    /// W3C trace state, passed on as it is.
    #[must_use]
    pub fn trace_state(mut self, state: impl Into<String>) -> Self {
        self.meta.trace_state = Some(state.into());
        self
    }

    /// Repeating this call does no harm: if its worker dies while it may be running, another replica is tried.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

/// What a call carries from attempt to attempt.
struct Plan<'a> {
    inner: &'a Arc<Inner>,
    route: &'a Route,
    header: Header,
    options: &'a CallOptions,
    meta: Option<Meta>,
    /// When waiting ends: the caller's deadline or the default timeout; 0 for never.
    wait_until_ns: u64,
    span: Option<ClientSpan>,
}

#[derive(Debug, Clone, Copy)]
struct ClientSpan {
    trace: TraceContext,
    parent: SpanId,
    start_ns: u64,
    bytes_out: u64,
}

impl<'a> Plan<'a> {
    #[inline]
    fn new(
        inner: &'a Arc<Inner>,
        route: &'a Route,
        kind: Kind,
        message: &Message,
        options: &'a CallOptions,
    ) -> Self {
        let inherited = context::inherited();
        let mut header = Header { kind: kind.to_u8(), ..Header::default() };
        if options.idempotent {
            header.flags |= Flags::IDEMPOTENT.bits();
        }
        let mut wait_until_ns = 0;
        if let Some(deadline) = explicit_deadline(options, &inherited) {
            header.deadline_ns = deadline;
            wait_until_ns = deadline;
        }
        let span = start_span(inner, &inherited, &mut header, message);
        let inherits_baggage = options.meta.baggage.is_none();
        let baggage = if inherits_baggage { context::inherited_baggage() } else { None };
        let meta =
            baggage.map(|baggage| Meta { baggage: Some(Baggage::clone(&baggage)), ..options.meta.clone() });
        Self { inner, route, header, options, meta, wait_until_ns, span }
    }

    fn meta(&self) -> &Meta {
        self.meta.as_ref().unwrap_or(&self.options.meta)
    }

    /// Until when to wait; reads the clock only where the default timeout has to be turned into a moment.
    fn patience_ns(&mut self) -> u64 {
        if self.wait_until_ns == 0
            && let Some(timeout) = self.inner.default_timeout
        {
            self.wait_until_ns = now_ns().saturating_add(nanos(timeout));
        }
        self.wait_until_ns
    }

    /// Publishes the call on a replica. On `Err` nothing was started.
    #[inline]
    fn publish(
        &mut self,
        target: &Target,
        caller: &CallerChannel,
        message: &Message,
        inbox: Option<&Arc<Inbox>>,
    ) -> Result<InvocationId, CallError> {
        self.header.function = target.function.index;
        self.header.function_generation = target.function.generation;
        let invocation = caller.open().map_err(not_started)?;
        self.header.invocation = invocation.to_u64();
        if let Some(inbox) = inbox {
            caller.set_stream(invocation, Arc::clone(inbox));
        }
        self.send(caller, invocation, message).map_err(not_started)?;
        Ok(invocation)
    }

    #[inline]
    fn send(
        &mut self,
        caller: &CallerChannel,
        invocation: InvocationId,
        message: &Message,
    ) -> Result<(), CallError> {
        if self.meta().is_empty()
            && let Some((inline, len)) = wire::inline_of(message)
        {
            self.header.inline_len = len;
            self.header.encoding = message.encoding.to_u8();
            return caller.publish(invocation, &self.header, inline, Vec::new(), self.wait_until_ns);
        }
        self.send_slowly(caller, invocation, message)
    }

    #[cold]
    fn send_slowly(
        &mut self,
        caller: &CallerChannel,
        invocation: InvocationId,
        message: &Message,
    ) -> Result<(), CallError> {
        let mut header = self.header;
        match wire::compose(&caller.channel, &self.inner.arena, &mut header, message.clone(), self.meta()) {
            Ok((inline, leases)) => caller.publish(invocation, &header, &inline, leases, self.wait_until_ns),
            Err(error) => {
                caller.end_open(invocation);
                Err(error)
            }
        }
    }

    fn record(&self, target: FunctionRef, outcome: &Outcome) {
        if let Some(span) = &self.span {
            record_span(self.inner, span, target, outcome);
        }
    }
}

/// What was not published was not started, and may be tried elsewhere.
#[cold]
fn not_started(mut error: CallError) -> CallError {
    if error.code == ErrorCode::WorkerGone {
        error.started = Some(Started::No);
    }
    error
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The moment that a call with these options must end at, if it names one or inherits one.
pub(crate) fn deadline_of(options: &CallOptions) -> Option<u64> {
    explicit_deadline(options, &context::inherited())
}

#[inline]
fn explicit_deadline(options: &CallOptions, inherited: &Inherited) -> Option<u64> {
    let by_timeout = options.timeout.map(|timeout| now_ns().saturating_add(nanos(timeout)));
    let inherited = (inherited.deadline_ns != 0).then_some(inherited.deadline_ns);
    [by_timeout, options.deadline_ns, inherited].into_iter().flatten().min()
}

#[inline]
fn start_span(
    inner: &Inner,
    inherited: &Inherited,
    header: &mut Header,
    message: &Message,
) -> Option<ClientSpan> {
    let parent = inherited.trace;
    let trace = if parent.trace_id.is_none() {
        inner.sampler.root()?
    } else if parent.is_sampled() && inner.sampler.records_children() {
        parent.child(inner.sampler.span_id())
    } else {
        parent
    };
    header.trace_id = trace.trace_id.to_bytes();
    header.span_id = span_to_u64(trace.span_id);
    header.trace_flags = trace.flags;
    (trace.is_sampled() && trace.span_id != parent.span_id).then(|| ClientSpan {
        trace,
        parent: parent.span_id,
        start_ns: now_ns(),
        bytes_out: message.total_bytes(),
    })
}

#[inline]
fn record_span(inner: &Inner, span: &ClientSpan, target: FunctionRef, outcome: &Outcome) {
    let (status, bytes_in) = match outcome {
        Ok(received) => (ringway_protocol::error::STATUS_OK, received.total_bytes()),
        Err(error) => (error.code.status(), 0),
    };
    inner.telemetry.span(&SpanRecord {
        trace_id: span.trace.trace_id,
        span_id: span.trace.span_id,
        parent_id: span.parent,
        start_ns: span.start_ns,
        end_ns: now_ns(),
        kind: SpanKind::Client,
        status,
        function: target,
        peer: target.worker,
        woke_ns: 0,
        bytes_in,
        bytes_out: span.bytes_out,
        flags: 0,
        name: SpanName::EMPTY,
    });
}

fn reference(function: &CatalogFunction) -> FunctionRef {
    FunctionRef { worker: function.worker, index: function.index }
}

/// Calls and waits. The message is built for the replica that was picked, whose encodings may differ from another's.
#[inline]
pub(crate) fn call(
    inner: &Arc<Inner>,
    route: &Route,
    options: &CallOptions,
    build: &dyn Fn(&Target) -> Result<Message, CallError>,
) -> Outcome {
    let targets = route.targets.load();
    if let [target] = &targets[..]
        && let Some(caller) = &*target.link.caller.load()
    {
        // The quick way: one replica with an open channel.
        let message = build(target)?;
        let mut plan = Plan::new(inner, route, Kind::Call, &message, options);
        let outcome = match plan.publish(target, caller, &message, None) {
            Ok(invocation) => {
                let wait_until_ns = plan.wait_until_ns;
                match caller.wait_quickly(invocation, &route.expected) {
                    Some(outcome) => outcome,
                    None => {
                        let until = if wait_until_ns == 0 { plan.patience_ns() } else { wait_until_ns };
                        wait_showing(&plan, caller, invocation, reference(&target.function), until)
                    }
                }
            }
            Err(error) => Err(error),
        };
        if let Some(avoid) = retry_on(&outcome, options, &target.function) {
            return call_slowly(plan, build, avoid, outcome);
        }
        plan.record(reference(&target.function), &outcome);
        return outcome;
    }
    drop(targets);
    let plan = Plan::new(inner, route, Kind::Call, &Message::empty(), options);
    let not_found = Err(CallError::function_not_found(&route.id));
    call_slowly(plan, build, None, not_found)
}

/// Waits; a traced call that takes long is shown as a live span meanwhile.
#[cold]
fn wait_showing(
    plan: &Plan<'_>,
    caller: &CallerChannel,
    invocation: InvocationId,
    target: FunctionRef,
    until: u64,
) -> Outcome {
    let Some(span) = &plan.span else { return caller.wait(invocation, &plan.route.expected, until) };
    let soon = now_ns() + LIVE_AFTER_NS;
    if until != 0 && until <= soon {
        return caller.wait(invocation, &plan.route.expected, until);
    }
    if let Some(outcome) = caller.wait_a_while(invocation, &plan.route.expected, soon) {
        return outcome;
    }
    plan.inner.telemetry.span_start(&SpanStart {
        trace_id: span.trace.trace_id,
        span_id: span.trace.span_id,
        parent_id: span.parent,
        start_ns: span.start_ns,
        kind: SpanKind::Client,
        function: target,
        peer: target.worker,
        name: SpanName::EMPTY,
    });
    caller.wait(invocation, &plan.route.expected, until)
}

/// Whether an outcome is worth another attempt, and which worker to avoid then.
#[inline]
#[expect(clippy::option_option, reason = "no retry; retry anywhere; retry elsewhere")]
fn retry_on(
    outcome: &Outcome,
    options: &CallOptions,
    function: &CatalogFunction,
) -> Option<Option<WorkerId>> {
    let Err(error) = outcome else { return None };
    retry_error(error, options.idempotent || function.idempotent, function.worker)
}

#[cold]
#[expect(clippy::option_option, reason = "no retry; retry anywhere; retry elsewhere")]
fn retry_error(error: &CallError, idempotent: bool, worker: WorkerId) -> Option<Option<WorkerId>> {
    match (error.code, error.started) {
        (ErrorCode::WorkerGone, Some(Started::No)) | (ErrorCode::Draining, None) => Some(Some(worker)),
        (ErrorCode::WorkerGone, Some(Started::Maybe)) if idempotent => Some(Some(worker)),
        (ErrorCode::StaleHandle, None) => Some(None),
        _ => None,
    }
}

#[cold]
fn call_slowly(
    mut plan: Plan<'_>,
    build: &dyn Fn(&Target) -> Result<Message, CallError>,
    mut avoid: Option<WorkerId>,
    mut last: Outcome,
) -> Outcome {
    let until = plan.patience_ns();
    let mut target_ref = FunctionRef::NONE;
    for attempt in 0..ATTEMPTS_MAX {
        let version = plan.inner.routes.version();
        let targets = plan.route.targets.load_full();
        let Some(at) = Route::pick(&targets, plan.route.turn(), avoid) else {
            if attempt == 0 && avoid.is_none() {
                last = Err(CallError::function_not_found(&plan.route.id));
            }
            break;
        };
        let target = &targets[at];
        target_ref = reference(&target.function);
        let caller = match plan.inner.channel_to(&target.link, until) {
            Ok(caller) => caller,
            Err(error) => {
                let retry = retry_error(&error, true, target.function.worker);
                last = Err(error);
                match retry {
                    Some(elsewhere) => avoid = elsewhere,
                    None => break,
                }
                continue;
            }
        };
        let message = match build(target) {
            Ok(message) => message,
            Err(error) => {
                last = Err(error);
                break;
            }
        };
        if let Some(span) = &mut plan.span {
            span.bytes_out = message.total_bytes();
        }
        last = match plan.publish(target, &caller, &message, None) {
            Ok(invocation) => wait_showing(&plan, &caller, invocation, target_ref, until),
            Err(error) => Err(error),
        };
        match retry_on(&last, plan.options, &target.function) {
            Some(elsewhere) => avoid = elsewhere,
            None => break,
        }
        if avoid.is_none() {
            // A stale handle: the news is on its way.
            let soon = now_ns() + 100_000_000;
            plan.inner.routes.wait_for(soon.min(until), || plan.inner.routes.version() != version);
        }
    }
    plan.record(target_ref, &last);
    last
}

/// Sends without waiting for anything.
pub(crate) fn send(
    inner: &Arc<Inner>,
    route: &Route,
    options: &CallOptions,
    build: &dyn Fn(&Target) -> Result<Message, CallError>,
) -> Result<(), CallError> {
    let mut avoid = None;
    let mut last = CallError::function_not_found(&route.id);
    for _ in 0..ATTEMPTS_MAX {
        let targets = route.targets.load_full();
        let Some(at) = Route::pick(&targets, route.turn(), avoid) else { break };
        let target = &targets[at];
        let message = build(target)?;
        let mut plan = Plan::new(inner, route, Kind::Send, &message, options);
        plan.header.flags |= Flags::NO_REPLY.bits();
        plan.header.function = target.function.index;
        plan.header.function_generation = target.function.generation;
        let until = plan.patience_ns();
        let sent = inner.channel_to(&target.link, until).and_then(|caller| {
            let mut header = plan.header;
            let (inline, leases) =
                wire::compose(&caller.channel, &inner.arena, &mut header, message, plan.meta())?;
            caller
                .publish_more(&header, &inline, until)
                .inspect_err(|_| wire::end_leases(&caller.channel, &leases))
        });
        match sent.map_err(not_started) {
            Ok(()) => {
                let empty = Received { header: Header::default(), inline: Default::default(), blocks: None };
                plan.record(reference(&target.function), &Ok(empty));
                return Ok(());
            }
            Err(error) => {
                let retry = retry_error(&error, true, target.function.worker);
                last = error;
                match retry {
                    Some(elsewhere) => avoid = elsewhere,
                    None => break,
                }
            }
        }
    }
    Err(last)
}

/// A call in flight. Dropping it before its end gives it up, and its handler is told.
#[derive(Debug)]
pub struct Pending {
    pub(crate) inner: Arc<Inner>,
    pub(crate) route: Arc<Route>,
    caller: Arc<CallerChannel>,
    pub(crate) invocation: InvocationId,
    target: FunctionRef,
    wait_until_ns: u64,
    span: Option<ClientSpan>,
    state: Watching,
    timer: Option<TimerId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watching {
    Fresh,
    ByTask,
    Over,
}

/// Starts a call without waiting for it.
pub(crate) fn start(
    inner: &Arc<Inner>,
    route: &Arc<Route>,
    options: &CallOptions,
    inbox: Option<&Arc<Inbox>>,
    build: &dyn Fn(&Target) -> Result<Message, CallError>,
) -> Result<Pending, CallError> {
    let mut avoid = None;
    let mut last = CallError::function_not_found(&route.id);
    for _ in 0..ATTEMPTS_MAX {
        let targets = route.targets.load();
        let Some(at) = Route::pick(&targets, route.turn(), avoid) else { break };
        let target = &targets[at];
        let message = build(target)?;
        let mut plan = Plan::new(inner, route, Kind::Call, &message, options);
        let caller = match target.link.caller.load_full() {
            Some(caller) => Ok(caller),
            None => inner.channel_to(&target.link, plan.patience_ns()),
        };
        let started = caller.and_then(|caller| {
            plan.publish(target, &caller, &message, inbox).map(|invocation| (caller, invocation))
        });
        match started {
            Ok((caller, invocation)) => {
                return Ok(Pending {
                    inner: Arc::clone(inner),
                    route: Arc::clone(route),
                    caller,
                    invocation,
                    target: reference(&target.function),
                    wait_until_ns: plan.wait_until_ns,
                    span: plan.span,
                    state: Watching::Fresh,
                    timer: None,
                });
            }
            Err(error) => {
                let retry = retry_error(&error, true, target.function.worker);
                last = error;
                match retry {
                    Some(elsewhere) => avoid = elsewhere,
                    None => break,
                }
            }
        }
    }
    Err(last)
}

impl Pending {
    /// Waits for the outcome.
    #[inline]
    pub(crate) fn wait_received(mut self) -> Outcome {
        let outcome = match self.caller.wait_quickly(self.invocation, &self.route.expected) {
            Some(outcome) => outcome,
            None => {
                let until = self.until();
                self.caller.wait(self.invocation, &self.route.expected, until)
            }
        };
        self.over(&outcome);
        outcome
    }

    /// Waits for the reply.
    ///
    /// # Errors
    /// How the call ended otherwise.
    pub fn wait(self) -> Result<Message, CallError> {
        let route = Arc::clone(&self.route);
        named(self.wait_received(), &route).map(Received::into_message)
    }

    fn until(&self) -> u64 {
        match (self.wait_until_ns, self.inner.default_timeout) {
            (0, Some(timeout)) => now_ns().saturating_add(nanos(timeout)),
            (until, _) => until,
        }
    }

    #[inline]
    fn over(&mut self, outcome: &Outcome) {
        if self.state == Watching::ByTask {
            self.caller.task_left();
        }
        self.state = Watching::Over;
        if let Some(timer) = self.timer.take() {
            self.inner.cancel_timer(timer);
        }
        if let Some(span) = &self.span {
            record_span(&self.inner, span, self.target, outcome);
        }
    }

    pub(crate) fn poll_received(&mut self, cx: &mut TaskContext<'_>) -> Poll<Outcome> {
        if self.state == Watching::Over {
            return Poll::Ready(Err(CallError::new(ErrorCode::Cancelled, "the call was over before")));
        }
        if let Some(outcome) = self.caller.glance(self.invocation, &self.route.expected) {
            self.over(&outcome);
            return Poll::Ready(outcome);
        }
        let first = self.state == Watching::Fresh;
        if first {
            self.state = Watching::ByTask;
            self.wait_until_ns = self.until();
        }
        self.caller.watch_by_task(self.invocation, cx.waker(), first);
        if let Some(outcome) = self.caller.poll_outcome(self.invocation) {
            self.over(&outcome);
            return Poll::Ready(outcome);
        }
        if self.wait_until_ns != 0 {
            if now_ns() >= self.wait_until_ns {
                self.caller.abandon(self.invocation);
                let text =
                    "no reply in the time allowed; allow more, or look where it went with `ringway traces`";
                let outcome = Err(CallError::new(ErrorCode::DeadlineExceeded, text));
                self.over(&outcome);
                return Poll::Ready(outcome);
            }
            if self.timer.is_none() {
                self.timer = self.inner.schedule_wake(self.wait_until_ns, cx.waker().clone());
            }
        }
        Poll::Pending
    }

    /// Keeps reading the ring until `done` holds, for streams.
    pub(crate) fn caller(&self) -> &Arc<CallerChannel> {
        &self.caller
    }
}

impl Future for Pending {
    type Output = Result<Message, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        self.poll_received(cx).map(|outcome| named(outcome, &self.route).map(Received::into_message))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.state != Watching::Over {
            self.caller.abandon(self.invocation);
            let outcome = Err(CallError::new(ErrorCode::Cancelled, "given up by the caller"));
            self.over(&outcome);
        }
    }
}

/// Names the function in an error.
pub(crate) fn named(outcome: Outcome, route: &Route) -> Outcome {
    outcome.map_err(|error| error.with_function(route.id.as_str()))
}

/// Whether a callee takes archived bytes of these types.
#[inline]
pub(crate) fn takes_archive(target: &Target, type_key: &str) -> bool {
    target.function.type_key.as_deref() == Some(type_key)
        && target.function.encodings.contains(&Encoding::Rkyv)
}
