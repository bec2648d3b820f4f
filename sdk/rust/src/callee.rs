//! The callee's end of a channel: checking requests, running handlers, publishing replies.

mod asker;
mod table;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::task::{Context as TaskContext, Poll, Waker};

use arc_swap::{ArcSwap, ArcSwapOption, Cache};
use parking_lot::Mutex;
use ringway_ipc::channel::{Channel, CloseReason, LeaseGuard};
use ringway_ipc::clock::now_ns;
use ringway_ipc::frame::Header;
use ringway_ipc::permission::PermissionView;
use ringway_protocol::header::{Encoding, Flags, Kind};
use ringway_protocol::limits::RELAY_INDEX_START;
use ringway_protocol::telemetry::{
    FunctionRef, SPAN_FLAG_RELAYED, SPAN_FLAG_STREAM, SpanKind, SpanName, SpanRecord, SpanStart,
};
use ringway_protocol::{CallError, ErrorCode, SpanId, TraceContext, TraceId, WorkerId};

use crate::callee::asker::Asker;
use crate::callee::table::Slots;
use crate::context::{CancelToken, Context, Inherited};
use crate::error::HandlerResult;
use crate::executor::{JOBS_MAX, Pool, THREADS_MAX};
use crate::function::{BoxReply, Handler};
use crate::memory::Memory;
use crate::message::Message;
use crate::meta::Meta;
use crate::pending::PENDING_MAX;
use crate::stream::{Carrier, Inbox, Need, StreamReader, StreamWriter};
use crate::wire::{self, Received};
use crate::worker::{Inner, Worker};

pub(crate) use crate::callee::table::{FunctionTable, Registered};

/// Calls of one caller that run or are queued away from the dispatcher's thread. A correct caller never has more in flight.
const CALLS_MAX: usize = PENDING_MAX;

/// The same for its sends, which it may forget. With so many under way its ring is not read until some are done: the ring
/// fills, and the caller waits for room.
const SENDS_MAX: usize = JOBS_MAX / 8;

/// Sends that a caller may have under way also when the sends of others fill the pool's queue.
const SENDS_SURE: usize = 64;

/// Jobs in the pool's queue from which on callers may have no more sends than are sure; what is above is for calls.
const QUEUED_SENDS_MAX: usize = JOBS_MAX / 4 * 3;

/// Of its calls, those that hold a thread for as long as their caller streams; half of the pool's threads.
const STREAMS_MAX: usize = THREADS_MAX / 2;

/// What the thread that serves keeps by it from call to call.
pub(crate) struct Server<'a> {
    inner: &'a Arc<Inner>,
    functions: Cache<Arc<ArcSwap<Slots>>, Arc<Slots>>,
    context: Context,
    received: Received,
}

impl<'a> Server<'a> {
    pub(crate) fn new(inner: &'a Arc<Inner>) -> Self {
        let context = Context {
            worker: Worker::internal(Arc::clone(inner)),
            caller: inner.id,
            inherited: Inherited::default(),
            cancel: None,
            meta: None,
        };
        Self { inner, functions: inner.functions.reader(), context, received: Received::blank() }
    }
}

/// A channel that is polled, and what its caller may call, both read without an exchange.
pub(crate) struct Polled {
    pub(crate) callee: Arc<CalleeChannel>,
    permissions: Cache<Arc<ArcSwapOption<PermissionView>>, Option<Arc<PermissionView>>>,
}

impl Polled {
    pub(crate) fn new(callee: &Arc<CalleeChannel>) -> Self {
        Self { callee: Arc::clone(callee), permissions: Cache::new(Arc::clone(&callee.permissions)) }
    }

    /// Takes and acts on the next frame, looking for it up to so often. Returns whether there was one. `woke_ns` is when
    /// the thread was woken for it, or 0.
    #[inline]
    pub(crate) fn serve_one(&mut self, server: &mut Server<'_>, looks: u32, woke_ns: u64) -> bool {
        let callee = &self.callee;
        {
            let Some(mut lead) = callee.channel.try_lead() else { return false };
            let mut look = || server.received.poll(&mut lead).unwrap_or(false);
            if !(0..looks).any(|_| look()) {
                return false;
            }
        }
        let kind = server.received.header.kind;
        if kind == Kind::Call.to_u8() || kind == Kind::Send.to_u8() {
            callee.call(server, self.permissions.load().as_deref(), woke_ns);
        } else {
            callee.act_on_other(&mut server.received);
        }
        true
    }
}

