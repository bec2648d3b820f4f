//! The worker: this process's place in Ringway. Attach, register, call, leave.

mod builder;
mod events;
mod housekeeping;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use ringway_ipc::arena::{Arena, Loan};
use ringway_ipc::channel::{Channel, CloseReason};
use ringway_ipc::clock::now_ns;
use ringway_ipc::waiter::SpinPolicy;
use ringway_protocol::control::{
    Catalog, CatalogFunction, Register, RegistrationOutcome, RegistrationResult, TriggerSpec,
    TriggerTypeSpec, Unregister,
};
use ringway_protocol::{CallError, ErrorCode, FunctionId, WorkerId, naming};
use serde_json::Value;

pub use builder::Builder;

use crate::call::{self, CallOptions};
use crate::callee::{FunctionTable, Registered};
use crate::caller::CallerChannel;
use crate::control::{BindAnswer, Control, TimerId};
use crate::dispatcher::Dispatcher;
use crate::error::Failure;
use crate::executor::{Pool, Spawner};
use crate::function::{Function, Typed};
use crate::handle::{Handle, TypedHandle};
use crate::memory::Zones;
use crate::message::Message;
use crate::routes::{Link, Route, Routes};
use crate::sampler::Sampler;
use crate::telemetry::Telemetry;
use crate::wire::Received;

/// Watches for events on behalf of triggers of one type. Implemented by whoever registers a trigger type.
pub trait TriggerProvider: Send + Sync + 'static {
    /// Starts to watch for a trigger; when its event happens, the provider calls `binding.function_id`.
    ///
    /// # Errors
    /// Why this cannot be watched for; the worker that asked hears it.
    fn bind(&self, binding: &TriggerSpec) -> Result<(), CallError>;

    /// As [`TriggerProvider::bind`], for a provider that does not know at once: it may answer later, from any thread. The
    /// trigger counts as bound meanwhile. This one calls `bind`.
    fn bind_later(&self, binding: &TriggerSpec, answer: BindAnswer) {
        answer.send(self.bind(binding));
    }

    /// Stops to watch for a trigger.
    fn unbind(&self, id: &str);
}

/// What every thread of the worker shares.
pub(crate) struct Inner {
    pub(crate) id: WorkerId,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) functions: FunctionTable,
    pub(crate) routes: Routes,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) policy: Arc<SpinPolicy>,
    pub(crate) arena: Arc<Arena>,
    /// Arenas by zone, of the engine's worker.
    pub(crate) zones: Option<Zones>,
    pub(crate) pool: Pool,
    pub(crate) spawner: Option<Arc<Spawner>>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) sampler: Sampler,
    pub(crate) default_timeout: Option<Duration>,
    pub(crate) barrier_before_sleep: bool,
    /// The core that the dispatcher is pinned to in `latency` mode.
    pub(crate) pin: Option<usize>,
    pub(crate) engine_id: AtomicU64,
    /// Keeps cores from sleeping deeply, in `latency` mode where this user may ask for that.
    _latency_hold: Option<ringway_ipc::sys::machine::LatencyHold>,
    control: OnceLock<Control>,
    providers: Mutex<HashMap<String, Arc<dyn TriggerProvider>>>,
    /// Who is told the answer of a trigger's provider, by the trigger's id.
    awaited: Mutex<HashMap<String, Box<Told>>>,
    registering: Mutex<Generations>,
    /// Taken while a channel is given its caller's end.
    adopting: Mutex<()>,
    draining: AtomicBool,
    panics: AtomicU64,
}

/// Is told what a trigger's provider answered.
type Told = dyn FnOnce(Result<(), CallError>) + Send;

/// Index and generation of functions, so that an index that is used again is told apart.
#[derive(Debug, Default)]
struct Generations {
    next: HashMap<u32, u16>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(crate) fn note_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    fn control(&self) -> Result<&Control, CallError> {
        self.control
            .get()
            .ok_or_else(|| CallError::new(ErrorCode::EngineUnavailable, "the worker is not attached yet"))
    }

