//! Those that serve functions: what they say of who may observe them, what they were told, and whether they accept it. It
//! must not know how they are told.
//!
//! A function's revision rises with everything that its hosts are told of its observers; what a host answers counts only for
//! what it was told last of that observer.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringway::WorkerId;

use super::super::code;
use super::super::lane::Weighed;
use super::super::spec::{Declared, Name, Spec};
use super::{Effect, Registry, Told};
use crate::limits::ACK_MS;
use crate::protocol::{self, ErrorBody};

/// What a host was told of an observer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    pub(super) revision: u64,
    pub(super) accepted: bool,
    /// Until when it has to answer, in milliseconds.
    pub(super) until: u64,
}

/// One client that serves a function.
#[derive(Debug)]
pub(crate) struct Hosting {
    pub(crate) client: WorkerId,
    /// The function as it calls it itself.
    pub(crate) own: String,
    pub(crate) declared: Declared,
    /// It is told who observes it, and accepts them or not.
    pub(crate) observes: bool,
    /// It may call the function itself.
    pub(crate) local: bool,
}

/// A function that clients here serve.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) hosts: BTreeMap<WorkerId, Hosting>,
    pub(super) revision: u64,
}

impl Source {
    /// Whether an observer may be one of this function, by the word of all its hosts.
    pub(super) fn admit(&self, spec: &Spec) -> Result<Vec<String>, ErrorBody> {
        let mut warnings = Vec::new();
        for host in self.hosts.values() {
            warnings = host.declared.admit(spec)?;
        }
        Ok(warnings)
    }
}

impl<T: Weighed> Registry<T> {
    /// A client serves a function from now on, or says anew what may be observed of it.
    pub(crate) fn host(&mut self, name: &Name, hosting: Hosting, now: u64) -> Vec<Effect> {
        self.now = now;
        let mut effects = Vec::new();
        let (client, own) = (hosting.client, hosting.own.clone());
        let (observes, local) = (hosting.observes, hosting.local);
        let source = self.sources.entry(name.clone()).or_default();
        source.hosts.insert(client, hosting);
        source.revision += 1;
        let revision = source.revision;
        let mut views = Vec::new();
        for id in self.ids(self.by_source.get(name)) {
            // The engine's own events end where a client brings them.
            let Some(observer) = self.observers.get_mut(&id) else { continue };
            if observer.bound.take().is_some() {
                effects.push(Effect::Unbind(id.clone()));
            }
            if observer.refused.is_some() || observer.client.is_none() {
                continue;
            }
            let spec = Arc::clone(&observer.spec);
            let admitted = self.sources.get(name).map_or(Ok(Vec::new()), |source| source.admit(&spec));
            if let Err(error) = admitted {
                self.refuse(&id, error, &mut effects);
                continue;
            }
            if observes && let Some(observer) = self.observers.get_mut(&id) {
                let until = now.saturating_add(ACK_MS);
                observer.acks.insert(client, Ack { revision, accepted: false, until });
                views.push(spec.view());
            }
        }
        if observes {
            let namespace = name.namespace.clone();
            let told = Told::Registered { own, namespace, revision, local, observers: views };
            // Before anything else that this step says of the function.
            effects.insert(0, Effect::Tell(client, told));
        }
        self.settle_all(name, &mut effects);
        effects
    }