/// A call that is running, or queued, away from the dispatcher's thread.
#[derive(Debug)]
struct Running {
    cancel: CancelToken,
    stream: Option<Arc<Inbox>>,
}

/// One channel from a caller.
#[derive(Debug)]
pub(crate) struct CalleeChannel {
    pub(crate) channel: Arc<Channel>,
    pub(crate) permissions: Arc<ArcSwapOption<PermissionView>>,
    pub(crate) caller_name: String,
    /// Where the payloads that are sent lie.
    memory: Memory,
    running: Mutex<HashMap<u64, Running>>,
    /// Sends that run or are queued.
    sends: AtomicUsize,
    /// The ring is not read until enough of them are done.
    held: AtomicBool,
    /// Of the calls, those that stream on a thread of the pool.
    streams: AtomicUsize,
}

/// What a span of a call needs when the call ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerSpan {
    trace: TraceContext,
    parent: SpanId,
    start_ns: u64,
    woke_ns: u64,
    function: u32,
    bytes_in: u64,
    flags: u8,
}

impl ServerSpan {
    /// Opens the span of a call, if it is recorded.
    #[inline]
    pub(crate) fn begin(inner: &Inner, header: &Header, bytes_in: u64, woke_ns: u64) -> Option<Self> {
        if header.trace_flags & ringway_protocol::trace::FLAG_SAMPLED == 0 {
            return None;
        }
        let trace = TraceContext {
            trace_id: TraceId::from_bytes(header.trace_id),
            span_id: inner.sampler.span_id(),
            flags: header.trace_flags,
        };
        Some(Self {
            trace,
            parent: span_from_u64(header.span_id),
            start_ns: now_ns(),
            woke_ns,
            function: header.function,
            bytes_in,
            flags: 0,
        })
    }

    /// What the handler's work is under.
    pub(crate) fn trace(&self) -> TraceContext {
        self.trace
    }

    /// Closes it.
    #[inline]
    pub(crate) fn record(&self, inner: &Inner, caller: WorkerId, status: u32, bytes_out: u64) {
        self.record_until(inner, caller, status, bytes_out, now_ns());
    }

    fn record_until(&self, inner: &Inner, caller: WorkerId, status: u32, bytes_out: u64, end_ns: u64) {
        inner.telemetry.span(&SpanRecord {
            trace_id: self.trace.trace_id,
            span_id: self.trace.span_id,
            parent_id: self.parent,
            start_ns: self.start_ns,
            end_ns,
            kind: SpanKind::Server,
            status,
            function: FunctionRef { worker: inner.id, index: self.function },
            peer: caller,
            woke_ns: self.woke_ns,
            bytes_in: self.bytes_in,
            bytes_out,
            flags: self.flags,
            name: SpanName::EMPTY,
        });
    }
}

impl CalleeChannel {
    pub(crate) fn new(
        channel: Arc<Channel>,
        permissions: Option<PermissionView>,
        caller_name: String,
        memory: Memory,
    ) -> Arc<Self> {
        Arc::new(Self {
            channel,
            permissions: Arc::new(ArcSwapOption::new(permissions.map(Arc::new))),
            caller_name,
            memory,
            running: Mutex::default(),
            sends: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
        })
    }

    pub(crate) fn peer(&self) -> WorkerId {
        WorkerId::new(self.channel.peer_worker())
    }

    /// Calls that run or are queued away from the dispatcher's thread.
    pub(crate) fn running(&self) -> usize {
        self.running.lock().len()
    }

    /// Acts on the next frame of a caller that has left, if it is a send; all other frames are passed over, since nobody
    /// waits for what a call would answer, and the caller counts it as not started. `false` after the last frame.
    #[cold]
    pub(crate) fn serve_last(self: &Arc<Self>, server: &mut Server<'_>) -> bool {
        let polled = loop {
            // Others hold the lead for a moment only: whoever serves has the role, and that is this thread.
            match self.channel.try_lead() {
                Some(mut lead) => break server.received.poll(&mut lead),
                None => std::thread::yield_now(),
            }
        };
        if !polled.unwrap_or(false) {
            return false;
        }
        if server.received.header.kind == Kind::Send.to_u8() {
            self.call(server, self.permissions.load().as_deref(), 0);
        }
        true
    }

