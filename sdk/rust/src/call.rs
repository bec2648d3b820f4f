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
use ringway_protocol::{CallError, ErrorCode, InvocationId, SpanId, Started, TraceContext, WorkerId, naming};
use serde_json::{Value, json};

use crate::callee::span_to_u64;
use crate::caller::{CallerChannel, Ended, kept};
use crate::context::{self, Inherited};
use crate::control::TimerId;
use crate::function::ArchiveKey;
use crate::message::{Body, Message};
use crate::meta::Meta;
use crate::pending::Outcome;
use crate::routes::{Route, Target};
use crate::stream::Inbox;
use crate::wire::{self, Received};
use crate::worker::{Inner, open_caller};

/// A call that runs longer than this shows up as a live span.
const LIVE_AFTER_NS: u64 = 10_000_000;

/// How long the engine may take to say whether it knows a function.
const ASK_ENGINE_MAX: Duration = Duration::from_millis(50);

/// How long the news of a function that the engine knows may be on its way. The engine gathers for 5 ms; much longer would
/// delay the error where it has only not noticed yet that the worker has died.
const GATHERED_NEWS_MAX_NS: u64 = 20_000_000;

/// How often a call is tried on another replica, or with a fresh route, before its error is final.
const ATTEMPTS_MAX: usize = 8;

/// How long the news of a function that was registered anew may take to come here.
const NEWS_MAX_NS: u64 = 100_000_000;

/// How often a task looks whether they have.
const NEWS_EVERY_NS: u64 = 1_000_000;

/// How a call is made: its time, and what travels beside its body.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    timeout: Option<Duration>,
    deadline_ns: Option<u64>,
    idempotent: bool,
    parent: Option<TraceContext>,
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

    /// Whether [`CallOptions::metadata`] was given.
    #[must_use]
    pub fn has_metadata(&self) -> bool {
        self.meta.metadata.is_some()
    }

    /// W3C baggage; nested calls inherit it.
    #[must_use]
    pub fn baggage(mut self, baggage: Baggage) -> Self {
        self.meta.baggage = Some(baggage);
        self
    }

    /// The span that the call belongs under, in place of the one that is active on this thread: for work that was put
    /// aside and is taken up again, as a queue does. All zeros begin a trace.
    #[must_use]
    pub fn parent(mut self, parent: TraceContext) -> Self {
        self.parent = Some(parent);
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

/// What a call says. It is built for the replica that was picked, whose encodings may differ from another's.
pub(crate) trait Request {
    /// The message, in `place` or wherever it is already. `place` is empty.
    fn message<'m>(&'m self, target: &Target, place: &'m mut Message) -> Result<&'m Message, Box<CallError>>;

    /// What names the layout of its types, for a request that may be archived.
    fn archive_key(&self) -> Option<ArchiveKey> {
        None
    }
}

impl Request for Message {
    #[inline]
    fn message<'m>(&'m self, _: &Target, _: &'m mut Message) -> Result<&'m Message, Box<CallError>> {
        Ok(self)
    }
}

/// What a call carries from attempt to attempt.
pub(crate) struct Plan<'a> {
    inner: &'a Arc<Inner>,
    options: &'a CallOptions,
    header: Header,
    meta: Option<Meta>,
    /// When waiting ends: the caller's deadline or the default timeout; 0 for not known yet, or never.
    pub(crate) wait_until_ns: u64,
    pub(crate) span: Option<ClientSpan>,
}

/// The caller's span of a call that is recorded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientSpan {
    trace: TraceContext,
    parent: SpanId,
    start_ns: u64,
    bytes_out: u64,
}

impl<'a> Plan<'a> {
    #[inline]
    pub(crate) fn new(inner: &'a Arc<Inner>, kind: Kind, options: &'a CallOptions) -> Self {
        let mut inherited = context::inherited();
        if let Some(parent) = options.parent {
            inherited.trace = parent;
        }
        let mut header = Header { kind: kind.to_u8(), ..Header::default() };
        if options.idempotent {
            header.flags |= Flags::IDEMPOTENT.bits();
        }
        let mut wait_until_ns = 0;
        if let Some(deadline) = explicit_deadline(options, &inherited) {
            header.deadline_ns = deadline;
            wait_until_ns = deadline;
        }
        let span = start_span(inner, &inherited, &mut header);
        let inherits_baggage = options.meta.baggage.is_none();
        let baggage = if inherits_baggage { context::inherited_baggage() } else { None };
        let meta =
            baggage.map(|baggage| Meta { baggage: Some(Baggage::clone(&baggage)), ..options.meta.clone() });
        Self { inner, options, header, meta, wait_until_ns, span }
    }