    /// A client serves a function no longer.
    pub(crate) fn unhost(&mut self, client: WorkerId, name: &Name) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.remove_host(client, name, &mut effects);
        effects
    }

    /// A client is gone, and all that it served.
    pub(super) fn host_gone(&mut self, client: WorkerId, effects: &mut Vec<Effect>) {
        let served = self.sources.iter().filter(|(_, source)| source.hosts.contains_key(&client));
        let names: Vec<Name> = served.map(|(name, _)| name.clone()).collect();
        for name in names {
            self.remove_host(client, &name, effects);
        }
    }

    fn remove_host(&mut self, client: WorkerId, name: &Name, effects: &mut Vec<Effect>) {
        let Some(source) = self.sources.get_mut(name) else { return };
        if source.hosts.remove(&client).is_none() {
            return;
        }
        let unhosted = source.hosts.is_empty();
        for id in self.ids(self.by_source.get(name)) {
            if let Some(observer) = self.observers.get_mut(&id) {
                observer.acks.remove(&client);
            }
            if unhosted {
                self.want(&id, effects);
            }
        }
        self.settle_all(name, effects);
        self.sweep(name);
    }

    /// After a host of a function came or went: those that observe it, and those that it is the target of.
    fn settle_all(&mut self, name: &Name, effects: &mut Vec<Effect>) {
        let concerned = [&self.by_source, &self.by_target].map(|index| self.ids(index.get(name)));
        for id in concerned.iter().flatten() {
            self.settle(id, effects);
        }
    }

    /// Forgets a function that nobody serves or observes.
    pub(super) fn sweep(&mut self, name: &Name) {
        let unhosted = self.sources.get(name).is_some_and(|source| source.hosts.is_empty());
        if unhosted && !self.by_source.contains_key(name) {
            self.sources.remove(name);
        }
    }

    /// Whether a client serves a function, by the name that it has for it; the function.
    pub(crate) fn hosted(&self, client: WorkerId, namespace: &str, own: &str) -> Option<Name> {
        let plain = Name::new(namespace, own);
        let is_own = |source: &Source| source.hosts.get(&client).is_some_and(|host| host.own == own);
        if self.sources.get(&plain).is_some_and(is_own) {
            return Some(plain);
        }
        // Under a prefix it has another name here.
        let found = self.sources.iter().find(|(name, source)| name.namespace == namespace && is_own(source));
        found.map(|(name, _)| name.clone())
    }

    /// Whether the calls of a function are events; if not, its host says what is one.
    pub(crate) fn calls_are_events(&self, name: &Name) -> bool {
        self.sources.get(name).is_none_or(|source| source.hosts.values().all(|host| !host.declared.by_owner))
    }

    /// The function that stands for a trigger type, if a client serves one.
    pub(crate) fn stands_for(&self, trigger_type: &str) -> Option<Name> {
        let is_it = |host: &Hosting| host.declared.legacy.as_deref() == Some(trigger_type);
        let found = self.sources.iter().find(|(_, source)| source.hosts.values().any(is_it));
        found.map(|(name, _)| name.clone())
    }

    /// A host accepts an observer, or does not. What it says of anything but what it was told last is out of date.
    pub(crate) fn ack(&mut self, client: WorkerId, namespace: &str, ack: &protocol::Ack) -> Vec<Effect> {
        let mut effects = Vec::new();
        let Some(name) = self.hosted(client, namespace, &ack.function) else { return effects };
        let Some(observer) = self.observers.get_mut(&ack.id) else { return effects };
        let known = observer.acks.get_mut(&client).filter(|known| known.revision == ack.revision);
        let (Some(known), true) = (known, observer.spec.source == name) else { return effects };
        match &ack.error {
            None => {
                known.accepted = true;
                self.settle(&ack.id, &mut effects);
            }
            Some(error) => {
                // It forgets on its own what it never accepted.
                if !known.accepted {
                    observer.acks.remove(&client);
                }
                let code = if error.code.is_empty() { code::OBSERVE_REJECTED } else { error.code.as_str() };
                let error = ErrorBody::new(code, error.message.clone());
                self.refuse(&ack.id, error, &mut effects);
            }
        }
        effects
    }

    /// Has the hosts of its source told of an observer, or the engine asked for its events where nobody serves it.
    pub(super) fn want(&mut self, id: &str, effects: &mut Vec<Effect>) {
        let Some(observer) = self.observers.get_mut(id) else { return };
        if observer.refused.is_some() || observer.client.is_none() {
            return;
        }
        let spec = Arc::clone(&observer.spec);
        let source = self.sources.entry(spec.source.clone()).or_default();
        if source.hosts.is_empty() {
            if (self.built_in)(&spec).is_some() && observer.bound.is_none() {
                observer.bound = Some(false);
                effects.push(Effect::Bind(spec));
            }
            return;
        }
        for host in source.hosts.values().filter(|host| host.observes) {
            source.revision += 1;
            let (revision, until) = (source.revision, self.now.saturating_add(ACK_MS));
            observer.acks.insert(host.client, Ack { revision, accepted: false, until });
            let (own, namespace) = (host.own.clone(), spec.source.namespace.clone());
            let told = Told::Added { own, namespace, revision, view: spec.view() };
            effects.push(Effect::Tell(host.client, told));
        }
    }

    /// Has the hosts told that an observer is none any more, and the engine that its events are not wanted.
    pub(super) fn unwant(&mut self, id: &str, effects: &mut Vec<Effect>) {
        let Some(observer) = self.observers.get_mut(id) else { return };
        if observer.bound.take().is_some() {
            effects.push(Effect::Unbind(id.to_owned()));
        }
        let told = std::mem::take(&mut observer.acks);
        let Some(source) = self.sources.get_mut(&observer.spec.source) else { return };
        for client in told.into_keys() {
            let Some(host) = source.hosts.get(&client) else { continue };
            source.revision += 1;
            let (own, namespace) = (host.own.clone(), observer.spec.source.namespace.clone());
            let (id, revision) = (id.to_owned(), source.revision);
            effects.push(Effect::Tell(client, Told::Removed { own, namespace, revision, id }));
        }
    }
}
