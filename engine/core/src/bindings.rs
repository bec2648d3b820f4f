//! Trigger types and the triggers bound to them. A binding may come before its type and outlive it: it is
//! parked while nobody provides the type. Providers form a stack, so that when a worker that took over
//! a type leaves, the former provider has it back. It must not know how providers watch for events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringway_protocol::control::{EngineMessage, TriggerSpec, TriggerTypeSpec};
use ringway_protocol::error::{CallError, Started};
use ringway_protocol::ids::WorkerId;
use ringway_protocol::naming::NAMESPACE_DEFAULT;

use crate::catalog::FunctionKey;
use crate::zones::Zone;

/// A trigger type at one of its providers.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    pub(crate) worker: WorkerId,
    pub(crate) zone: Zone,
    /// Serves every zone: the engine's own worker.
    pub(crate) everywhere: bool,
    pub(crate) spec: TriggerTypeSpec,
}

/// A trigger and where it is bound.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) spec: TriggerSpec,
    /// Who asked for it; none where it outlives its maker.
    pub(crate) owner: Option<WorkerId>,
    pub(crate) zone: Zone,
    /// The namespace of whoever asked.
    pub(crate) home: Arc<str>,
    /// Who watches for it; none while it is parked.
    pub(crate) provider: Option<WorkerId>,
    /// Whether that provider has said that it does.
    accepted: bool,
    /// Whether that provider watched for another binding with this id, which this one takes the place of.
    replaces: bool,
    /// A provider that would not have it and is not asked again.
    refused_by: Option<WorkerId>,
}

impl Binding {
    pub(crate) fn new(spec: TriggerSpec, owner: Option<WorkerId>, zone: Zone, home: Arc<str>) -> Self {
        Self { spec, owner, zone, home, provider: None, accepted: false, replaces: false, refused_by: None }
    }

    /// Returns the function that it runs.
    pub(crate) fn target(&self) -> FunctionKey {
        let namespace = self.spec.namespace.as_deref().map_or_else(|| Arc::clone(&self.home), Arc::from);
        FunctionKey { namespace, id: self.spec.function_id.clone() }
    }
}

/// What names a trigger type: its namespace and its id.
pub(crate) type TypeKey = (Arc<str>, String);

/// A message to a worker.
pub(crate) type Notice = (WorkerId, EngineMessage);

/// All trigger types and bindings.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    /// Providers, the one in charge last.
    types: BTreeMap<TypeKey, Vec<Provider>>,
    bindings: BTreeMap<String, Binding>,
    by_type: BTreeMap<String, BTreeSet<String>>,
}