    #[cold]
    fn act_on_other(&self, frame: &mut Received) {
        let invocation = frame.header.invocation;
        match Kind::try_from(frame.header.kind) {
            Ok(Kind::Release) => {
                let _closed_if_false = self.channel.take_release(&frame.header, &frame.inline);
            }
            Ok(Kind::Cancel) => self.cancel(invocation),
            Ok(Kind::StreamData | Kind::StreamEnd | Kind::Credit) => {
                let inbox = self.running.lock().get(&invocation).and_then(|call| call.stream.clone());
                // Frames for a call that is over are dropped, their payloads returned.
                if frame.resolve(&self.channel).is_err() {
                    return;
                }
                let frame = frame.take();
                if let Some(inbox) = inbox
                    && inbox.take_frame(frame).is_err()
                {
                    self.channel.violation(CloseReason::Nonsense);
                }
            }
            _ => {
                self.channel.violation(CloseReason::Nonsense);
            }
        }
    }

    /// Takes a call or a send into account. An error: the caller has as many calls under way as it may. A send too many
    /// is no error: nobody would hear of it, so the frames after it stay in the ring.
    fn begin(&self, inner: &Inner, header: &Header, call: Running, on_thread: bool) -> Result<(), CallError> {
        if header.kind != Kind::Call.to_u8() {
            self.sends.fetch_add(1, Ordering::SeqCst);
            if self.sends_are_full(&inner.pool) {
                self.held.store(true, Ordering::SeqCst);
                // SeqCst with `over`: either the last send to end sees that the ring is held, or we see that it has ended.
                self.go_on_if_room(inner);
            }
            return Ok(());
        }
        let mut running = self.running.lock();
        if running.len() >= CALLS_MAX {
            return Err(too_many(CALLS_MAX, "calls"));
        }
        if on_thread && self.streams.load(Ordering::Relaxed) >= STREAMS_MAX {
            return Err(too_many(STREAMS_MAX, "streams"));
        }
        match running.entry(header.invocation) {
            // Its number belongs to another call that still runs, which stays as it is.
            Entry::Occupied(_) => Err(wire::closed(self.channel.violation(CloseReason::Nonsense))),
            Entry::Vacant(place) => {
                self.streams.fetch_add(usize::from(on_thread), Ordering::Relaxed);
                place.insert(call);
                Ok(())
            }
        }
    }

    /// Ends what [`CalleeChannel::begin`] began. A send is not in the table, whatever number it bears.
    fn over(&self, inner: &Inner, header: &Header, on_thread: bool) {
        if header.kind == Kind::Call.to_u8() {
            self.running.lock().remove(&header.invocation);
            self.streams.fetch_sub(usize::from(on_thread), Ordering::Relaxed);
        } else {
            self.sends.fetch_sub(1, Ordering::SeqCst);
            if self.held.load(Ordering::SeqCst) {
                self.go_on_if_room(inner);
            }
        }
    }