    fn meta(&self) -> &Meta {
        self.meta.as_ref().unwrap_or(&self.options.meta)
    }

    /// Publishes the call on a replica. On `Err` nothing was started.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        target: &Target,
        caller: &CallerChannel,
        message: &Message,
        inbox: Option<&Arc<Inbox>>,
    ) -> Result<InvocationId, CallError> {
        self.address(target, message);
        let invocation = caller.open().map_err(not_started)?;
        self.header.invocation = invocation.to_u64();
        if let Some(inbox) = inbox {
            self.header.flags |= Flags::MORE.bits();
            caller.set_stream(invocation, Arc::clone(inbox));
        }
        self.send(caller, invocation, message).map_err(not_started)?;
        Ok(invocation)
    }

    #[inline]
    fn address(&mut self, target: &Target, message: &Message) {
        self.header.function = target.function.index;
        self.header.function_generation = target.function.generation;
        if let Some(span) = &mut self.span {
            span.bytes_out = message.total_bytes();
        }
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
            let (inner, until) = (self.inner, self.wait_until_ns);
            let patience = || patience_ns(inner, until);
            return caller.publish(invocation, &self.header, inline, wire::Leases::new(), patience);
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
        match wire::compose(&caller.channel, &caller.memory, &mut header, message, self.meta()) {
            Ok((inline, leases)) => {
                let patience = || patience_ns(self.inner, self.wait_until_ns);
                caller.publish(invocation, &header, &inline, leases, patience)
            }
            Err(error) => {
                caller.end_open(invocation);
                Err(error)
            }
        }
    }

    fn record(&self, target: FunctionRef, ended: &Ended, reply: &Received) {
        if let Some(span) = &self.span {
            span.record(self.inner, target, ended, reply);
        }
    }
}

/// When waiting ends; reads the clock only where the default timeout has to be turned into a moment.
#[inline]
pub(crate) fn patience_ns(inner: &Inner, wait_until_ns: u64) -> u64 {
    if wait_until_ns == 0 { inner.patience_ns() } else { wait_until_ns }
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
pub(crate) fn start_span(inner: &Inner, inherited: &Inherited, header: &mut Header) -> Option<ClientSpan> {
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
        bytes_out: 0,
    })
}

impl ClientSpan {
    /// Closes the span of a call that ended so; `reply` is only looked at where one came.
    #[inline]
    pub(crate) fn record(&self, inner: &Inner, target: FunctionRef, ended: &Ended, reply: &Received) {
        let (status, bytes_in) = match ended {
            Ok(()) => (ringway_protocol::error::STATUS_OK, reply.total_bytes()),
            Err(error) => (error.code.status(), 0),
        };
        self.record_bytes(inner, target, status, bytes_in);
    }

    /// The span of a call with so many bytes.
    pub(crate) fn of_bytes(self, bytes_out: u64) -> Self {
        Self { bytes_out, ..self }
    }

    /// Closes the span of a call that ended with this status, and a reply of so many bytes.
    #[inline]
    pub(crate) fn record_bytes(&self, inner: &Inner, target: FunctionRef, status: u32, bytes_in: u64) {
        inner.telemetry.span(&SpanRecord {
            trace_id: self.trace.trace_id,
            span_id: self.trace.span_id,
            parent_id: self.parent,
            start_ns: self.start_ns,
            end_ns: now_ns(),
            kind: SpanKind::Client,
            status,
            function: target,
            peer: target.worker,
            woke_ns: 0,
            bytes_in,
            bytes_out: self.bytes_out,
            flags: 0,
            name: SpanName::EMPTY,
        });
    }
}

pub(crate) fn reference(function: &CatalogFunction) -> FunctionRef {
    FunctionRef { worker: function.worker, index: function.index }
}

