//! Observers: functions that are called after each call of another one. Clients here ask for them; they are kept here, as
//! calls of clients' functions end here. `registry` decides, and what it decides is carried out here, in its order. It must
//! not know sockets.
//!
//! - `spec`: what an observer is; `registry`: who observes what; `lane`: the calls of one observer;
//! - `call`: a call that is observed; `hop`: who calls, and how many observers are behind it;
//! - `sources`: what the engine itself is observed for; `binding`: its events;
//! - `delivery`: the calls that observers make; `catalog`: which functions there are;
//! - `functions`: what is told of observers to whoever asks.

mod binding;

mod call;

mod catalog;

mod delivery;

mod functions;

mod hop;

mod lane;

mod registry;

mod sources;

mod spec;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use iii_filter::FilterIndex;
use parking_lot::{Mutex, RwLock};
use ringway::WorkerId;
use tokio::sync::mpsc::UnboundedSender;

pub(crate) use binding::Binding;
pub(crate) use call::{Beginning, Begun, Ended, now_ms};
pub(crate) use delivery::Shot;
pub(crate) use functions::all as functions;
pub(crate) use hop::{ENTRY, Hop, stamped};
pub(crate) use registry::{Hosting, State, Through, Told};
pub(crate) use spec::{Capture, Declared, Deliver, Name, On, Spec};

use crate::protocol::{Ack, Delivered, ErrorBody};
use crate::shared::Shared;
use registry::{Effect, Fired, Registry};

/// iii's codes of what can be wrong with an observer.
pub(crate) mod code {
    pub(crate) const UNSUPPORTED: &str = "UNSUPPORTED";
    pub(crate) const INVALID_ARGS: &str = "INVALID_ARGS";
    pub(crate) const INVALID_ARGS_FORMAT: &str = "INVALID_ARGS_FORMAT";
    pub(crate) const INVALID_OBSERVE_DESCRIPTOR: &str = "INVALID_OBSERVE_DESCRIPTOR";
    pub(crate) const NOT_OBSERVABLE: &str = "NOT_OBSERVABLE";
    pub(crate) const SELF_TARGET: &str = "SELF_TARGET";
    pub(crate) const LIMIT_EXCEEDED: &str = "LIMIT_EXCEEDED";
    pub(crate) const OBSERVER_ID_CONFLICT: &str = "OBSERVER_ID_CONFLICT";
    pub(crate) const OWNER_TIMEOUT: &str = "OWNER_TIMEOUT";
    pub(crate) const OBSERVE_REJECTED: &str = "OBSERVE_REJECTED";
    pub(crate) const OBSERVER_NOT_FOUND: &str = "OBSERVER_NOT_FOUND";
    pub(crate) const NOT_FUNCTION_OWNER: &str = "NOT_FUNCTION_OWNER";
    pub(crate) const OBSERVER_NOT_ACTIVE: &str = "OBSERVER_NOT_ACTIVE";
    pub(crate) const OVERFLOW: &str = "OVERFLOW";
    pub(crate) const LOOP_GUARD: &str = "LOOP_GUARD";
    pub(crate) const OWNER_UNAVAILABLE: &str = "OWNER_UNAVAILABLE";
    pub(crate) const TARGET_UNAVAILABLE: &str = "TARGET_UNAVAILABLE";
    pub(crate) const OBSERVER_DISCONNECTED: &str = "OBSERVER_DISCONNECTED";
    pub(crate) const EXPIRED: &str = "EXPIRED";
    pub(crate) const MAX_FIRES: &str = "MAX_FIRES";
    pub(crate) const UNOBSERVED: &str = "UNOBSERVED";
    pub(crate) const INACTIVE: &str = "INACTIVE";
}

/// The trigger type that the events of a source here come from.
pub(crate) fn trigger_type(source: &Name) -> Option<&'static str> {
    let found = sources::find(&source.namespace, &source.id)?;
    Some(found.trigger_type.unwrap_or(sources::OBSERVERS_CHANGED))
}

/// Who watches the calls of one function: a copy costs nothing, and is read without a lock.
#[derive(Debug, Clone, Default)]
struct Watch {
    /// In the order in which they came.
    index: FilterIndex<u64, Arc<Spec>>,
    /// Those that have a filter, for which values are parsed.
    filtered: usize,
}

/// By namespace and id.
type Watched = HashMap<String, HashMap<String, Watch>>;