    /// Until when a call without a deadline may wait.
    pub(crate) fn patience_ns(&self) -> u64 {
        let nanos = |timeout: Duration| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        self.default_timeout.map_or(0, |timeout| now_ns().saturating_add(nanos(timeout)))
    }

    /// The channel to a worker, set up if there is none.
    pub(crate) fn channel_to(
        self: &Arc<Self>,
        link: &Arc<Link>,
        until_ns: u64,
    ) -> Result<Arc<CallerChannel>, CallError> {
        if let Some(caller) = open_caller(link) {
            return Ok(caller);
        }
        let until_ns = if until_ns == 0 { now_ns().saturating_add(60_000_000_000) } else { until_ns };
        crate::dispatcher::blocking(|| {
            let _one_at_a_time = link.connecting.lock();
            if let Some(caller) = open_caller(link) {
                return Ok(caller);
            }
            let channel = self.control()?.connect(link.worker, until_ns).map_err(not_started)?;
            let caller = self.caller_of(channel)?;
            link.caller.store(Some(Arc::clone(&caller)));
            if caller.channel.close_reason().is_some() {
                // It was closed before it was in the list, so nobody has cleared up.
                self.clear_up(&caller.channel);
            }
            Ok(caller)
        })
    }

    /// The caller's end over a channel: one for each channel, although several links may lead to its peer when the catalog
    /// lost the peer for a moment and the channel did not.
    fn caller_of(&self, channel: Arc<Channel>) -> Result<Arc<CallerChannel>, CallError> {
        let _one_at_a_time = self.adopting.lock();
        let callers = self.dispatcher.callers();
        if let Some(known) = callers.iter().find(|caller| Arc::ptr_eq(&caller.channel, &channel)) {
            return Ok(Arc::clone(known));
        }
        let memory = self.memory_for(WorkerId::new(channel.peer_worker()))?;
        let caller = Arc::new(CallerChannel::new(channel, Arc::clone(&self.policy), memory));
        self.dispatcher.add_caller(&caller);
        Ok(caller)
    }

    /// Ends what went on over a closed channel.
    pub(crate) fn clear_up(&self, channel: &Arc<Channel>) {
        let (callee, caller) = self.dispatcher.remove(channel);
        if let Some(callee) = callee {
            callee.cancel_all();
            if let Some(CloseReason::Goodbye | CloseReason::PeerGone) = channel.close_reason() {
                self.dispatcher.end(callee);
            }
        }
        if let Some(caller) = caller {
            caller.fail_all();
            let link = self.routes.link(caller.peer());
            if link.caller.load().as_ref().is_some_and(|current| Arc::ptr_eq(current, &caller)) {
                link.caller.store(None);
            }
            self.routes.let_go_of(caller.peer());
            drop(link);
            self.routes.forget_link(caller.peer());
        }
    }

    pub(crate) fn schedule_wake(&self, at_ns: u64, waker: Waker) -> Option<TimerId> {
        let control = self.control().ok()?;
        Some(control.schedule(at_ns, Box::new(move || waker.wake())))
    }

    pub(crate) fn schedule(&self, at_ns: u64, task: Box<dyn FnOnce() + Send>) {
        if let Ok(control) = self.control() {
            let _never_cancelled = control.schedule(at_ns, task);
        }
    }

    pub(crate) fn cancel_timer(&self, timer: TimerId) {
        if let Ok(control) = self.control() {
            control.cancel_timer(timer);
        }
    }

    fn shut_down(&self) {
        if let Some(control) = self.control.get() {
            control.goodbye();
        }
        self.dispatcher.stop();
        for caller in self.dispatcher.callers().iter() {
            caller.channel.close(CloseReason::Local);
            caller.fail_all();
        }
        for callee in self.dispatcher.callees().iter() {
            callee.channel.close(CloseReason::Local);
            callee.cancel_all();
        }
        self.pool.close();
    }
}