/// Calls and waits; the reply is put into `reply`.
#[inline]
pub(crate) fn call<R: Request>(
    inner: &Arc<Inner>,
    route: &Route,
    options: &CallOptions,
    request: &R,
    reply: &mut Received,
) -> Ended {
    let Some(sole) = route.sole() else {
        let plan = Plan::new(inner, Kind::Call, options);
        return call_slowly(plan, route, request, None, CallError::function_not_found(&route.id), reply);
    };
    // The quick way: one replica with an open channel.
    let (target, caller) = (sole.target(), &*sole.caller);
    let mut place = Message::empty();
    let message = request.message(target, &mut place)?;
    let mut plan = Plan::new(inner, Kind::Call, options);
    let error = match plan.publish(target, caller, message, None) {
        Ok(invocation) => match caller.wait_quickly(invocation, &route.expected, reply) {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error),
            None => {
                let target = reference(&target.function);
                kept(wait_showing(&plan, route, caller, invocation, target), reply).err()
            }
        },
        Err(error) => Some(Box::new(error)),
    };
    let ended = match error {
        None => Ok(()),
        Some(error) => match retry_on(&error, is_idempotent(options, target), target.function.worker) {
            // What failed is not remembered.
            Some(avoid) => return call_slowly(plan, route, request, avoid, *error, reply),
            None => Err(error),
        },
    };
    plan.record(reference(&target.function), &ended, reply);
    route.keep_sole(sole);
    ended
}

/// Waits; a traced call that takes long is shown as a live span meanwhile.
#[cold]
fn wait_showing(
    plan: &Plan<'_>,
    route: &Route,
    caller: &CallerChannel,
    invocation: InvocationId,
    target: FunctionRef,
) -> Outcome {
    let until = patience_ns(plan.inner, plan.wait_until_ns);
    let Some(span) = &plan.span else { return caller.wait(invocation, &route.expected, until) };
    let soon = now_ns() + LIVE_AFTER_NS;
    if until != 0 && until <= soon {
        return caller.wait(invocation, &route.expected, until);
    }
    if let Some(outcome) = caller.wait_a_while(invocation, &route.expected, soon) {
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
    caller.wait(invocation, &route.expected, until)
}

/// Whether an error is worth another attempt, and which worker to avoid then.
#[cold]
#[expect(clippy::option_option, reason = "no retry; retry anywhere; retry elsewhere")]
fn retry_on(error: &CallError, idempotent: bool, worker: WorkerId) -> Option<Option<WorkerId>> {
    match (error.code, error.started) {
        (ErrorCode::WorkerGone, Some(Started::No)) | (ErrorCode::Draining, None) => Some(Some(worker)),
        (ErrorCode::WorkerGone, Some(Started::Maybe)) if idempotent => Some(Some(worker)),
        (ErrorCode::StaleHandle, None) => Some(None),
        _ => None,
    }
}

fn is_idempotent(options: &CallOptions, target: &Target) -> bool {
    options.idempotent || target.function.idempotent
}

/// A call's way from replica to replica until an attempt succeeds, or fails in a way that another would not mend.
struct Attempts<'a> {
    inner: &'a Arc<Inner>,
    route: &'a Route,
    options: &'a CallOptions,
    /// The worker that failed last, and the error so far.
    avoid: Option<WorkerId>,
    last: CallError,
    wait_until_ns: u64,
    /// The engine has been asked for a function that the catalog does not have.
    asked: bool,
}

impl<'a> Attempts<'a> {
    fn new(inner: &'a Arc<Inner>, route: &'a Route, options: &'a CallOptions, wait_until_ns: u64) -> Self {
        let last = CallError::function_not_found(&route.id);
        Self { inner, route, options, avoid: None, last, wait_until_ns, asked: false }
    }