    /// Whether the ring is left alone because too many of its caller's sends are under way. There is at least one then,
    /// and the one whose end makes room has the ring read again.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    fn sends_are_full(&self, pool: &Pool) -> bool {
        let sends = self.sends.load(Ordering::SeqCst);
        sends >= SENDS_MAX || sends >= SENDS_SURE && pool.queued() >= QUEUED_SENDS_MAX
    }

    /// Has the ring read again when a part of the caller's share is free: not for each single send that ends.
    #[cold]
    fn go_on_if_room(&self, inner: &Inner) {
        let sends = self.sends.load(Ordering::SeqCst);
        let room = sends < SENDS_SURE / 2
            || sends < SENDS_MAX / 4 * 3 && inner.pool.queued() < QUEUED_SENDS_MAX / 4 * 3;
        if room && self.held.swap(false, Ordering::SeqCst) {
            inner.dispatcher.look_anew();
        }
    }

    fn cancel(&self, invocation: u64) {
        let running = self.running.lock();
        if let Some(call) = running.get(&invocation) {
            let (token, stream) = (call.cancel.clone(), call.stream.clone());
            drop(running);
            token.cancel();
            if let Some(inbox) = stream {
                inbox.end(Some(CallError::new(ErrorCode::Cancelled, "the caller gave up")));
            }
        }
    }

    /// The caller is gone: whatever still runs for it is told.
    pub(crate) fn cancel_all(&self) {
        let running: Vec<u64> = self.running.lock().keys().copied().collect();
        running.into_iter().for_each(|invocation| self.cancel(invocation));
    }

    #[inline]
    fn call(self: &Arc<Self>, server: &mut Server<'_>, permissions: Option<&PermissionView>, woke_ns: u64) {
        let Server { inner, functions, context, received } = server;
        let header = received.header;
        // The table is only borrowed where the handler runs at once; the others take a reference along.
        let function = functions.load().get(header.function as usize).and_then(Option::as_ref);
        let function = function.or_else(|| inner.functions.relay(header.function));
        let function = match self.admit(inner, function, permissions, &header) {
            Ok(function) => function,
            Err(error) => return self.refuse(inner, received, &error),
        };
        if received.resolve(&self.channel).is_err() {
            return;
        }
        let trace = self.begin_span(inner, received, woke_ns);
        context.caller = self.peer();
        context.inherited = Inherited {
            trace: trace.as_ref().map_or_else(|| passed_on(&header), |span| span.trace),
            deadline_ns: header.deadline_ns,
            worker: inner.id,
        };
        context.meta = read_meta(received);
        match &function.handler {
            Handler::Sync(handler) if function.runs_inline() => {
                let start = function.is_timed().then(now_ns);
                let mut reply = Message::empty();
                let result = run(inner, context, || handler(context, received, &mut reply));
                if let Some(start) = start {
                    function.learn(now_ns() - start);
                }
                let guard = guard_of(received);
                received.blocks = None;
                self.finish(inner, &header, guard, result.as_ref().map(|()| &reply), trace);
            }
            _ => self.call_elsewhere(inner, context, function, received.take(), trace),
        }
    }

    fn admit<'a>(
        &self,
        inner: &Inner,
        function: Option<&'a Arc<Registered>>,
        permissions: Option<&PermissionView>,
        header: &Header,
    ) -> Result<&'a Arc<Registered>, CallError> {
        let Some(function) = function else {
            return Err(CallError::stale_handle(header.function_generation, 0));
        };
        if function.spec.generation != header.function_generation {
            return Err(CallError::stale_handle(header.function_generation, function.spec.generation));
        }
        // A relayed function has no bit: who passes it on asks for each call.
        if header.function < RELAY_INDEX_START
            && permissions.is_some_and(|permissions| !permissions.allows(header.function))
        {
            // The bit went after this was set; it has to be read after the bit, too.
            fence(Ordering::Acquire);
            let is_leaving = function.leaving.load(Ordering::Relaxed);
            let stale = is_leaving.then(|| CallError::stale_handle(header.function_generation, 0));
            return Err(stale.unwrap_or_else(|| CallError::forbidden(&function.id, &self.caller_name)));
        }
        if inner.is_draining() && header.function != 0 {
            return Err(CallError::new(ErrorCode::Draining, "the worker takes no new calls"));
        }
        if header.deadline_ns != 0 && now_ns() >= header.deadline_ns {
            let text = "the deadline passed before the call was started";
            return Err(CallError::new(ErrorCode::DeadlineExceeded, text));
        }
        Ok(function)
    }

    #[cold]
    fn refuse(&self, inner: &Inner, received: &mut Received, error: &CallError) {
        // Its payloads are looked at all the same, so that they go back.
        let guard = received.resolve(&self.channel).ok().and_then(|()| guard_of(received));
        received.blocks = None;
        self.finish(inner, &received.header, guard, Err(error), None);
    }

    #[inline]
    fn begin_span(&self, inner: &Inner, received: &Received, woke_ns: u64) -> Option<ServerSpan> {
        ServerSpan::begin(inner, &received.header, received.total_bytes(), woke_ns)
    }

    /// Whether the channel is open.
    pub(crate) fn is_open(&self) -> bool {
        self.channel.close_reason().is_none()
    }

    /// Whether a call would be admitted.
    pub(crate) fn admits(&self, inner: &Inner, header: &Header) -> bool {
        let slots = inner.functions.slots.load();
        let function = slots.get(header.function as usize).and_then(Option::as_ref);
        self.admit(inner, function, self.permissions.load().as_deref(), header).is_ok()
    }

    #[cold]
    fn call_elsewhere(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        context: &Context,
        function: &Arc<Registered>,
        received: Received,
        trace: Option<ServerSpan>,
    ) {
        let header = received.header;
        let token = CancelToken::default();
        let streaming = match function.handler {
            Handler::Stream(_) | Handler::StreamAsync(_) => true,
            Handler::Either(..) => header.flags & Flags::MORE.bits() != 0,
            Handler::Sync(_) | Handler::Async(_) => false,
        };
        let streams_out = function.spec.streams_out || function.spec.streams_optional;
        let mut flags = if streaming && streams_out { SPAN_FLAG_STREAM } else { 0 };
        if header.function >= RELAY_INDEX_START {
            flags |= SPAN_FLAG_RELAYED;
        }
        let inbox = streaming.then(Inbox::new);
        if let Some(inbox) = inbox.as_ref().filter(|_| header.kind == Kind::Send.to_u8()) {
            // A send has no number that items could name: nothing comes in, and there is nobody to stream to.
            inbox.end(None);
        }
        let mut context = Context { cancel: Some(token.clone()), ..context.clone() };
        context.worker = Worker::internal(Arc::clone(inner));
        let call = Running { cancel: token.clone(), stream: inbox.clone() };
        if let Err(error) = self.begin(inner, &header, call, function.streams_on_thread()) {
            let guard = guard_of(&received);
            drop(received);
            return self.finish(inner, &header, guard, Err(&error), trace);
        }
        if self.channel.close_reason().is_some() {
            // `cancel_all` may have gone over the table before this call was in it.
            self.cancel(header.invocation);
        }
        let trace = trace.map(|span| ServerSpan { flags, ..span });
        if let Some(span) = &trace {
            inner.telemetry.span_start(&start_record(inner, span, self.peer()));
        }
        let job = Job {
            asker: Asker::of(self, &header),
            inner: Arc::clone(inner),
            function: Arc::clone(function),
            context,
            trace,
        };
        match (&function.handler, inbox) {
            (Handler::Sync(_) | Handler::Stream(_), inbox) => job.run_pooled(received, self, inbox),
            (Handler::Async(handler), _) | (Handler::Either(handler, _), None) => {
                let guard = guard_of(&received);
                let reply = || handler(job.context.clone(), received);
                let reply = catch_unwind(AssertUnwindSafe(reply)).map_err(panicked);
                job.run_async(header, guard, reply, token);
            }
            (Handler::StreamAsync(handler) | Handler::Either(_, handler), inbox) => {
                let guard = guard_of(&received);
                let (input, output) = job.stream_ends(&header, inbox.unwrap_or_else(Inbox::new));
                let reply = || handler(job.context.clone(), received, input, output);
                let reply = catch_unwind(AssertUnwindSafe(reply)).map_err(panicked);
                job.run_async(header, guard, reply, token);
            }
        }
    }

    #[inline]
    fn finish(
        &self,
        inner: &Inner,
        request: &Header,
        guard: Option<Arc<LeaseGuard>>,
        result: Result<&Message, &CallError>,
        trace: Option<ServerSpan>,
    ) {
        finish(inner, Some(self), self.peer(), request, guard, result, trace);
    }

    #[inline]
    fn reply(&self, request: &Header, guard: Option<Arc<LeaseGuard>>, result: Result<&Message, &CallError>) {
        let mut header =
            Header { invocation: request.invocation, kind: Kind::Reply.to_u8(), ..Header::default() };
        let said;
        let message = match result {
            Ok(message) => message,
            Err(error) => {
                header.kind = Kind::Error.to_u8();
                header.function = error.code.status();
                said = error_message(error);
                &said
            }
        };
        if let Some(guard) = guard {
            if Arc::strong_count(&guard) == 1 {
                guard.disarm();
            } else {
                header.flags |= Flags::HOLD.bits();
            }
        }
        // A channel that closed meanwhile has ended the call already.
        let _closed = match wire::inline_of(message) {
            Some((inline, len)) => {
                header.inline_len = len;
                header.encoding = message.encoding.to_u8();
                self.channel.send_or_keep(&header, inline)
            }
            None => self.reply_slowly(header, message),
        };
    }

    #[cold]
    fn reply_slowly(&self, mut header: Header, message: &Message) -> Result<(), CloseReason> {
        match wire::compose(&self.channel, &self.memory, &mut header, message, &Meta::default()) {
            Ok((inline, _leases)) => self.channel.send_or_keep(&header, &inline),
            Err(error) => {
                // The reply could not be lent; the caller hears why instead.
                header.kind = Kind::Error.to_u8();
                header.function = error.code.status();
                let mut message = error_message(&error);
                if wire::inline_of(&message).is_none() {
                    message = error_message(&CallError::new(error.code, ""));
                }
                let Some((inline, len)) = wire::inline_of(&message) else { return Ok(()) };
                (header.inline_len, header.encoding, header.attachments, header.meta_len) =
                    (len, message.encoding.to_u8(), 0, 0);
                self.channel.send_or_keep(&header, inline)
            }
        }
    }
}

