//! Who observes what: every observer from its wish to its end, the hosts of functions and what they were told. Pure: time
//! comes with each step, and each step says what is to be done. It must not know connections beyond their numbers, nor how
//! calls are made.
//!
//! - `hosts`: those that serve functions, and whether they accept who observes them;
//! - `firing`: whether a call is told to an observer.
//!
//! An observer is `active` when its client is here, its target exists, and its source's host accepts it; `judge` alone
//! decides that, after each step that could change it.

mod firing;

mod hosts;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub(crate) use firing::{Fired, Through};
pub(crate) use hosts::Hosting;
use ringway::WorkerId;
use serde_json::Value;

use super::code;
use super::lane::{Held, Lane, Weighed};
use super::spec::{Name, Spec};
use crate::limits::{OBSERVER_AWAY_MS, OBSERVERS_MAX};
use crate::protocol::ErrorBody;
use hosts::{Ack, Source};

/// Where an observer is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Active,
    Suspended,
    Error,
    Disposed,
}

impl State {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Error => "error",
            Self::Disposed => "disposed",
        }
    }
}

/// What a connection is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// What became of its wish.
    Result { id: String, state: State, error: Option<ErrorBody>, warnings: Vec<String> },
    /// Where its observer is now.
    Changed { id: String, state: State, reason: Option<ErrorBody>, fires: u64 },
    /// Its function is registered, and who observes it.
    Registered { own: String, namespace: String, revision: u64, local: bool, observers: Vec<Value> },
    /// Somebody observes its function.
    Added { own: String, namespace: String, revision: u64, view: Value },
    /// Somebody observes it no longer.
    Removed { own: String, namespace: String, revision: u64, id: String },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// A connection is told.
    Tell(WorkerId, Told),
    /// Events of the engine are wanted for this observer.
    Bind(Arc<Spec>),
    /// They are not wanted any more.
    Unbind(String),
    /// Calls of this source are told to this observer from now on.
    Watch(u64, Arc<Spec>),
    /// They are not any more.
    Unwatch(u64, Name),
    /// An observer has changed its state, for those who observe that.
    Event { spec: Arc<Spec>, state: State, reason: Option<ErrorBody> },
}

/// One observer.
#[derive(Debug)]
pub(crate) struct Observer<T> {
    pub(crate) spec: Arc<Spec>,
    /// The order in which observers came.
    number: u64,
    /// Its client; none while that is away.
    pub(crate) client: Option<WorkerId>,
    /// Until when its client may be away, in milliseconds.
    away_until: Option<u64>,
    expires_at: Option<u64>,
    pub(crate) state: State,
    pub(crate) reason: Option<ErrorBody>,
    /// Why it is refused for good.
    refused: Option<ErrorBody>,
    was_active: bool,
    /// What hosts were told, and whether they accept it.
    acks: BTreeMap<WorkerId, Ack>,
    /// Whether the engine's events come; none where they were not asked for.
    bound: Option<bool>,
    pub(crate) fires: u64,
    /// Calls that it was not told of, by the reason.
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    pub(crate) lane: Arc<Lane<T>>,
}

/// Says of an observer's wish whether the engine has such events, and what is wrong with it if so.
pub(crate) type BuiltIn = fn(&Spec) -> Option<Result<(), ErrorBody>>;

/// All observers and hosts.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    observers: HashMap<String, Observer<T>>,
    by_number: BTreeMap<u64, String>,
    sources: HashMap<Name, Source>,
    /// By the observed function.
    by_source: HashMap<Name, BTreeSet<u64>>,
    by_target: HashMap<Name, BTreeSet<u64>>,
    by_client: HashMap<WorkerId, BTreeSet<u64>>,
    /// What the catalog has, and whether a native worker serves it.
    known: HashMap<Name, bool>,
    /// Whether the engine has events for what an observer wants, and what is wrong with it if so.
    built_in: BuiltIn,
    /// Bytes that wait for all of them.
    held: Held,
    next: u64,
    /// When the last step was, in milliseconds.
    now: u64,
}