    fn run<T>(
        mut self,
        mut attempt: impl FnMut(&Target, &Arc<CallerChannel>) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        for _ in 0..ATTEMPTS_MAX {
            let version = self.inner.routes.version();
            let targets = self.route.targets.load_full();
            let Some(at) = Route::pick(&targets, self.route.turn(), self.avoid) else {
                // Only for what was never heard of: where a replica has died, its error stands.
                let unheard_of = self.last.code == ErrorCode::NotFound && !self.asked;
                if unheard_of && engine_knows(self.inner, self.route) {
                    self.asked = true;
                    self.wait_for_news(GATHERED_NEWS_MAX_NS, || !self.route.targets.load().is_empty());
                    continue;
                }
                if self.last.code == ErrorCode::StaleHandle {
                    // What went stale and came back nowhere is gone.
                    self.last = CallError::function_not_found(&self.route.id);
                }
                break;
            };
            let target = &targets[at];
            let caller = match open_caller(&target.link) {
                Some(caller) => Ok(caller),
                None => {
                    self.wait_until_ns = patience_ns(self.inner, self.wait_until_ns);
                    self.inner.channel_to(&target.link, self.wait_until_ns)
                }
            };
            match caller.and_then(|caller| attempt(target, &caller)) {
                Ok(done) => return Ok(done),
                Err(error) => self.last = error,
            }
            match retry_on(&self.last, is_idempotent(self.options, target), target.function.worker) {
                Some(elsewhere) => self.avoid = elsewhere,
                None => break,
            }
            if self.avoid.is_none() {
                // A stale handle: the news is on its way.
                self.wait_for_news(NEWS_MAX_NS, || self.inner.routes.version() != version);
            }
        }
        Err(self.last)
    }

    fn wait_for_news(&self, for_ns: u64, came: impl Fn() -> bool) {
        let soon = now_ns() + for_ns;
        let until = if self.wait_until_ns == 0 { soon } else { soon.min(self.wait_until_ns) };
        crate::dispatcher::blocking(|| self.inner.routes.wait_for(until, came));
    }
}

/// Whether the engine knows a function that this worker has not heard of: news is gathered for some milliseconds, and who
/// calls what was registered just before should not be told that there is no such thing. Costs a call of the engine.
#[cold]
fn engine_knows(inner: &Arc<Inner>, route: &Route) -> bool {
    if naming::is_reserved(&route.id) {
        return false;
    }
    let question = json!({ "function_id": route.id, "namespace": inner.namespace });
    let Ok(question) = Message::json(&question) else { return false };
    let options = CallOptions::new().timeout(ASK_ENGINE_MAX);
    let _untraced = context::enter_trace(crate::sampler::unrecorded());
    let info = inner.route(naming::FUNCTIONS_INFO);
    call(inner, &info, &options, &question, &mut Received::blank()).is_ok()
}

#[cold]
fn call_slowly<R: Request>(
    mut plan: Plan<'_>,
    route: &Route,
    request: &R,
    avoid: Option<WorkerId>,
    last: CallError,
    reply: &mut Received,
) -> Ended {
    plan.wait_until_ns = patience_ns(plan.inner, plan.wait_until_ns);
    let attempts = Attempts::new(plan.inner, route, plan.options, plan.wait_until_ns);
    let mut tried = FunctionRef::NONE;
    let ended = Attempts { avoid, last, ..attempts }.run(|target, caller| {
        tried = reference(&target.function);
        let mut place = Message::empty();
        let message = request.message(target, &mut place).map_err(|error| *error)?;
        let invocation = plan.publish(target, caller, message, None)?;
        *reply = wait_showing(&plan, route, caller, invocation, tried)?;
        Ok(())
    });
    let ended = ended.map_err(Box::new);
    plan.record(tried, &ended, reply);
    ended
}

/// Sends without waiting for anything.
pub(crate) fn send(
    inner: &Arc<Inner>,
    route: &Route,
    options: &CallOptions,
    request: &impl Request,
) -> Result<(), CallError> {
    let mut plan = Plan::new(inner, Kind::Send, options);
    plan.header.flags |= Flags::NO_REPLY.bits();
    let mut tried = FunctionRef::NONE;
    let sent = Attempts::new(inner, route, options, plan.wait_until_ns).run(|target, caller| {
        tried = reference(&target.function);
        let mut place = Message::empty();
        let message = request.message(target, &mut place).map_err(|error| *error)?;
        plan.address(target, message);
        let mut header = plan.header;
        let (inline, leases) =
            wire::compose(&caller.channel, &caller.memory, &mut header, message, plan.meta())
                .map_err(not_started)?;
        caller
            .publish_more(&header, &inline, || patience_ns(inner, plan.wait_until_ns))
            .inspect_err(|_| wire::end_leases(&caller.channel, &leases))
            .map_err(not_started)
    });
    let sent = sent.map_err(Box::new);
    plan.record(tried, &sent, &Received::blank());
    sent.map_err(|error| *error)
}