/// Publishes the reply and closes the span. `guard` holds the request's leases; when nothing else does, the reply implies
/// their return. Only a sender, who gets no reply, may have taken its channel along.
#[inline]
fn finish(
    inner: &Inner,
    channel: Option<&CalleeChannel>,
    caller: WorkerId,
    request: &Header,
    guard: Option<Arc<LeaseGuard>>,
    result: Result<&Message, &CallError>,
    trace: Option<ServerSpan>,
) {
    let status = result.err().map_or(ringway_protocol::error::STATUS_OK, |error| error.code.status());
    let bytes_out = result.map_or(0, |message| if trace.is_some() { message.total_bytes() } else { 0 });
    let end_ns = if trace.is_some() { now_ns() } else { 0 };
    match channel.filter(|_| request.kind == Kind::Call.to_u8()) {
        Some(channel) => channel.reply(request, guard, result),
        None => {
            if let Err(error) = result {
                tracing::debug!(target: "ringway", %caller, %error, "a send failed; its caller does not hear of it");
            }
        }
    }
    if let Some(span) = trace {
        span.record_until(inner, caller, status, bytes_out, end_ns);
    }
}

#[cold]
fn too_many(limit: usize, what: &str) -> CallError {
    CallError::new(ErrorCode::Busy, format!("{limit} {what} of this caller are under way already"))
}