/// All observers of all connections.
#[derive(Debug)]
pub(crate) struct Observers {
    shared: Weak<Shared>,
    registry: Mutex<Registry<Shot>>,
    /// Changed under the lock of the registry.
    watched: RwLock<Watched>,
    /// Functions in `watched`: where there are none, a call costs one read of this.
    watched_count: AtomicUsize,
    /// Calls under way that observers make, of all together.
    calls: AtomicUsize,
    /// Clients that have left, as far as the catalog may still name them.
    left: Mutex<HashSet<WorkerId>>,
    /// To whoever asks the engine for its events.
    bindings: Mutex<Option<UnboundedSender<Binding>>>,
    /// Somebody looks after the catalog and the time.
    attended: AtomicBool,
    since: Instant,
}

impl Observers {
    pub(crate) fn new(shared: Weak<Shared>) -> Self {
        Self {
            shared,
            registry: Mutex::new(Registry::new(sources::judge)),
            watched: RwLock::default(),
            watched_count: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            left: Mutex::default(),
            bindings: Mutex::new(None),
            attended: AtomicBool::new(false),
            since: Instant::now(),
        }
    }

    /// The time by which observers live, in milliseconds.
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A connection wants an observer.
    pub(crate) fn observe(&self, client: WorkerId, spec: Spec) {
        self.attend();
        self.step_of(client, |registry, now| registry.observe(client, spec, now));
        // Whoever looked after them may have ended between the two.
        self.attend();
    }

    /// A connection wants one no longer.
    pub(crate) fn unobserve(&self, client: WorkerId, id: &str) {
        self.step(|registry, _| registry.unobserve(client, id));
    }

    /// A connection serves a function.
    pub(crate) fn host(&self, name: &Name, hosting: Hosting) {
        self.step_of(hosting.client, |registry, now| registry.host(name, hosting, now));
    }

    /// A connection serves a function no longer.
    pub(crate) fn unhost(&self, client: WorkerId, name: &Name) {
        self.step(|registry, _| registry.unhost(client, name));
    }

    /// A connection accepts an observer, or does not.
    pub(crate) fn ack(&self, client: WorkerId, namespace: &str, ack: &Ack) {
        self.step(|registry, _| registry.ack(client, namespace, ack));
    }

    /// A connection is over.
    pub(crate) fn gone(&self, client: WorkerId) {
        if self.attended.load(Ordering::Acquire) {
            self.left.lock().insert(client);
        }
        self.step(|registry, now| registry.gone(client, now));
    }

    /// The host of a function calls through one of its observers.
    pub(crate) fn call_through(
        &self,
        client: WorkerId,
        id: &str,
        depth: u32,
    ) -> Result<Through<Shot>, ErrorBody> {
        let mut through = None;
        self.step(|registry, now| {
            let mut effects = Vec::new();
            through = Some(registry.call_through(client, id, depth, now, &mut effects));
            effects
        });
        through.unwrap_or_else(|| Err(ErrorBody::stopped()))
    }

    /// The function that a client has under a name of its own.
    pub(crate) fn hosted(&self, client: WorkerId, namespace: &str, own: &str) -> Option<Name> {
        self.registry.lock().hosted(client, namespace, own)
    }

    /// The function that stands for a trigger type.
    pub(crate) fn stands_for(&self, trigger_type: &str) -> Option<Name> {
        self.registry.lock().stands_for(trigger_type)
    }

    /// Whether an observer is of this client.
    pub(crate) fn is_of(&self, id: &str, client: WorkerId) -> bool {
        self.registry.lock().get(id).is_some_and(|observer| observer.client == Some(client))
    }

    /// A step for a connection, unless that is over: what it had wanted before may come after its end, and nobody would clear
    /// it up again.
    fn step_of(&self, client: WorkerId, step: impl FnOnce(&mut Registry<Shot>, u64) -> Vec<Effect>) {
        let Some(shared) = self.shared.upgrade() else { return };
        self.step(|registry, now| {
            let is_here = shared.session(client).is_some_and(|session| session.is_waiting());
            if is_here { step(registry, now) } else { Vec::new() }
        });
    }

    /// One step of the registry, and all that follows from it.
    fn step(&self, step: impl FnOnce(&mut Registry<Shot>, u64) -> Vec<Effect>) {
        let now = self.now();
        let mut registry = self.registry.lock();
        let effects = step(&mut registry, now);
        let events = self.carry_out(effects);
        drop(registry);
        self.tell_of(events);
    }

