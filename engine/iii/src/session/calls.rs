//! What this client calls: any function of the catalog, by the engine as any worker does. It must not know who serves it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ringway::protocol::naming::{NAMESPACE_DEFAULT, WORKERS_INFO, WORKERS_LIST, WORKERS_REGISTER};
use ringway::{Baggage, CallError, CallOptions, Encoding, Handle, Message, Pending, TraceContext, protocol};
use serde_json::value::RawValue;

use parking_lot::{Mutex, RwLock};

use super::Session;
use super::requests::{Asked, From, Near, Waiting};
use crate::limits::{QUICK_CALLS_MAX, ROUTES_MAX};
use crate::observers::{ENTRY, Hop, stamped};
use crate::protocol::{
    Action, ErrorBody, Frame, Invoke, Outcome, code, is_null, of_call, uuid_of, uuid_random, with_uuids,
};

/// The baggage entry that names the function which is called.
const FUNCTION_ENTRY: &str = "iii.function.id";

/// What a queue serves for iii's clients.
const ENQUEUE: &str = "engine::queue::enqueue";

/// How long the other end of a channel that is open may take to show, and how often it is looked.
const NEIGHBOUR_MAX: Duration = Duration::from_millis(20);
const NEIGHBOUR_EVERY: Duration = Duration::from_micros(100);

/// A function that this client calls.
#[derive(Debug)]
pub(crate) struct Route {
    namespace: String,
    function: String,
    handle: Handle,
    /// Where only one of the other clients here serves it: the way that needs no detour.
    near: RwLock<Option<Arc<Neighbour>>>,
    /// Calls under way.
    in_flight: AtomicUsize,
    /// Calls that wait, in their order, until the engine has said whether it knows the function; none while nobody asks.
    unknown: Mutex<Option<VecDeque<Begun>>>,
}

/// A call that is to be started.
#[derive(Debug)]
struct Begun {
    under_way: UnderWay,
    message: Message,
    options: CallOptions,
    reply: ReplyTo,
    shape: Shape,
}

/// A client here that serves a function alone.
#[derive(Debug)]
struct Neighbour {
    session: Weak<Session>,
    right: ringway::Near,
}