fn error_message(error: &CallError) -> Message {
    Message::from_vec(Encoding::Json, serde_json::to_vec(error).unwrap_or_default())
}

fn guard_of(received: &Received) -> Option<Arc<LeaseGuard>> {
    received.blocks.as_ref().map(|blocks| Arc::clone(&blocks.guard))
}

#[inline]
fn read_meta(received: &Received) -> Option<Arc<Meta>> {
    let bytes = received.meta();
    if bytes.is_empty() { None } else { Some(Arc::new(Meta::decode(bytes))) }
}

/// The context of a call that is not recorded here: as it came.
#[inline]
pub(crate) fn passed_on(header: &Header) -> TraceContext {
    TraceContext {
        trace_id: TraceId::from_bytes(header.trace_id),
        span_id: span_from_u64(header.span_id),
        flags: header.trace_flags,
    }
}

#[inline]
pub(crate) fn span_from_u64(span: u64) -> SpanId {
    SpanId::from_bytes(span.to_le_bytes())
}

#[inline]
pub(crate) fn span_to_u64(span: SpanId) -> u64 {
    u64::from_le_bytes(span.to_bytes())
}

fn start_record(inner: &Inner, span: &ServerSpan, peer: WorkerId) -> SpanStart {
    SpanStart {
        trace_id: span.trace.trace_id,
        span_id: span.trace.span_id,
        parent_id: span.parent,
        start_ns: span.start_ns,
        kind: SpanKind::Server,
        function: FunctionRef { worker: inner.id, index: span.function },
        peer,
        name: SpanName::EMPTY,
    }
}