/// The channel to a worker, if one is open.
pub(crate) fn open_caller(link: &Link) -> Option<Arc<CallerChannel>> {
    link.caller.load_full().filter(|caller| caller.channel.close_reason().is_none())
}

/// A channel that could not be set up has started nothing.
fn not_started(mut error: CallError) -> CallError {
    if error.code == ErrorCode::WorkerGone {
        error.started = Some(ringway_protocol::Started::No);
    }
    error
}

/// Leaves when the last handle of the user's is dropped.
#[derive(Debug)]
struct Leave(Arc<Inner>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// This process's place in Ringway. Clones share it; it leaves when the last of them is dropped.
#[derive(Debug, Clone)]
pub struct Worker {
    inner: Arc<Inner>,
    _leave: Option<Arc<Leave>>,
}

impl Worker {
    /// Attaches under a name, with the defaults: the engine of this user, `balanced` waiting, tracing as the `OTEL_`
    /// variables say.
    ///
    /// # Errors
    /// `engine_unavailable` when there is no engine; the message says where one was looked for and how to start it.
    pub fn connect(name: &str) -> Result<Self, CallError> {
        Self::builder(name).connect()
    }

    /// Attaches with settings.
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    /// A handle that does not keep the worker attached.
    pub(crate) fn internal(inner: Arc<Inner>) -> Self {
        Self { inner, _leave: None }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// The worker's id: random, chosen at start, kept over engine restarts.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.inner.id
    }

    /// The worker's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether an engine is there at this moment. Calls to workers with an open channel do not need one.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.inner.control.get().is_some_and(Control::is_attached)
    }

    // ---- serving ----

    /// Registers a function. When this returns, it is in the engine's catalog, and every worker has been told.
    ///
    /// # Errors
    /// `registration_conflict`, `invalid_registration`, or `engine_unavailable`.
    pub fn register(&self, function: Function) -> Result<(), CallError> {
        self.register_all(vec![function])
    }

    /// Registers many functions with one message. Those before the first refused one stay registered.
    ///
    /// # Errors
    /// As [`Worker::register`]: the first refusal.
    pub fn register_all(&self, functions: Vec<Function>) -> Result<(), CallError> {
        self.register_each(functions)?.into_iter().collect()
    }

    /// Registers many functions with one message, each by itself; says what became of each, in their order.
    ///
    /// # Errors
    /// An id that is none, before anything is registered, or `engine_unavailable`.
    pub fn register_each(&self, functions: Vec<Function>) -> Result<Vec<Result<(), CallError>>, CallError> {
        let (specs, indices) = self.take_places(functions)?;
        let message = Register { functions: specs, ..Register::default() };
        let results = match self.inner.control()?.register(message, REGISTRATION_TIMEOUT) {
            Ok(results) => results,
            Err(error) => {
                self.free_places(&indices);
                return Err(error);
            }
        };
        let refused = |result: &RegistrationResult| result.outcome == RegistrationOutcome::Refused;
        let lost: Vec<u32> = indices
            .iter()
            .zip(&results)
            .filter(|(_, result)| refused(result))
            .map(|(index, _)| *index)
            .collect();
        self.free_places(&lost);
        Ok(results.into_iter().map(outcome).collect())
    }

    fn take_places(
        &self,
        functions: Vec<Function>,
    ) -> Result<(Vec<ringway_protocol::control::FunctionSpec>, Vec<u32>), CallError> {
        for function in &functions {
            FunctionId::new(&function.id)
                .map_err(|error| CallError::new(ErrorCode::InvalidRegistration, error.to_string()))?;
        }
        let mut generations = self.inner.registering.lock();
        self.inner.functions.update(|slots| {
            let mut specs = Vec::with_capacity(functions.len());
            let mut indices = Vec::with_capacity(functions.len());
            let mut free = 1;
            for mut function in functions {
                let known =
                    slots.iter().flatten().find(|old| old.id == function.id).map(|old| old.spec.index);
                let index = known.unwrap_or_else(|| {
                    while slots.get(free).is_some_and(Option::is_some) {
                        free += 1;
                    }
                    u32::try_from(free).unwrap_or(u32::MAX)
                });
                let generation = generations.next.entry(index).or_insert(0);
                *generation = generation.wrapping_add(1);
                (function.spec.index, function.spec.generation) = (index, *generation);
                specs.push(function.spec.clone());
                indices.push(index);
                let at = index as usize;
                if slots.len() <= at {
                    slots.resize(at + 1, None);
                }
                slots[at] = Some(Arc::new(Registered::new(function)));
            }
            Ok((specs, indices))
        })
    }

    fn free_places(&self, indices: &[u32]) {
        let _in_turn = self.inner.registering.lock();
        self.inner.functions.update(|slots| {
            for index in indices {
                if let Some(slot) = slots.get_mut(*index as usize) {
                    *slot = None;
                }
            }
        });
    }

    /// Takes a function back. Calls that run go on; those that come too late go to another replica, or end with `not_found`.
    ///
    /// # Errors
    /// `not_found` when this worker has no such function, or `engine_unavailable`.
    pub fn unregister(&self, id: &str) -> Result<(), CallError> {
        let registered = self.inner.functions.registered();
        let Some(function) = registered.iter().find(|function| function.id == id) else {
            return Err(CallError::not_found("function of this worker", id));
        };
        let message = Unregister { functions: vec![function.spec.id.clone()], ..Unregister::default() };
        // Before the engine takes permissions away.
        function.leaving.store(true, Ordering::Release);
        let taken_back =
            self.inner.control().and_then(|control| control.unregister(message, REGISTRATION_TIMEOUT));
        let results = taken_back.inspect_err(|_| function.leaving.store(false, Ordering::Release))?;
        self.free_places(&[function.spec.index]);
        first_refusal(results)
    }

    /// Registers a kind of event that this worker watches for.
    ///
    /// # Errors
    /// As [`Worker::register`].
    pub fn register_trigger_type(
        &self,
        spec: TriggerTypeSpec,
        provider: impl TriggerProvider,
    ) -> Result<(), CallError> {
        self.inner.providers.lock().insert(spec.id.clone(), Arc::new(provider));
        let message = Register { trigger_types: vec![spec], ..Register::default() };
        first_refusal(self.inner.control()?.register(message, REGISTRATION_TIMEOUT)?)
    }

    /// Takes a kind of event back: its triggers find another provider, or wait for one.
    ///
    /// # Errors
    /// As [`Worker::unregister`].
    pub fn unregister_trigger_type(&self, id: &str) -> Result<(), CallError> {
        let message = Unregister { trigger_types: vec![id.to_owned()], ..Unregister::default() };
        let results = self.inner.control()?.unregister(message, REGISTRATION_TIMEOUT)?;
        self.inner.providers.lock().remove(id);
        first_refusal(results)
    }

    /// Binds a kind of event to a function. Neither need exist yet. Where somebody provides the trigger type, this waits for
    /// the provider to watch for it, at most ten seconds.
    ///
    /// # Errors
    /// As [`Worker::register`]; the provider's refusal; `deadline_exceeded` when the provider does not answer. In the last
    /// two cases the trigger stays, parked until another provider comes or it is taken back.
    pub fn register_trigger(&self, trigger: TriggerSpec) -> Result<(), CallError> {
        let id = trigger.id.clone();
        let (answer, answered) = mpsc::sync_channel(1);
        let told = move |outcome| drop(answer.send(outcome));
        let bound = self.bind_trigger(trigger, told);
        let bound = bound.and_then(|live| if live { await_provider(&answered, &id) } else { Ok(()) });
        self.inner.awaited.lock().remove(&id);
        bound
    }

    /// As [`Worker::register_trigger`], without waiting for the provider: `told` is called with its answer, on a thread
    /// that must not be held up. Returns whether somebody provides the trigger type now; if not, nobody answers until
    /// somebody does.
    ///
    /// # Errors
    /// As [`Worker::register`].
    pub fn bind_trigger(
        &self,
        trigger: TriggerSpec,
        told: impl FnOnce(Result<(), CallError>) + Send + 'static,
    ) -> Result<bool, CallError> {
        let id = trigger.id.clone();
        self.inner.awaited.lock().insert(id.clone(), Box::new(told));
        let message = Register { triggers: vec![trigger], ..Register::default() };
        let registered =
            self.inner.control().and_then(|control| control.register(message, REGISTRATION_TIMEOUT));
        let bound = registered.and_then(|results| {
            let live = results.iter().any(|result| result.outcome == RegistrationOutcome::Registered);
            first_refusal(results).map(|()| live)
        });
        if bound.is_err() {
            self.inner.awaited.lock().remove(&id);
        }
        bound
    }

    /// Takes a trigger back.
    ///
    /// # Errors
    /// As [`Worker::unregister`].
    pub fn unregister_trigger(&self, id: &str) -> Result<(), CallError> {
        let message = Unregister { triggers: vec![id.to_owned()], ..Unregister::default() };
        let unregistered = self.inner.control()?.unregister(message, REGISTRATION_TIMEOUT);
        self.inner.awaited.lock().remove(id);
        first_refusal(unregistered?)
    }

    /// Takes no new calls and waits until those that run have ended and no more come, at most `timeout`. Callers go to other
    /// replicas, or hear `draining` where there is none. Returns whether all have ended. Takes 2 ms at least, and 100 ms
    /// where calls may come over a link: what callers of other hosts sent before they heard is on its way for so long.
    pub fn drain(&self, timeout: Duration) -> bool {
        if let Some(control) = self.inner.control.get() {
            control.draining();
        }
        self.inner.draining.store(true, Ordering::Release);
        let dispatcher = &self.inner.dispatcher;
        let from_afar = dispatcher.links.are_there()
            || self.catalog().workers.iter().any(|worker| worker.remote.is_some());
        let quiet = if from_afar { DRAIN_QUIET_REMOTE } else { DRAIN_QUIET };
        let began = std::time::Instant::now();
        let (mut came, mut last_at) = (u64::MAX, began);
        loop {
            let callees = dispatcher.callees();
            let running: usize = callees.iter().map(|callee| callee.running()).sum();
            let now = std::time::Instant::now();
            let came_so_far = callees.iter().map(|callee| callee.channel.stats().received).sum::<u64>();
            if came_so_far != came {
                (came, last_at) = (came_so_far, now);
            }
            let over = running == 0 && now - last_at >= quiet;
            if over || now - began >= timeout {
                return running == 0;
            }
            std::thread::sleep(DRAIN_QUIET);
        }
    }

    // ---- calling ----

    /// Resolves a function of whole messages. It need not exist yet: a handle follows the catalog.
    #[must_use]
    pub fn handle(&self, id: &str) -> Handle {
        Handle { worker: self.clone(), route: self.inner.route(id) }
    }

    /// As [`Worker::handle`], of a function in another namespace than the worker's own.
    #[must_use]
    pub fn handle_in(&self, namespace: &str, id: &str) -> Handle {
        Handle { worker: self.clone(), route: self.inner.routes.route(namespace, id) }
    }

    /// Resolves a typed function. It need not exist yet: a handle follows the catalog.
    #[must_use]
    pub fn function<Req: Typed, Resp: Typed>(&self, id: &str) -> TypedHandle<Req, Resp> {
        TypedHandle::new(self.handle(id))
    }

    /// Calls a typed function by name.
    ///
    /// # Errors
    /// How the call ended otherwise; see the pages in `docs/errors`.
    pub fn trigger<Req: Typed, Resp: Typed>(&self, id: &str, request: &Req) -> Result<Resp, CallError> {
        self.trigger_with(id, request, &CallOptions::default())
    }

    /// Calls a typed function by name, with options.
    ///
    /// # Errors
    /// As [`Worker::trigger`].
    pub fn trigger_with<Req: Typed, Resp: Typed>(
        &self,
        id: &str,
        request: &Req,
        options: &CallOptions,
    ) -> Result<Resp, CallError> {
        crate::names::typed::<Req, Resp, _>(self, id, |function| {
            function.call_with(request, options)?.value()
        })
    }

    /// Calls a typed function by name, from async code.
    ///
    /// # Errors
    /// As [`Worker::trigger`].
    pub async fn trigger_async<Req: Typed, Resp: Typed>(
        &self,
        id: &str,
        request: &Req,
    ) -> Result<Resp, CallError> {
        self.function::<Req, Resp>(id).call_async(request).await?.value()
    }

    /// Calls a function with JSON.
    ///
    /// # Errors
    /// As [`Worker::trigger`].
    pub fn trigger_json(&self, id: &str, request: &Value) -> Result<Value, CallError> {
        self.trigger_json_with(id, request, &CallOptions::default())
    }

    /// Calls a function with JSON, with options.
    ///
    /// # Errors
    /// As [`Worker::trigger`].
    pub fn trigger_json_with(
        &self,
        id: &str,
        request: &Value,
        options: &CallOptions,
    ) -> Result<Value, CallError> {
        let message = Message::json(request).map_err(Failure::into_error)?;
        read_json(&self.handle(id).call_with(&message, options)?)
    }

    /// Calls a function with JSON, from async code.
    ///
    /// # Errors
    /// As [`Worker::trigger`].
    pub async fn trigger_json_async(
        &self,
        id: &str,
        request: &Value,
        options: &CallOptions,
    ) -> Result<Value, CallError> {
        let message = Message::json(request).map_err(Failure::into_error)?;
        read_json(&self.handle(id).call_async_with(&message, options).await?)
    }

    /// Sends JSON to a function without waiting for anything.
    ///
    /// # Errors
    /// When the message could not be published.
    pub fn send_json(&self, id: &str, request: &Value) -> Result<(), CallError> {
        let message = Message::json(request).map_err(Failure::into_error)?;
        self.handle(id).send(&message, &CallOptions::default())
    }

    /// Memory of this worker's arena to write a payload into, which is then read where it lies. Recycled warm; the bytes
    /// are whatever was there before.
    ///
    /// # Errors
    /// `out_of_memory` names the limit.
    pub fn loan(&self, bytes: usize) -> Result<Loan, CallError> {
        self.loan_aligned(bytes, 64)
    }

    /// As [`Worker::loan`], aligned to `align` bytes, a power of two.
    ///
    /// # Errors
    /// `out_of_memory` names the limit.
    pub fn loan_aligned(&self, bytes: usize, align: usize) -> Result<Loan, CallError> {
        if self.inner.dispatcher.stopped() {
            // What this worker sent last may still be read where it lies, so its blocks are not used again.
            return Err(CallError::new(ErrorCode::WorkerGone, "this worker has left; connect another one"));
        }
        self.inner.arena.loan(bytes, align).map_err(|error| crate::wire::out_of_memory(&error))
    }

    // ---- the catalog ----

    /// The catalog as this worker sees it now, kept up to date by the engine's pushes.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        self.inner.routes.snapshot()
    }

    /// Waits until a function can be called.
    ///
    /// # Errors
    /// `not_found` when it is not there in time.
    pub fn wait_for(&self, id: &str, timeout: Duration) -> Result<(), CallError> {
        let route = self.inner.route(id);
        let until = now_ns().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        let found = crate::dispatcher::blocking(|| {
            self.inner.routes.wait_for(until, || !route.targets.load().is_empty())
        });
        if found { Ok(()) } else { Err(CallError::function_not_found(id)) }
    }

    /// Waits until the catalog as this worker sees it satisfies `ready`; looks again after every change. Returns whether
    /// it did in time.
    pub fn wait_until(&self, timeout: Duration, ready: impl Fn(&Catalog) -> bool) -> bool {
        let until = now_ns().saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        loop {
            let version = self.inner.routes.version();
            if ready(&self.catalog()) {
                return true;
            }
            let changed = || self.inner.routes.version() != version;
            if !crate::dispatcher::blocking(|| self.inner.routes.wait_for(until, changed)) {
                return false;
            }
        }
    }

    /// What another worker holds: segments, blocks, leases, channels, counters. Used by the engine and `ringway shm`.
    ///
    /// # Errors
    /// How the call ended otherwise.
    pub fn inspect(&self, worker: WorkerId) -> Result<Value, CallError> {
        self.inspect_within(worker, Duration::from_secs(5))
    }

    /// As [`Worker::inspect`], with the time that it may take.
    ///
    /// # Errors
    /// As [`Worker::inspect`].
    pub fn inspect_within(&self, worker: WorkerId, timeout: Duration) -> Result<Value, CallError> {
        if worker == self.inner.id {
            return Ok(crate::inspect::report(&self.inner));
        }
        let id = FunctionId::new(naming::WORKER_INSPECT)
            .map_err(|error| CallError::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let function =
            CatalogFunction { idempotent: true, ..crate::relay::relayed_function(&id, worker, 0, 0) };
        let route = self.inner.routes.fixed(vec![function]);
        let options = CallOptions::new().timeout(timeout);
        let mut reply = Received::blank();
        // Looking at what is there should not change what is seen.
        let _untraced = crate::context::enter_trace(crate::sampler::unrecorded());
        call::call(&self.inner, &route, &options, &Message::empty(), &mut reply).map_err(|error| *error)?;
        read_json(&reply.into_message())
    }

    /// Leaves: tells the engine, ends open calls, closes channels. Dropping the last handle does the same.
    pub fn shut_down(&self) {
        self.inner.shut_down();
    }
}