impl<T: Weighed> Registry<T> {
    pub(crate) fn new(built_in: BuiltIn) -> Self {
        Self {
            observers: HashMap::new(),
            by_number: BTreeMap::new(),
            sources: HashMap::new(),
            by_source: HashMap::new(),
            by_target: HashMap::new(),
            by_client: HashMap::new(),
            known: HashMap::new(),
            built_in,
            held: Held::default(),
            next: 0,
            now: 0,
        }
    }

    /// An observer.
    pub(crate) fn get(&self, id: &str) -> Option<&Observer<T>> {
        self.observers.get(id)
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Observer<T>> {
        self.by_number.values().filter_map(|id| self.observers.get(id))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.observers.is_empty()
    }

    /// A connection wants an observer, maybe anew after it was away.
    pub(crate) fn observe(&mut self, client: WorkerId, spec: Spec, now: u64) -> Vec<Effect> {
        self.now = now;
        let mut effects = Vec::new();
        if let Some(known) = self.observers.get(&spec.id) {
            if known.client.is_some_and(|other| other != client) {
                let text = format!("observer id already in use: {}", spec.id);
                return refusal(client, spec.id, ErrorBody::new(code::OBSERVER_ID_CONFLICT, text));
            }
            if *known.spec == spec {
                self.replay(client, &spec.id, &mut effects);
                return effects;
            }
            // Another observer of the same id; that one's client does not know it any more.
            self.forget(&spec.id, &mut effects);
        }
        let admitted = self.may_be(client, &spec);
        let warnings = match admitted {
            Ok(warnings) => warnings,
            Err(error) => return refusal(client, spec.id, error),
        };
        let id = spec.id.clone();
        let spec = self.add(client, spec, now);
        self.want(&id, &mut effects);
        let (state, reason) = self.judge(&id);
        if let Some(observer) = self.observers.get_mut(&id) {
            (observer.state, observer.reason) = (state, reason);
            observer.was_active = state == State::Active;
        }
        let told = Told::Result { id, state, error: None, warnings };
        // Whoever asked hears of it first, and of calls after that it is told.
        effects.insert(0, Effect::Tell(client, told));
        if state == State::Active {
            effects.insert(0, Effect::Watch(self.next, Arc::clone(&spec)));
        }
        effects.push(Effect::Event { spec, state, reason: None });
        effects
    }

    fn may_be(&self, client: WorkerId, spec: &Spec) -> Result<Vec<String>, ErrorBody> {
        let own = self.by_client.get(&client).map_or(0, BTreeSet::len);
        if own >= OBSERVERS_MAX {
            let text = format!("a connection has at most {OBSERVERS_MAX} observers");
            return Err(ErrorBody::new(code::LIMIT_EXCEEDED, text));
        }
        match self.sources.get(&spec.source).filter(|source| !source.hosts.is_empty()) {
            Some(source) => source.admit(spec),
            None => self.may_be_unhosted(spec).map(|()| Vec::new()),
        }
    }

    /// Whether a function may be observed that no client here serves.
    fn may_be_unhosted(&self, spec: &Spec) -> Result<(), ErrorBody> {
        if let Some(judged) = (self.built_in)(spec) {
            return judged;
        }
        if self.known.get(&spec.source) != Some(&true) {
            return Ok(());
        }
        let text = format!(
            "{} is served by a native worker, whose calls pass nobody that could tell of them; bind a trigger, or observe \
             a source such as `state::on-changed`",
            spec.source
        );
        Err(ErrorBody::new(code::NOT_OBSERVABLE, text))
    }

    fn add(&mut self, client: WorkerId, spec: Spec, now: u64) -> Arc<Spec> {
        self.next += 1;
        let (number, spec) = (self.next, Arc::new(spec));
        let observer = Observer {
            number,
            client: Some(client),
            away_until: None,
            expires_at: spec.expires_in_ms.map(|ms| now.saturating_add(ms)),
            state: State::Pending,
            reason: None,
            refused: None,
            was_active: false,
            acks: BTreeMap::new(),
            bound: None,
            fires: 0,
            dropped: BTreeMap::new(),
            lane: Arc::new(Lane::new(spec.in_flight_max(), Held::clone(&self.held))),
            spec: Arc::clone(&spec),
        };
        self.by_number.insert(number, spec.id.clone());
        self.by_source.entry(spec.source.clone()).or_default().insert(number);
        self.by_target.entry(spec.target.clone()).or_default().insert(number);
        self.by_client.entry(client).or_default().insert(number);
        self.observers.insert(spec.id.clone(), observer);
        spec
    }

    /// The same wish again: from its client, or from a later connection of it.
    fn replay(&mut self, client: WorkerId, id: &str, effects: &mut Vec<Effect>) {
        let Some(observer) = self.observers.get_mut(id) else { return };
        if let Some(error) = observer.refused.clone() {
            let told = Told::Result {
                id: id.to_owned(),
                state: State::Error,
                error: Some(error),
                warnings: Vec::new(),
            };
            effects.push(Effect::Tell(client, told));
            return self.forget(id, effects);
        }
        let is_back = observer.client.is_none();
        if is_back {
            observer.client = Some(client);
            observer.away_until = None;
            observer.lane = Arc::new(Lane::new(observer.spec.in_flight_max(), Held::clone(&self.held)));
            self.by_client.entry(client).or_default().insert(observer.number);
            self.want(id, effects);
        }
        let before = self.observers.get(id).map(|observer| observer.state);
        let (state, reason) = self.judge(id);
        let told = Told::Result { id: id.to_owned(), state, error: None, warnings: Vec::new() };
        effects.insert(0, Effect::Tell(client, told));
        if let Some(observer) = self.observers.get_mut(id) {
            (observer.state, observer.reason) = (state, reason);
            if before != Some(State::Active) && state == State::Active {
                observer.was_active = true;
                // Before its client hears of it, so that it is told of every call after that.
                effects.insert(0, Effect::Watch(observer.number, Arc::clone(&observer.spec)));
            }
        }
    }

    /// A connection wants an observer of its own no longer, maybe before it has asked for it again. Others, and those that were
    /// refused, are nobody's business.
    pub(crate) fn unobserve(&mut self, client: WorkerId, id: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.observers.get(id).is_some_and(|observer| observer.client.is_none_or(|of| of == client)) {
            let text = "its client wants it no longer";
            self.dispose(id, ErrorBody::new(code::UNOBSERVED, text), &mut effects);
        }
        effects
    }

    /// A connection is over: its observers wait for it, its functions are gone.
    pub(crate) fn gone(&mut self, client: WorkerId, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let own: Vec<String> = self.ids(self.by_client.get(&client));
        self.by_client.remove(&client);
        // First nobody is told anything any more who is not there.
        for id in &own {
            let Some(observer) = self.observers.get_mut(id) else { continue };
            observer.client = None;
            observer.away_until = Some(now.saturating_add(OBSERVER_AWAY_MS));
            observer.lane.close();
        }
        self.host_gone(client, &mut effects);
        for id in &own {
            if self.observers.get(id).is_some_and(|observer| observer.spec.legacy.is_some()) {
                // A trigger ends with its client.
                self.forget(id, &mut effects);
            } else {
                self.unwant(id, &mut effects);
                self.settle(id, &mut effects);
            }
        }
        effects
    }

    /// What the catalog has now.
    pub(crate) fn catalog(&mut self, known: HashMap<Name, bool>) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.known, known);
        let came = self.known.iter().filter(|(name, native)| before.get(name) != Some(native));
        let left = before.keys().filter(|name| !self.known.contains_key(name));
        let changed: Vec<Name> = came.map(|(name, _)| name).chain(left).cloned().collect();
        let mut effects = Vec::new();
        for name in changed {
            for id in self.ids(self.by_source.get(&name)) {
                self.look_at_source(&id, &mut effects);
            }
            for id in self.ids(self.by_target.get(&name)) {
                self.settle(&id, &mut effects);
            }
        }
        effects
    }

    /// A function that came into the catalog may be one that cannot be observed.
    fn look_at_source(&mut self, id: &str, effects: &mut Vec<Effect>) {
        let Some(observer) = self.observers.get(id) else { return };
        let spec = Arc::clone(&observer.spec);
        let hosted = self.sources.get(&spec.source).is_some_and(|source| !source.hosts.is_empty());
        if hosted || observer.refused.is_some() {
            return;
        }
        if let Err(error) = self.may_be_unhosted(&spec) {
            self.refuse(id, error, effects);
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: u64) -> Vec<Effect> {
        self.now = now;
        let over = |until: Option<u64>| until.is_some_and(|until| until <= now);
        let mut effects = Vec::new();
        let is_due = |observer: &&Observer<T>| {
            over(observer.expires_at)
                || over(observer.away_until)
                || observer.acks.values().any(|ack| !ack.accepted && ack.until <= now)
        };
        let due: Vec<String> = self.all().filter(is_due).map(|observer| observer.spec.id.clone()).collect();
        for id in due {
            let Some(observer) = self.observers.get(&id) else { continue };
            if over(observer.expires_at) {
                self.dispose(&id, expired(), &mut effects);
            } else if over(observer.away_until) {
                let text = "its client did not come back";
                let reason = ErrorBody::new(code::OBSERVER_DISCONNECTED, text);
                self.dispose(&id, reason, &mut effects);
            } else {
                let text =
                    format!("the worker that serves {} did not accept it in time", observer.spec.source);
                self.refuse(&id, ErrorBody::new(code::OWNER_TIMEOUT, text), &mut effects);
            }
        }
        effects
    }

    /// The engine has said whether it has events for an observer. What it says of an earlier one of the same id is out of date.
    pub(crate) fn bound(&mut self, spec: &Arc<Spec>, outcome: Result<(), ErrorBody>) -> Vec<Effect> {
        let (id, mut effects) = (spec.id.as_str(), Vec::new());
        let is_asked =
            |observer: &&mut Observer<T>| observer.bound.is_some() && Arc::ptr_eq(&observer.spec, spec);
        let Some(observer) = self.observers.get_mut(id).filter(is_asked) else { return effects };
        match outcome {
            Ok(()) => {
                observer.bound = Some(true);
                self.settle(id, &mut effects);
            }
            Err(error) => self.refuse(id, error, &mut effects),
        }
        effects
    }

    fn ids(&self, numbers: Option<&BTreeSet<u64>>) -> Vec<String> {
        numbers.into_iter().flatten().filter_map(|number| self.by_number.get(number).cloned()).collect()
    }

    /// In which state an observer is, and why.
    fn judge(&self, id: &str) -> (State, Option<ErrorBody>) {
        let Some(observer) = self.observers.get(id) else { return (State::Disposed, None) };
        if let Some(error) = &observer.refused {
            return (State::Error, Some(error.clone()));
        }
        if observer.client.is_none() {
            let text = "its client is not connected";
            return (State::Suspended, Some(ErrorBody::new(code::OBSERVER_DISCONNECTED, text)));
        }
        if !self.source_is_ready(observer) {
            let text = format!("nobody serves {} at the moment", observer.spec.source);
            let reason = ErrorBody::new(code::OWNER_UNAVAILABLE, text);
            return (State::Pending, observer.was_active.then_some(reason));
        }
        if !self.exists(&observer.spec.target) {
            let text = format!("nobody serves {} at the moment", observer.spec.target);
            let reason = ErrorBody::new(code::TARGET_UNAVAILABLE, text);
            return match observer.was_active {
                true => (State::Suspended, Some(reason)),
                false => (State::Pending, None),
            };
        }
        (State::Active, None)
    }

    fn source_is_ready(&self, observer: &Observer<T>) -> bool {
        match self.sources.get(&observer.spec.source).filter(|source| !source.hosts.is_empty()) {
            Some(source) => source
                .hosts
                .values()
                .filter(|host| host.observes)
                .all(|host| observer.acks.get(&host.client).is_some_and(|ack| ack.accepted)),
            None => observer.bound == Some(true),
        }
    }

    fn exists(&self, name: &Name) -> bool {
        self.known.contains_key(name) || self.sources.get(name).is_some_and(|source| !source.hosts.is_empty())
    }

    /// Puts an observer into the state that it should be in, and tells whom that concerns.
    fn settle(&mut self, id: &str, effects: &mut Vec<Effect>) {
        let (state, reason) = self.judge(id);
        let Some(observer) = self.observers.get_mut(id) else { return };
        if (observer.state, &observer.reason) == (state, &reason) {
            return;
        }
        let before = std::mem::replace(&mut observer.state, state);
        observer.reason.clone_from(&reason);
        match (before == State::Active, state == State::Active) {
            (false, true) => effects.push(Effect::Watch(observer.number, Arc::clone(&observer.spec))),
            (true, false) => effects.push(Effect::Unwatch(observer.number, observer.spec.source.clone())),
            _ => {}
        }
        observer.was_active |= state == State::Active;
        if let Some(client) = observer.client {
            let (id, fires) = (id.to_owned(), observer.fires);
            effects.push(Effect::Tell(client, Told::Changed { id, state, reason: reason.clone(), fires }));
        }
        effects.push(Effect::Event { spec: Arc::clone(&observer.spec), state, reason });
    }

    /// Refuses an observer for good. It stays to be seen until its client takes it back.
    fn refuse(&mut self, id: &str, error: ErrorBody, effects: &mut Vec<Effect>) {
        let Some(observer) = self.observers.get_mut(id) else { return };
        observer.refused = Some(error);
        observer.lane.close();
        self.unwant(id, effects);
        self.settle(id, effects);
    }

    /// Ends an observer.
    fn dispose(&mut self, id: &str, reason: ErrorBody, effects: &mut Vec<Effect>) {
        // What has fired for the last time is still told.
        let last = reason.code == code::MAX_FIRES;
        if let Some(observer) = self.observers.get(id) {
            if !last {
                observer.lane.close();
            }
            let (state, spec) = (State::Disposed, Arc::clone(&observer.spec));
            if let Some(client) = observer.client {
                let (reason, fires) = (Some(reason.clone()), observer.fires);
                effects.push(Effect::Tell(client, Told::Changed { id: id.to_owned(), state, reason, fires }));
            }
            effects.push(Effect::Event { spec, state, reason: Some(reason) });
        }
        self.forget(id, effects);
    }

    /// Takes an observer out, without a word to its client.
    fn forget(&mut self, id: &str, effects: &mut Vec<Effect>) {
        self.unwant(id, effects);
        let Some(observer) = self.observers.remove(id) else { return };
        let (number, spec) = (observer.number, observer.spec);
        if observer.state == State::Active {
            effects.push(Effect::Unwatch(number, spec.source.clone()));
        }
        self.by_number.remove(&number);
        remove(&mut self.by_source, &spec.source, number);
        remove(&mut self.by_target, &spec.target, number);
        if let Some(client) = observer.client {
            remove(&mut self.by_client, &client, number);
        }
        self.sweep(&spec.source);
    }
}

fn remove<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<u64>>, key: &K, number: u64) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            index.remove(key);
        }
    }
}

fn refusal(client: WorkerId, id: String, error: ErrorBody) -> Vec<Effect> {
    let told = Told::Result { id, state: State::Error, error: Some(error), warnings: Vec::new() };
    vec![Effect::Tell(client, told)]
}

fn expired() -> ErrorBody {
    ErrorBody::new(code::EXPIRED, "its time is over")
}