/// Runs a handler with its context active; a panic becomes an error and the worker lives.
#[inline]
fn run(
    inner: &Inner,
    context: &Context,
    handler: impl FnOnce() -> HandlerResult<()>,
) -> Result<(), CallError> {
    let _entered = context.enter();
    match catch_unwind(AssertUnwindSafe(handler)) {
        Ok(result) => result.map_err(crate::Failure::into_error),
        Err(panic) => {
            inner.note_panic();
            Err(panicked(panic))
        }
    }
}

#[cold]
#[expect(clippy::needless_pass_by_value, reason = "the shape that catch_unwind returns")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> CallError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    CallError::new(ErrorCode::HandlerPanicked, text.unwrap_or_else(|| "the handler panicked".to_owned()))
}

/// A call that runs away from the dispatcher's thread.
struct Job {
    asker: Asker,
    inner: Arc<Inner>,
    function: Arc<Registered>,
    context: Context,
    trace: Option<ServerSpan>,
}

impl Job {
    fn end(&self, header: &Header, guard: Option<Arc<LeaseGuard>>, result: Result<Message, CallError>) {
        self.asker.with(|channel| {
            if let Some(channel) = channel {
                channel.over(&self.inner, header, self.function.streams_on_thread());
            }
            finish(&self.inner, channel, self.context.caller, header, guard, result.as_ref(), self.trace);
        });
    }

    fn stream_ends(&self, header: &Header, inbox: Arc<Inbox>) -> (StreamReader, StreamWriter) {
        let carrier: Arc<dyn Carrier> = Arc::new(CalleeCarrier { asker: self.asker.clone() });
        let invocation = header.invocation;
        let reader = StreamReader { inbox: Arc::clone(&inbox), carrier: Arc::clone(&carrier), invocation };
        (reader, StreamWriter { inbox, carrier, invocation, finished: false, is_answered: true })
    }

    fn run_pooled(self, received: Received, channel: &CalleeChannel, inbox: Option<Arc<Inbox>>) {
        let (header, guard) = (received.header, guard_of(&received));
        let pool = self.inner.pool.clone();
        let (inner, trace) = (Arc::clone(&self.inner), self.trace);
        let (refused_guard, on_thread) = (guard.clone(), self.function.streams_on_thread());
        let job = move || {
            if self.context.is_cancelled() {
                drop(received);
                self.end(&header, guard, Err(CallError::new(ErrorCode::Cancelled, "the caller gave up")));
                return;
            }
            let start = now_ns();
            let mut reply = Message::empty();
            let result = run(&self.inner, &self.context, || match &self.function.handler {
                Handler::Sync(handler) => {
                    let result = handler(&self.context, &received, &mut reply);
                    drop(received);
                    result
                }
                Handler::Stream(handler) => {
                    if let Some(inbox) = inbox {
                        let (input, output) = self.stream_ends(&header, inbox);
                        reply = handler(&self.context, received, input, output)?;
                    }
                    Ok(())
                }
                Handler::Async(_) | Handler::StreamAsync(_) | Handler::Either(..) => Ok(()),
            });
            self.function.learn(now_ns() - start);
            self.end(&header, guard, result.map(|()| reply));
        };
        let is_call = header.kind == Kind::Call.to_u8();
        // Sends are held back in their ring, and once taken are not refused.
        let taken = if is_call { pool.run(job) } else { pool.run_surely(job) };
        if taken.is_err() {
            channel.over(&inner, &header, on_thread);
            let text = "every thread of the worker is taken and its queue is full";
            let error = CallError::new(ErrorCode::Busy, text);
            channel.finish(&inner, &header, refused_guard, Err(&error), trace);
        }
    }