impl Bindings {
    pub(crate) fn get(&self, id: &str) -> Option<&Binding> {
        self.bindings.get(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.values()
    }

    /// Returns types with all their providers, the one in charge last.
    pub(crate) fn types(&self) -> impl Iterator<Item = (&TypeKey, &[Provider])> {
        self.types.iter().map(|(key, providers)| (key, providers.as_slice()))
    }

    /// Puts a provider in charge of a type, or changes what it said of it.
    pub(crate) fn add_type(&mut self, namespace: &Arc<str>, provider: Provider, notices: &mut Vec<Notice>) {
        let id = provider.spec.id.clone();
        let providers = self.types.entry((Arc::clone(namespace), id.clone())).or_default();
        providers.retain(|other| other.worker != provider.worker);
        providers.push(provider);
        self.rebind_type(&id, notices);
    }

    /// Takes a type from a provider.
    pub(crate) fn remove_type(
        &mut self,
        namespace: &Arc<str>,
        id: &str,
        worker: WorkerId,
        notices: &mut Vec<Notice>,
    ) {
        let key = (Arc::clone(namespace), id.to_owned());
        if let Some(providers) = self.types.get_mut(&key) {
            providers.retain(|provider| provider.worker != worker);
            if providers.is_empty() {
                self.types.remove(&key);
            }
        }
        self.rebind_type(id, notices);
    }

    /// Adds a binding, in place of one with the same id; the very same one stays untouched. A provider that has both is told
    /// of the new one only, so that it loses nothing of what the old one has waiting. Returns whether somebody provides its type.
    pub(crate) fn add(&mut self, mut binding: Binding, notices: &mut Vec<Notice>) -> bool {
        let id = binding.spec.id.clone();
        let same = |old: &&Binding| {
            (&old.spec, old.owner, &old.home) == (&binding.spec, binding.owner, &binding.home)
        };
        if let Some(old) = self.bindings.get(&id).filter(same) {
            if old.accepted {
                notices.extend(accepted(old));
            }
            return old.provider.is_some();
        }
        let old = self.take(&id);
        let watched = old.and_then(|old| Some((old.provider?, old.spec.trigger_type)));
        if let Some((provider, trigger_type)) = watched {
            binding.replaces =
                trigger_type == binding.spec.trigger_type && self.resolve(&binding) == Some(provider);
            if !binding.replaces {
                notices.push((provider, EngineMessage::TriggerUnbind { id: id.clone() }));
            }
        }
        self.by_type.entry(binding.spec.trigger_type.clone()).or_default().insert(id.clone());
        self.bindings.insert(id.clone(), binding);
        self.rebind(&id, notices);
        self.bindings.get(&id).is_some_and(|binding| binding.provider.is_some())
    }

    /// Removes a binding.
    pub(crate) fn remove(&mut self, id: &str, notices: &mut Vec<Notice>) -> Option<Binding> {
        let binding = self.take(id)?;
        if let Some(provider) = binding.provider {
            notices.push((provider, EngineMessage::TriggerUnbind { id: id.to_owned() }));
        }
        Some(binding)
    }

    fn take(&mut self, id: &str) -> Option<Binding> {
        let binding = self.bindings.remove(id)?;
        if let Some(ids) = self.by_type.get_mut(&binding.spec.trigger_type) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_type.remove(&binding.spec.trigger_type);
            }
        }
        Some(binding)
    }

    /// Takes a provider's answer: a binding that it would not have is parked, and one that it was to take the place of is
    /// unbound. Returns the binding, if it was waiting for this. Others than its present provider have no say.
    pub(crate) fn answer(
        &mut self,
        id: &str,
        provider: WorkerId,
        refused: bool,
        notices: &mut Vec<Notice>,
    ) -> Option<&Binding> {
        let binding = self.bindings.get_mut(id).filter(|binding| binding.provider == Some(provider))?;
        if refused {
            binding.provider = None;
            binding.refused_by = Some(provider);
            if binding.replaces {
                notices.push((provider, EngineMessage::TriggerUnbind { id: id.to_owned() }));
            }
        }
        binding.replaces = false;
        let told_before = std::mem::replace(&mut binding.accepted, !refused);
        (refused || !told_before).then_some(binding)
    }

    /// Sends a worker that attached again the bindings it watches for: it may have lost them.
    pub(crate) fn remind(&self, provider: WorkerId, notices: &mut Vec<Notice>) {
        let own = self.bindings.values().filter(|binding| binding.provider == Some(provider));
        notices.extend(own.map(|binding| (provider, bind(binding))));
    }

    fn rebind_type(&mut self, id: &str, notices: &mut Vec<Notice>) {
        for binding in self.by_type.get(id).cloned().unwrap_or_default() {
            self.rebind(&binding, notices);
        }
    }

    /// Finds the provider of a binding again and tells the old and the new one.
    fn rebind(&mut self, id: &str, notices: &mut Vec<Notice>) {
        let Some(binding) = self.bindings.get(id) else { return };
        let found = self.resolve(binding).filter(|worker| binding.refused_by != Some(*worker));
        let Some(binding) = self.bindings.get_mut(id) else { return };
        if binding.provider == found {
            return;
        }
        let answered = std::mem::take(&mut binding.accepted);
        if let Some(old) = std::mem::replace(&mut binding.provider, found) {
            notices.push((old, EngineMessage::TriggerUnbind { id: id.to_owned() }));
            if let (Some(owner), None, false) = (binding.owner, found, answered) {
                let error = CallError::worker_gone(old, Started::No);
                notices.push((owner, EngineMessage::TriggerRefused { id: id.to_owned(), error }));
            }
        }
        if let Some(new) = found {
            binding.refused_by = None;
            notices.push((new, bind(binding)));
        }
    }

    /// Returns who should watch for a binding: a provider of its zone, or the engine, in the namespace that
    /// it names, else in that of its maker, else in the default one.
    fn resolve(&self, binding: &Binding) -> Option<WorkerId> {
        let named = binding.spec.trigger_namespace.as_deref();
        let namespaces = named.map_or_else(|| vec![&*binding.home, NAMESPACE_DEFAULT], |named| vec![named]);
        namespaces.into_iter().find_map(|namespace| {
            let key = (Arc::from(namespace), binding.spec.trigger_type.clone());
            let providers = self.types.get(&key)?.iter().rev();
            let mut own = providers.filter(|provider| provider.everywhere || provider.zone == binding.zone);
            own.next().map(|provider| provider.worker)
        })
    }
}

/// Tells whoever asked for a binding that it is watched for.
pub(crate) fn accepted(binding: &Binding) -> Option<Notice> {
    Some((binding.owner?, EngineMessage::TriggerAccepted { id: binding.spec.id.clone() }))
}

fn bind(binding: &Binding) -> EngineMessage {
    EngineMessage::TriggerBind { binding: binding.spec.clone(), owner: binding.owner }
}