impl Inner {
    /// The route of a function id in the worker's own namespace, or of a reserved id in the default one.
    pub(crate) fn route(&self, id: &str) -> Arc<Route> {
        let namespace = if naming::is_reserved(id) { naming::NAMESPACE_DEFAULT } else { &self.namespace };
        self.routes.route(namespace, id)
    }
}

/// How often a worker that drains looks, and for how long nothing must have come to one of this host.
const DRAIN_QUIET: Duration = Duration::from_millis(2);

/// For how long nothing must have come where callers or the worker are on another host: longer than the news take to callers
/// and the last call takes back, over any but the slowest links.
const DRAIN_QUIET_REMOTE: Duration = Duration::from_millis(100);

/// How long the engine may take to answer a registration.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a provider may take to say whether it watches for a trigger.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);

fn await_provider(answered: &mpsc::Receiver<Result<(), CallError>>, id: &str) -> Result<(), CallError> {
    let answer = crate::dispatcher::blocking(|| answered.recv_timeout(PROVIDER_TIMEOUT));
    answer.unwrap_or_else(|_| {
        let text = format!(
            "the provider of trigger `{id}` has not said in {PROVIDER_TIMEOUT:?} whether it watches for it; the trigger stays registered"
        );
        Err(CallError::new(ErrorCode::DeadlineExceeded, text))
    })
}

fn first_refusal(results: Vec<RegistrationResult>) -> Result<(), CallError> {
    results.into_iter().try_for_each(outcome)
}

fn outcome(result: RegistrationResult) -> Result<(), CallError> {
    if result.outcome != RegistrationOutcome::Refused {
        return Ok(());
    }
    let error = result.error;
    let error =
        error.unwrap_or_else(|| CallError::new(ErrorCode::InvalidRegistration, "the engine refused it"));
    Err(error.with_function(result.id))
}

fn read_json(message: &Message) -> Result<Value, CallError> {
    if message.body().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(message.body())
        .map_err(|error| Failure::invalid(format!("the reply is no JSON: {error}")).into_error())
}