/// What is kept of a call in flight, so that it can be made again on another replica when its own is gone and has
/// certainly not begun with it.
#[derive(Debug)]
struct Again {
    /// As it was said: a copy of what fits a slot, and a reference to what does not.
    message: Message,
    archive_key: Option<ArchiveKey>,
    options: CallOptions,
    meta: Option<Meta>,
    header: Header,
    idempotent: bool,
    attempts_left: usize,
    /// The catalog's version when the call was published.
    version: u64,
    /// How the last attempt ended, whom to avoid in the next, and until when to wait for a newer catalog before it.
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    error: Box<CallError>,
    avoid: Option<WorkerId>,
    news_by_ns: u64,
}

impl Again {
    /// Whether a callee can read the request as it was said.
    fn fits(&self, target: &Target) -> bool {
        self.message.encoding != Encoding::Rkyv || target.takes_archive(self.archive_key)
    }
}

/// Publishes a call on a replica that takes it, and keeps what it takes to do so again.
fn publish_and_keep(
    plan: &mut Plan<'_>,
    route: &Route,
    request: &impl Request,
) -> Result<(Published, Box<Again>), CallError> {
    let version = plan.inner.routes.version();
    publish_by(plan, route, request, |plan, target, caller, message| {
        let message = to_keep(plan.inner, message)?;
        let invocation = plan.publish(target, caller, &message, None)?;
        let again = Again {
            message,
            archive_key: request.archive_key(),
            options: plan.options.clone(),
            meta: plan.meta.clone(),
            header: plan.header,
            idempotent: is_idempotent(plan.options, target),
            attempts_left: ATTEMPTS_MAX - 1,
            version,
            failed: None,
        };
        let target = reference(&target.function);
        Ok((Published { caller: Arc::clone(caller), invocation, target }, Box::new(again)))
    })
}