/// A call that is under way.
#[derive(Debug)]
struct UnderWay(Arc<Route>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Where an answer goes, and what it says beside its value.
#[derive(Debug, Clone)]
pub(crate) struct ReplyTo {
    invocation_id: Option<String>,
    function_id: String,
    traceparent: Option<String>,
    baggage: Option<String>,
}

impl ReplyTo {
    fn of(invoke: &Invoke<'_>) -> Self {
        // A void call has no answer, whatever id it brings.
        let wants = invoke.action != Action::Void;
        Self {
            invocation_id: invoke.invocation_id.as_deref().filter(|_| wants).map(str::to_owned),
            function_id: invoke.function_id.clone().into_owned(),
            traceparent: invoke.traceparent.as_deref().map(str::to_owned),
            baggage: invoke.baggage.as_deref().map(str::to_owned),
        }
    }
}

impl Session {
    /// Makes a call for the client.
    pub(super) fn call(self: &Arc<Self>, invoke: &Invoke<'_>) {
        let reply = ReplyTo::of(invoke);
        let namespace = invoke.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        if namespace.trim().is_empty() {
            let text = "the namespace is blank; leave it out to mean `default`";
            return self.reply(&reply, Err(ErrorBody::new(code::INVALID_NAMESPACE, text)));
        }
        if &*invoke.function_id == WORKERS_REGISTER {
            return self.announced(invoke.data, reply);
        }
        if let Some(observer) = &invoke.observer {
            return self.call_through(observer, invoke, reply);
        }
        if self.admits(namespace, invoke, &reply) {
            self.call_admitted(namespace, invoke, reply);
        }
    }

    /// Makes a call that the listener's rules let pass.
    pub(super) fn call_admitted(self: &Arc<Self>, namespace: &str, invoke: &Invoke<'_>, reply: ReplyTo) {
        match &invoke.action {
            Action::Wait | Action::Void => {
                let route = self.route(namespace, &invoke.function_id);
                let Some(reply) = self.call_neighbour(&route, invoke, reply) else { return };
                let shape = match &*invoke.function_id {
                    WORKERS_LIST | WORKERS_INFO => Shape::Workers,
                    function if self.is_listing(function) => Shape::Listing,
                    _ => Shape::Plain,
                };
                self.start(route, invoke.data.as_bytes(), invoke, reply, shape);
            }
            Action::Enqueue(queue) => self.enqueue(namespace, queue, invoke, reply),
            Action::Unknown(said) => {
                let text = format!("wanted an action of type `void` or `enqueue`, found {said}");
                self.reply(&reply, Err(ErrorBody::new(code::INVOCATION_ERROR, text)));
            }
        }
    }

    /// Asks the client here that serves a function alone. What cannot go this way is given back.
    fn call_neighbour(
        self: &Arc<Self>,
        route: &Route,
        invoke: &Invoke<'_>,
        reply: ReplyTo,
    ) -> Option<ReplyTo> {
        let Some((neighbour, callee)) = self.neighbour(route) else { return Some(reply) };
        let serving = callee.serving(&route.function);
        if serving.as_ref().is_some_and(|serving| serving.elsewhere) {
            return Some(reply);
        }
        if serving.as_ref().is_some_and(|serving| serving.private) && callee.worker_id != self.worker_id {
            self.reply(&reply, Err(private(&route.function)));
            return None;
        }
        let parent =
            invoke.traceparent.as_deref().and_then(|text| TraceContext::parse_traceparent(text).ok());
        let Some(call) = neighbour.right.begin(&route.handle, parent, invoke.data.len() as u64) else {
            // It has moved, or may not be called any longer: the usual way finds out.
            *route.near.write() = None;
            return Some(reply);
        };
        let trace = call.trace();
        let traceparent = trace.is_valid().then(|| trace.to_string());
        let baggage = invoke.baggage.as_deref().and_then(|text| Baggage::parse(text).ok());
        let baggage = baggage.map(|baggage| baggage_for(&baggage, &route.function));
        let name = self.peer.get().and_then(|peer| peer.name.as_deref());
        let asked = Asked {
            function: serving.as_ref().map_or(&route.function, |serving| &serving.own),
            registered: &route.function,
            data: invoke.data,
            caller: Some(&self.uuid),
            from: From::worker(&self.uuid, name, invoke.caller, invoke.observe_depth),
            metadata: invoke.metadata,
            traceparent: traceparent.as_deref(),
            baggage: baggage.as_deref(),
        };
        let near = Near { caller: Arc::downgrade(self), reply, call };
        if let Err((error, Some(waiting))) = callee.ask_for(&asked, Waiting::Client(Box::new(near))) {
            waiting.tell(Outcome::Error(error));
        }
        None
    }

    fn neighbour(&self, route: &Route) -> Option<(Arc<Neighbour>, Arc<Self>)> {
        let known = route.near.read().clone();
        if let Some(neighbour) = known {
            if let Some(session) = neighbour.session.upgrade() {
                return Some((neighbour, session));
            }
            // It has left; another client may serve the function by now.
            *route.near.write() = None;
        }
        let session = self.place.shared.session(route.handle.sole_worker()?)?;
        let (caller, callee) = (&self.peer.get()?.worker, &session.peer.get()?.worker);
        // What went the usual way before has arrived, so that nothing overtakes it.
        if route.in_flight.load(Ordering::Acquire) > 0 {
            return None;
        }
        let right = callee.near(caller).or_else(|| {
            // The first call of this client to that one: the engine is asked for a channel, once.
            tokio::task::block_in_place(|| {
                route.handle.bind().ok()?;
                let until = Instant::now() + NEIGHBOUR_MAX;
                loop {
                    match callee.near(caller) {
                        None if Instant::now() < until => std::thread::sleep(NEIGHBOUR_EVERY),
                        found => return found,
                    }
                }
            })
        })?;
        let neighbour = Arc::new(Neighbour { session: Arc::downgrade(&session), right });
        *route.near.write() = Some(Arc::clone(&neighbour));
        Some((neighbour, session))
    }

    fn enqueue(self: &Arc<Self>, namespace: &str, queue: &str, invoke: &Invoke<'_>, reply: ReplyTo) {
        let receipt = uuid_random();
        let baggage = queued_baggage(invoke, &self.uuid);
        let request = Frame::object(invoke.data.len() + 256)
            .text("queue", queue)
            .text("function_id", &invoke.function_id)
            .json("data", invoke.data)
            .plain("messageReceiptId", &receipt)
            .maybe_text("traceparent", invoke.traceparent.as_deref())
            .maybe_text("baggage", baggage.as_deref())
            .maybe_text("namespace", Some(namespace).filter(|namespace| *namespace != NAMESPACE_DEFAULT))
            .end();
        let route = self.route(NAMESPACE_DEFAULT, ENQUEUE);
        self.start(route, request.as_bytes(), invoke, reply, Shape::Receipt(receipt));
    }

    /// Starts a call, and has its end told.
    pub(super) fn start(
        self: &Arc<Self>,
        route: Arc<Route>,
        data: &[u8],
        invoke: &Invoke<'_>,
        reply: ReplyTo,
        shape: Shape,
    ) {
        let message = Message::new(Encoding::Json, data);
        let options = self.options(invoke);
        let busy = route.in_flight.fetch_add(1, Ordering::AcqRel);
        let call = Begun { under_way: UnderWay(Arc::clone(&route)), message, options, reply, shape };
        let Some(call) = self.ask_first(&route, call) else { return };
        let Begun { under_way, message, options, reply, shape } = call;
        let begin = || route.handle.start(&message, &options);
        // Where many calls are under way, one more may have to wait for room, and others are to go on meanwhile.
        let started = if busy > QUICK_CALLS_MAX { tokio::task::block_in_place(begin) } else { begin() };
        let session = Arc::clone(self);
        tokio::spawn(async move { session.finish(under_way, started, &reply, shape).await });
    }

    /// Has the engine asked first whether it knows the function, where nobody is known to serve it. That may take a while, so
    /// others go on, and calls of this function line up behind the first. A call that need not wait is given back.
    fn ask_first(self: &Arc<Self>, route: &Arc<Route>, call: Begun) -> Option<Begun> {
        {
            let mut unknown = route.unknown.lock();
            match &mut *unknown {
                Some(line) => {
                    line.push_back(call);
                    return None;
                }
                None if route.handle.replicas() > 0 => return Some(call),
                None => *unknown = Some(VecDeque::from([call])),
            }
        }
        let (session, route) = (Arc::clone(self), Arc::clone(route));
        tokio::spawn(async move {
            loop {
                let next = {
                    let mut unknown = route.unknown.lock();
                    let next = unknown.as_mut().and_then(VecDeque::pop_front);
                    if next.is_none() {
                        *unknown = None;
                    }
                    next
                };
                let Some(Begun { under_way, message, options, reply, shape }) = next else { break };
                let started = tokio::task::block_in_place(|| route.handle.start(&message, &options));
                let session = Arc::clone(&session);
                tokio::spawn(async move { session.finish(under_way, started, &reply, shape).await });
            }
        });
        None
    }

    async fn finish(
        &self,
        under_way: UnderWay,
        started: Result<Pending, CallError>,
        reply: &ReplyTo,
        shape: Shape,
    ) {
        let ended = match started {
            Ok(pending) => pending.await,
            Err(error) => Err(error),
        };
        let route = &under_way.0;
        match ended {
            Ok(message) => match shape {
                Shape::Plain => match value_of(&message) {
                    Ok(value) => self.reply(reply, Ok(value)),
                    Err(error) => self.reply(reply, Err(error)),
                },
                Shape::Workers => match value_of(&message) {
                    Ok(value) => self.reply(reply, Ok(value.map(with_uuids).as_deref())),
                    Err(error) => self.reply(reply, Err(error)),
                },
                Shape::Listing => {
                    let callable =
                        value_of(&message).and_then(|listing| self.only_callable(listing.unwrap_or("null")));
                    match callable {
                        Ok(listing) => self.reply(reply, Ok(Some(&listing))),
                        Err(error) => self.reply(reply, Err(error)),
                    }
                }
                Shape::Receipt(receipt) => {
                    self.reply(reply, Ok(Some(&format!("{{\"messageReceiptId\":\"{receipt}\"}}"))));
                }
            },
            Err(error) => {
                let elsewhere = self.elsewhere(&error, route);
                let body = of_call(&error, &route.namespace, &route.function, &elsewhere);
                let body = if matches!(shape, Shape::Receipt(_)) { not_enqueued(&body) } else { body };
                self.reply(reply, Err(body));
            }
        }
    }

    /// The namespaces in which a function is that was not found.
    fn elsewhere(&self, error: &CallError, route: &Route) -> Vec<String> {
        if error.code != ringway::ErrorCode::NotFound || error.user_code.is_some() {
            return Vec::new();
        }
        let catalog = self.caller().catalog();
        let same = catalog.functions.iter().filter(|function| function.id.as_str() == route.function);
        let mut namespaces: Vec<_> = same.map(|function| function.namespace.clone()).collect();
        namespaces.retain(|namespace| *namespace != route.namespace);
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }

    pub(super) fn route(&self, namespace: &str, function: &str) -> Arc<Route> {
        let known = |routes: &HashMap<String, HashMap<String, Arc<Route>>>| {
            routes.get(namespace)?.get(function).cloned()
        };
        if let Some(route) = known(&self.routes.read()) {
            return route;
        }
        let route = Arc::new(Route {
            namespace: namespace.to_owned(),
            function: function.to_owned(),
            handle: self.caller().handle_in(namespace, function),
            near: RwLock::new(None),
            in_flight: AtomicUsize::new(0),
            unknown: Mutex::new(None),
        });
        // Only a worker's own calls are remembered; the listener makes them until it has one.
        if self.peer.get().is_some() {
            let mut routes = self.routes.write();
            if routes.values().map(HashMap::len).sum::<usize>() >= ROUTES_MAX {
                // Names that do not exist are as many as a client likes. What is under way keeps its route, so that nothing
                // overtakes it.
                for functions in routes.values_mut() {
                    functions.retain(|_, route| Arc::strong_count(route) > 1);
                }
                routes.retain(|_, functions| !functions.is_empty());
            }
            routes.entry(namespace.to_owned()).or_default().insert(function.to_owned(), Arc::clone(&route));
        }
        route
    }

    /// Answers a call of the client's, if it wants an answer.
    pub(crate) fn reply(&self, to: &ReplyTo, outcome: Result<Option<&str>, ErrorBody>) {
        let Some(id) = &to.invocation_id else {
            if let Err(error) = outcome {
                tracing::debug!(function = to.function_id, ?error, "a call that wanted no answer failed");
            }
            return;
        };
        let frame = |outcome: &Result<Option<&str>, ErrorBody>| {
            let room = outcome.as_ref().map_or(0, |value| value.map_or(0, str::len)) + 256;
            let frame = Frame::with_room("invocationresult", room)
                .text("invocation_id", id)
                .text("function_id", &to.function_id);
            let frame = match outcome {
                Ok(value) => frame.maybe_json("result", value.filter(|json| !is_null(json))),
                Err(error) => frame.error(error),
            };
            frame
                .maybe_text("traceparent", to.traceparent.as_deref())
                .maybe_text("baggage", to.baggage.as_deref())
                .end()
        };
        let mut text = frame(&outcome);
        if let Err(error) = self.check_size(text.len()) {
            text = frame(&Err(error));
        }
        let _over = self.outbox.send(text);
    }
}

/// What becomes of the value.
#[derive(Debug)]
pub(super) enum Shape {
    /// It is the answer.
    Plain,
    /// Workers, which clients know by their UUIDs.
    Workers,
    /// Functions, of which the client may know those that it may call.
    Listing,
    /// The answer is this receipt.
    Receipt(String),
}

fn not_enqueued(body: &ErrorBody) -> ErrorBody {
    let text = if body.code == code::FUNCTION_NOT_FOUND {
        "no queue is there: the built-in worker `queue` is turned off in ringway.yaml".to_owned()
    } else {
        format!("{}: {}", body.code, body.message)
    };
    ErrorBody::new(code::ENQUEUE_ERROR, text)
}

/// What somebody is told who calls what only its own client may call.
pub(super) fn private(function: &str) -> ErrorBody {
    let text = format!("function '{function}' is private: only the worker that serves it may call it");
    ErrorBody::new(code::FORBIDDEN, text)
}

/// A reply as JSON.
pub(super) fn value_of(message: &Message) -> Result<Option<&str>, ErrorBody> {
    let body = message.body();
    if body.is_empty() {
        return Ok(None);
    }
    let refused = |found: String| {
        ErrorBody::new("serialization_error", format!("the function did not answer with JSON: {found}"))
    };
    if message.encoding() != Encoding::Json {
        return Err(refused(format!("it is {}", message.encoding())));
    }
    let checked: Result<&RawValue, _> = serde_json::from_slice(body);
    checked.map(|value| Some(value.get())).map_err(|error| refused(error.to_string()))
}

impl Session {
    /// Who calls and how deep, for a call that goes by a ring. Until the client has a worker of its own, the listener calls
    /// for it, and says so.
    fn hop(&self, invoke: &Invoke<'_>) -> Option<Hop> {
        if self.peer.get().is_some() {
            return Hop::new(&self.uuid, invoke.caller, invoke.observe_depth, None);
        }
        let caller = stamped(invoke.caller, &self.uuid, None);
        let listener = uuid_of(self.place.shared.worker.id());
        Hop::new(&listener, Some(&caller), invoke.observe_depth, None)
    }

    fn options(&self, invoke: &Invoke<'_>) -> CallOptions {
        let mut options = CallOptions::new();
        let trace = invoke.traceparent.as_deref().and_then(|text| TraceContext::parse_traceparent(text).ok());
        if let Some(trace) = trace {
            options = options.parent(trace);
        }
        let baggage = invoke.baggage.as_deref().and_then(|text| Baggage::parse(text).ok());
        let hop = self.hop(invoke);
        if baggage.is_some() || hop.is_some() {
            let mut baggage = baggage.unwrap_or_default();
            baggage.remove(ENTRY);
            if let Some(hop) = hop {
                hop.put(&mut baggage);
            }
            options = options.baggage(baggage);
        }
        if let Some(metadata) = invoke.metadata.and_then(|json| serde_json::from_str(json).ok()) {
            options = options.metadata(metadata);
        }
        options
    }
}

/// Baggage of a call that a queue makes later: how many observers are behind it outlives the queue.
fn queued_baggage(invoke: &Invoke<'_>, uuid: &str) -> Option<String> {
    let said = invoke.baggage.as_deref().and_then(|text| Baggage::parse(text).ok());
    let told = said.map(|baggage| baggage_for(&baggage, &invoke.function_id));
    let Some(hop) = Hop::new(uuid, None, invoke.observe_depth, None) else { return told };
    let mut baggage = told.and_then(|told| Baggage::parse(&told).ok()).unwrap_or_default();
    hop.put(&mut baggage);
    Some(baggage.format())
}

/// Baggage on its way to a function: what it says of the called function is true again.
pub(super) fn baggage_for(baggage: &protocol::baggage::Baggage, function: &str) -> String {
    let is_true = baggage.get(FUNCTION_ENTRY).is_none_or(|named| named == function);
    if is_true && baggage.get(ENTRY).is_none() {
        return baggage.format();
    }
    let mut changed = baggage.clone();
    // Clients are told in fields of the message.
    changed.remove(ENTRY);
    if is_true {
        return changed.format();
    }
    match changed.set(FUNCTION_ENTRY, function) {
        Ok(()) => changed.format(),
        Err(_) => changed.format(),
    }
}