    fn run_async(
        self,
        header: Header,
        guard: Option<Arc<LeaseGuard>>,
        reply: Result<BoxReply, CallError>,
        token: CancelToken,
    ) {
        let spawner = self.inner.spawner.clone();
        let pool = self.inner.pool.clone();
        let is_call = header.kind == Kind::Call.to_u8();
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return self.end(&header, guard, Err(error)),
        };
        let future = AsyncCall {
            job: self,
            header,
            guard,
            reply: Some(reply),
            cancelled: is_call.then(|| -> Cancelled { Box::pin(async move { token.cancelled().await }) }),
        };
        match spawner {
            // A runtime of the user's polls it first, inside its own context.
            Some(spawner) => spawner(Box::pin(future)),
            // Polled once where it arrived; it moves to the pool only if it is pending.
            None => pool.start(future),
        }
    }
}

/// Comes true when the caller gives up.
type Cancelled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An async handler on its way: ends with its reply, or is dropped when its caller gives up.
struct AsyncCall {
    job: Job,
    header: Header,
    guard: Option<Arc<LeaseGuard>>,
    /// `None` once it has ended.
    reply: Option<BoxReply>,
    /// Nobody gives up a send. Were it waited for all the same, the waker in its token would keep the whole future, also
    /// when nothing else is left that could ever wake it.
    cancelled: Option<Cancelled>,
}

impl Drop for AsyncCall {
    /// A runtime that is shut down drops its futures, and a future that nothing can wake any more is dropped too. Its
    /// caller hears of it instead of waiting.
    fn drop(&mut self) {
        if self.reply.take().is_some() {
            let text = "the handler's future was dropped before it ended: its runtime was shut down, or nothing was left to \
                        wake it";
            let error = CallError::new(ErrorCode::HandlerError, text);
            self.job.end(&self.header, self.guard.take(), Err(error));
        }
    }
}

impl Future for AsyncCall {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(reply) = &mut this.reply else { return Poll::Ready(()) };
        let polled = {
            let _entered = this.job.context.enter();
            catch_unwind(AssertUnwindSafe(|| reply.as_mut().poll(cx)))
        };
        let result = match polled {
            Ok(Poll::Pending) => {
                let given_up =
                    this.cancelled.as_mut().is_some_and(|given_up| given_up.as_mut().poll(cx).is_ready());
                if !given_up {
                    return Poll::Pending;
                }
                Err(CallError::new(ErrorCode::Cancelled, "the caller gave up"))
            }
            Ok(Poll::Ready(result)) => result.map_err(crate::Failure::into_error),
            Err(panic) => {
                this.job.inner.note_panic();
                Err(panicked(panic))
            }
        };
        // The handler's values go first, so that what they hold of the request is returned with the reply.
        this.reply = None;
        this.job.end(&this.header, this.guard.take(), result);
        Poll::Ready(())
    }
}

/// The callee's side of a stream: the dispatcher delivers, so a waiting handler just sleeps.
#[derive(Debug)]
struct CalleeCarrier {
    asker: Asker,
}

impl Carrier for CalleeCarrier {
    fn publish(&self, mut header: Header, message: Message) -> Result<(), CallError> {
        self.asker.with(|channel| {
            let Some(CalleeChannel { channel, memory, .. }) = channel else {
                return Err(wire::closed(CloseReason::PeerGone));
            };
            let (inline, _leases) = wire::compose(channel, memory, &mut header, &message, &Meta::default())?;
            channel.send_or_keep(&header, &inline).map_err(wire::closed)
        })
    }

    fn wait(&self, inbox: &Inbox, need: Need) {
        crate::executor::blocking(|| inbox.sleep(need));
    }

    fn watch(&self, _waker: &Waker) {}
}

impl CalleeChannel {
    /// The right to read this channel's ring, for the dispatcher's sleep handshake.
    pub(crate) fn try_lead(&self) -> Option<ringway_ipc::channel::Lead<'_>> {
        self.channel.try_lead()
    }

    /// Whether a frame waits that may be taken, on a channel that is open.
    pub(crate) fn ready(&self) -> bool {
        self.channel.close_reason().is_none()
            && !self.is_held()
            && self.channel.try_lead().is_some_and(|lead| lead.ready())
    }

    /// Says that the dispatcher polls this channel.
    pub(crate) fn stop_bell(&self) {
        if let Some(lead) = self.channel.try_lead() {
            lead.stop_bell();
        }
    }
}