    /// Does what was decided, under the registry's lock, so that everybody hears things in the order in which they were
    /// decided. Nothing here waits. Events are given back, as those are decided upon in turn.
    fn carry_out(&self, effects: Vec<Effect>) -> Vec<Effect> {
        let mut events = Vec::new();
        let Some(shared) = self.shared.upgrade().filter(|_| !effects.is_empty()) else { return events };
        for effect in effects {
            match effect {
                Effect::Tell(client, told) => {
                    if let Some(session) = shared.session(client) {
                        session.told(&told);
                    }
                }
                Effect::Bind(spec) => self.bind(Binding::Wanted(spec)),
                Effect::Unbind(id) => self.bind(Binding::Unwanted(id)),
                Effect::Watch(number, spec) => self.watch(number, spec),
                Effect::Unwatch(number, source) => self.unwatch(number, &source),
                Effect::Event { .. } => events.push(effect),
            }
        }
        events
    }

    fn watch(&self, number: u64, spec: Arc<Spec>) {
        let mut watched = self.watched.write();
        let Name { namespace, id } = &spec.source;
        let watch = watched.entry(namespace.clone()).or_default().entry(id.clone()).or_default();
        watch.filtered += usize::from(!spec.filter.is_match_all());
        let filter = spec.filter.clone();
        drop(watch.index.insert(number, &filter, spec));
        self.watched_count.store(watched.values().map(HashMap::len).sum(), Ordering::Release);
    }

    fn unwatch(&self, number: u64, source: &Name) {
        let mut watched = self.watched.write();
        if let Some(functions) = watched.get_mut(&source.namespace)
            && let Some(watch) = functions.get_mut(&source.id)
        {
            if let Some(spec) = watch.index.remove(&number) {
                watch.filtered -= usize::from(!spec.filter.is_match_all());
            }
            if watch.index.is_empty() {
                functions.remove(&source.id);
            }
        }
        self.watched_count.store(watched.values().map(HashMap::len).sum(), Ordering::Release);
    }

    fn watch_of(&self, namespace: &str, id: &str) -> Option<Watch> {
        if self.watched_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.watched.read().get(namespace)?.get(id).cloned()
    }

    /// Whether anybody watches the calls of a function.
    pub(crate) fn is_watched(&self, namespace: &str, id: &str) -> bool {
        self.watched_count.load(Ordering::Acquire) > 0
            && self.watched.read().get(namespace).is_some_and(|functions| functions.contains_key(id))
    }

    /// A call of a function has ended: those that want to know of it are told. `host` is who served it.
    pub(crate) fn ended(&self, call: &Ended<'_>, delivered: &Delivered, host: Option<(&str, Option<&str>)>) {
        if delivered.by_host {
            return;
        }
        let Some(watch) = self.watch_of(&call.name.namespace, &call.name.id) else { return };
        let wanted: Vec<Arc<Spec>> = {
            let document = (watch.filtered > 0).then(|| call.document());
            let fits =
                |spec: &Spec| document.as_ref().is_none_or(|document| spec.filter.matches(&document.view()));
            let wants = |spec: &&Arc<Spec>| spec.on.wants(call.success);
            match (&delivered.matched, &document) {
                (Some(matched), _) => {
                    let matched: HashSet<&str> = matched.iter().map(String::as_str).collect();
                    let named = |spec: &&Arc<Spec>| matched.contains(&*spec.id) && fits(spec);
                    watch.index.iter().map(|(_, spec)| spec).filter(wants).filter(named).cloned().collect()
                }
                (None, Some(document)) => {
                    let matches = watch.index.matches(&document.view());
                    matches.map(|(_, spec)| spec).filter(wants).cloned().collect()
                }
                (None, None) => watch.index.iter().map(|(_, spec)| spec).filter(wants).cloned().collect(),
            }
        };
        self.fire(call, wanted.iter().map(|spec| spec.id.as_str()), false, host);
    }

    /// Tells observers of a call, as far as they may still be told.
    pub(crate) fn fire<'a>(
        &self,
        call: &Ended<'_>,
        ids: impl Iterator<Item = &'a str>,
        by_owner: bool,
        host: Option<(&str, Option<&str>)>,
    ) {
        let mut fired: Vec<Fired<Shot>> = Vec::new();
        self.step(|registry, now| {
            let mut effects = Vec::new();
            // Where the host says what an event is, its calls are none.
            if by_owner || registry.calls_are_events(&call.name) {
                for id in ids {
                    fired.extend(registry.fire(id, &call.name, call.depth, now, &mut effects));
                }
            }
            effects
        });
        for fired in fired {
            self.deliver(call, fired, host);
        }
    }

    /// Calls that an observer was not told of.
    fn dropped(&self, id: &str, reason: &'static str) {
        self.registry.lock().drop_of(id, reason);
    }
}