/// Has `attempt` publish a call on one replica after another until one takes it.
fn publish_by<T>(
    plan: &mut Plan<'_>,
    route: &Route,
    request: &impl Request,
    mut attempt: impl FnMut(&mut Plan<'_>, &Target, &Arc<CallerChannel>, &Message) -> Result<T, CallError>,
) -> Result<T, CallError> {
    let mut tried = FunctionRef::NONE;
    let attempts = Attempts::new(plan.inner, route, plan.options, plan.wait_until_ns);
    let published = attempts.run(|target, caller| {
        tried = reference(&target.function);
        let mut place = Message::empty();
        let message = request.message(target, &mut place).map_err(|error| *error)?;
        attempt(plan, target, caller, message)
    });
    published.map_err(|error| {
        plan.record(tried, &Err(Box::new(error.clone())), &Received::blank());
        error.with_function(route.id.as_str())
    })
}

/// A message that can be kept at no cost: what would be copied into a block to be sent is in one already.
fn to_keep(inner: &Inner, message: &Message) -> Result<Message, CallError> {
    let Body::Heap(bytes) = &message.body else { return Ok(message.clone()) };
    let mut loan = inner.arena.loan(bytes.len(), 64).map_err(|error| wire::out_of_memory(&error))?;
    crate::counters::copied(bytes.len());
    loan.copy_from_slice(bytes);
    let attachments = message.attachments.clone();
    Ok(Message { encoding: message.encoding, body: Body::Block(loan.freeze().into()), attachments })
}

/// A call that was published: where its reply will come.
pub(crate) struct Published {
    pub(crate) caller: Arc<CallerChannel>,
    pub(crate) invocation: InvocationId,
    pub(crate) target: FunctionRef,
}

/// Publishes a call on a replica that takes it.
pub(crate) fn publish(
    plan: &mut Plan<'_>,
    route: &Route,
    inbox: Option<&Arc<Inbox>>,
    request: &impl Request,
) -> Result<Published, CallError> {
    publish_by(plan, route, request, |plan, target, caller, message| {
        let invocation = plan.publish(target, caller, message, inbox)?;
        Ok(Published { caller: Arc::clone(caller), invocation, target: reference(&target.function) })
    })
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
    /// What it takes to make the call again; not for one with streams, whose items may be on their way.
    again: Option<Box<Again>>,
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
    request: &impl Request,
) -> Result<Pending, CallError> {
    let mut plan = Plan::new(inner, Kind::Call, options);
    let (published, again) = match inbox {
        Some(_) => (publish(&mut plan, route, inbox, request)?, None),
        None => {
            publish_and_keep(&mut plan, route, request).map(|(published, again)| (published, Some(again)))?
        }
    };
    let Published { caller, invocation, target } = published;
    Ok(Pending {
        inner: Arc::clone(inner),
        route: Arc::clone(route),
        caller,
        invocation,
        target,
        wait_until_ns: plan.wait_until_ns,
        span: plan.span,
        state: Watching::Fresh,
        timer: None,
        again,
    })
}

impl Pending {
    /// Waits for the reply, which is put into `reply`.
    #[inline]
    pub(crate) fn wait_into(mut self, reply: &mut Received) -> Ended {
        let ended = loop {
            let ended = match self.caller.wait_quickly(self.invocation, &self.route.expected, reply) {
                Some(ended) => ended,
                None => {
                    let until = patience_ns(&self.inner, self.wait_until_ns);
                    kept(self.caller.wait(self.invocation, &self.route.expected, until), reply)
                }
            };
            let Err(error) = ended else { break Ok(()) };
            if let Err(error) = self.wait_and_start_again(error) {
                break Err(error);
            }
        };
        self.over(&ended, reply);
        ended
    }

    /// Whether the call may be made again after it ended so; an error if not.
    #[cold]
    fn may_start_again(&mut self, error: Box<CallError>) -> Ended {
        let worker = self.target.worker;
        let Some(again) = self.again.as_mut().filter(|again| again.attempts_left > 0) else {
            return Err(error);
        };
        let Some(avoid) = retry_on(&error, again.idempotent, worker) else { return Err(error) };
        again.attempts_left -= 1;
        // A stale handle: the news is on its way.
        let news_by_ns = if avoid.is_none() { now_ns() + NEWS_MAX_NS } else { 0 };
        again.failed = Some(Failed { error, avoid, news_by_ns });
        Ok(())
    }

    /// Whether the next attempt waits for a newer catalog; none where there is no attempt to make.
    fn awaits_news(&self) -> Option<bool> {
        let again = self.again.as_ref()?;
        let failed = again.failed.as_ref()?;
        let newer = failed.news_by_ns == 0 || self.inner.routes.version() != again.version;
        Some(!newer && now_ns() < self.end_of_wait(failed.news_by_ns))
    }

    fn end_of_wait(&self, by_ns: u64) -> u64 {
        if self.wait_until_ns == 0 { by_ns } else { by_ns.min(self.wait_until_ns) }
    }

    /// Makes a call again that has failed. Blocks as [`start`] does, where a channel has to be set up.
    ///
    /// # Errors
    /// How it ended for good.
    #[cold]
    fn start_again(&mut self) -> Ended {
        let Some(again) = self.again.as_mut() else { return Ok(()) };
        let Some(Failed { error, avoid, .. }) = again.failed.take() else { return Ok(()) };
        again.version = self.inner.routes.version();
        let mut plan = Plan {
            inner: &self.inner,
            options: &again.options,
            header: again.header,
            meta: again.meta.clone(),
            wait_until_ns: patience_ns(&self.inner, self.wait_until_ns),
            span: self.span,
        };
        let attempts = Attempts::new(&self.inner, &self.route, &again.options, plan.wait_until_ns);
        let published =
            Attempts { avoid, last: CallError::clone(&error), ..attempts }.run(|target, caller| {
                if !again.fits(target) {
                    return Err(CallError::clone(&error));
                }
                let invocation = plan.publish(target, caller, &again.message, None)?;
                let target = reference(&target.function);
                Ok(Published { caller: Arc::clone(caller), invocation, target })
            })?;
        let Plan { wait_until_ns, span, .. } = plan;
        if self.state == Watching::ByTask {
            self.caller.task_left();
        }
        Published { caller: self.caller, invocation: self.invocation, target: self.target } = published;
        (self.wait_until_ns, self.span, self.state) = (wait_until_ns, span, Watching::Fresh);
        Ok(())
    }

    /// Makes a call again that ended so, after the news that it waits for.
    #[cold]
    fn wait_and_start_again(&mut self, error: Box<CallError>) -> Ended {
        self.may_start_again(error)?;
        if let Some(Again { version, failed: Some(failed), .. }) = self.again.as_deref()
            && failed.news_by_ns != 0
        {
            let routes = &self.inner.routes;
            let until = self.end_of_wait(failed.news_by_ns);
            let _either_way =
                crate::dispatcher::blocking(|| routes.wait_for(until, || routes.version() != *version));
        }
        self.start_again()
    }

    /// Waits for the reply.
    ///
    /// # Errors
    /// How the call ended otherwise.
    pub fn wait(self) -> Result<Message, CallError> {
        let mut reply = Received::blank();
        let route = Arc::clone(&self.route);
        self.wait_into(&mut reply).map_err(|error| error.with_function(route.id.as_str()))?;
        Ok(reply.into_message())
    }

    #[inline]
    fn over(&mut self, ended: &Ended, reply: &Received) {
        if self.state == Watching::ByTask {
            self.caller.task_left();
        }
        self.state = Watching::Over;
        if let Some(timer) = self.timer.take() {
            self.inner.cancel_timer(timer);
        }
        if let Some(span) = &self.span {
            span.record(&self.inner, self.target, ended, reply);
        }
    }

    pub(crate) fn poll_into(&mut self, cx: &mut TaskContext<'_>, reply: &mut Received) -> Poll<Ended> {
        if self.state == Watching::Over {
            return Poll::Ready(Err(Box::new(CallError::new(
                ErrorCode::Cancelled,
                "the call was over before",
            ))));
        }
        let ended = loop {
            match self.awaits_news() {
                None => {}
                Some(true) => {
                    let soon = now_ns() + NEWS_EVERY_NS;
                    let _never_cancelled = self.inner.schedule_wake(soon, cx.waker().clone());
                    return Poll::Pending;
                }
                Some(false) => {
                    if let Err(error) = self.start_again() {
                        break Err(error);
                    }
                }
            }
            match self.look(cx, reply) {
                Some(Ok(())) => break Ok(()),
                Some(Err(error)) => {
                    if let Err(error) = self.may_start_again(error) {
                        break Err(error);
                    }
                }
                None if self.wait_until_ns != 0 && now_ns() >= self.wait_until_ns => {
                    self.caller.abandon(self.invocation);
                    break Err(Box::new(crate::caller::out_of_time()));
                }
                None => {
                    if self.wait_until_ns != 0 && self.timer.is_none() {
                        self.timer = self.inner.schedule_wake(self.wait_until_ns, cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        };
        self.over(&ended, reply);
        Poll::Ready(ended)
    }

    /// Looks for the reply for a moment, then has the task woken when it comes.
    fn look(&mut self, cx: &mut TaskContext<'_>, reply: &mut Received) -> Option<Ended> {
        if let Some(ended) = self.caller.wait_quickly(self.invocation, &self.route.expected, reply) {
            return Some(ended);
        }
        let first = self.state == Watching::Fresh;
        if first {
            self.state = Watching::ByTask;
            self.wait_until_ns = patience_ns(&self.inner, self.wait_until_ns);
        }
        self.caller.watch_by_task(self.invocation, cx.waker(), first);
        self.caller.poll_outcome(self.invocation).map(|outcome| kept(outcome, reply))
    }

    pub(crate) fn caller(&self) -> &Arc<CallerChannel> {
        &self.caller
    }
}

impl Future for Pending {
    type Output = Result<Message, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut reply = Received::blank();
        let polled = self.poll_into(cx, &mut reply);
        polled.map(|ended| match ended {
            Ok(()) => Ok(reply.into_message()),
            Err(error) => Err(error.with_function(self.route.id.as_str())),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if self.state != Watching::Over {
            self.caller.abandon(self.invocation);
            let ended = Err(Box::new(CallError::new(ErrorCode::Cancelled, "given up by the caller")));
            self.over(&ended, &Received::blank());
        }
    }
}
