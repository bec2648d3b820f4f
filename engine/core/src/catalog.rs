//! The truth about workers and the functions they serve. Views, listings and permissions derive from it. It
//! decides what may be registered beside what is there; it must not know who is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringway_protocol::control::{
    CatalogWorker, FunctionSpec, Hello, KeptChannel, TriggerTypeSpec, WorkerStatus,
};
use ringway_protocol::error::{CallError, ErrorCode};
use ringway_protocol::ids::{FunctionId, WorkerId};
use ringway_protocol::{limits, naming};
use serde_json::Value;

use crate::event::{ConnectionId, Credentials};
use crate::zones::Zone;

/// What names a function: its namespace and its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The id.
    pub id: FunctionId,
}

/// One worker's offer of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    /// The worker.
    pub worker: WorkerId,
    /// Its zone.
    pub zone: Zone,
    /// What it registered.
    pub spec: Arc<FunctionSpec>,
}

/// An attached worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// The connection that it is attached over.
    pub connection: ConnectionId,
    /// What the kernel says of it.
    pub credentials: Credentials,
    /// It lives in the engine's process, as the built-in workers do.
    pub(crate) inside: bool,
    /// What it says of itself. Its kept channels are taken out.
    pub hello: Hello,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its zone.
    pub zone: Zone,
    /// Whether it takes calls.
    pub status: WorkerStatus,
    /// Rises with every attach to this engine.
    pub epoch: u64,
    /// When it attached, by the engine's clock.
    pub attached_at_ns: u64,
    /// When it was last heard of.
    pub heard_at_ns: u64,
    /// Its functions by their index.
    pub(crate) functions: BTreeMap<u32, FunctionKey>,
    /// The bindings it asked for.
    pub(crate) triggers: BTreeSet<String>,
    /// The trigger types it provides.
    pub(crate) trigger_types: BTreeSet<String>,
    /// After a re-attach: what it had and has not named again. Its next registration settles it.
    pub(crate) unconfirmed: Option<Unconfirmed>,
    /// What it said of itself beyond its greeting, for those who ask.
    pub(crate) announced: Announced,
    /// Channels it has kept over the engine's absence, until the other end has told of them too.
    pub(crate) kept: BTreeSet<(WorkerId, bool)>,
}

/// What a worker said of itself that routing and policy do not read.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Announced {
    pub(crate) isolation: Option<String>,
    pub(crate) telemetry: Option<Value>,
    pub(crate) features: Option<Vec<String>>,
}

/// What a worker had before it attached again.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Unconfirmed {
    pub(crate) functions: BTreeSet<FunctionKey>,
    pub(crate) triggers: BTreeSet<String>,
    pub(crate) trigger_types: BTreeSet<String>,
}

impl Worker {
    /// Returns the worker as views show it.
    pub(crate) fn entry(&self, id: WorkerId) -> CatalogWorker {
        CatalogWorker {
            id,
            name: self.hello.name.clone(),
            namespace: self.hello.namespace.clone(),
            zone: self.zone.to_string(),
            pid: self.credentials.pid,
            runtime: self.hello.runtime.clone(),
            status: self.status,
            remote: self.hello.remote.clone(),
        }
    }

    /// Says whether its registrations are complete, so that its permission bits mean something.
    pub(crate) const fn is_settled(&self) -> bool {
        self.unconfirmed.is_none()
    }

    pub(crate) fn take_kept(channels: &[KeptChannel]) -> BTreeSet<(WorkerId, bool)> {
        use ringway_protocol::control::ChannelEnd;
        channels.iter().map(|kept| (kept.peer, kept.end == ChannelEnd::Caller)).collect()
    }
}

/// All workers and functions.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    /// Replicas in the order of their workers.
    functions: BTreeMap<FunctionKey, Vec<Replica>>,
}

impl Catalog {
    pub(crate) fn replicas(&self, key: &FunctionKey) -> &[Replica] {
        self.functions.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn functions(&self) -> impl Iterator<Item = (&FunctionKey, &[Replica])> {
        self.functions.iter().map(|(key, replicas)| (key, replicas.as_slice()))
    }

    pub(crate) fn replica(&self, key: &FunctionKey, worker: WorkerId) -> Option<&Replica> {
        self.replicas(key).iter().find(|replica| replica.worker == worker)
    }

    /// Adds or replaces a worker's function. Returns the index that an earlier registration of the same
    /// function had, if it is another.
    pub(crate) fn add(&mut self, id: WorkerId, spec: FunctionSpec) -> Result<Option<u32>, CallError> {
        let Some(worker) = self.workers.get(&id) else {
            return Err(CallError::not_found("worker", &id.to_string()));
        };
        let key = FunctionKey { namespace: Arc::clone(&worker.namespace), id: spec.id.clone() };
        check_spec(&spec, worker)?;
        if let Some(other) = worker.functions.get(&spec.index).filter(|other| **other != key) {
            let message = format!("index {} is taken by `{}` of the same worker", spec.index, other.id);
            return Err(CallError::new(ErrorCode::RegistrationConflict, message));
        }
        if worker.functions.len() + 1 >= limits::FUNCTION_INDEX_END as usize {
            let message = format!("one worker may have {} functions", limits::FUNCTION_INDEX_END - 1);
            return Err(CallError::invalid_registration(message));
        }
        self.check_conflict(&key, id, &worker.zone, spec.exclusive)?;
        let zone = Zone::clone(&worker.zone);
        let replicas = self.functions.entry(key.clone()).or_default();
        let index = spec.index;
        let replica = Replica { worker: id, zone, spec: Arc::new(spec) };
        let old = match replicas.binary_search_by_key(&id, |replica| replica.worker) {
            Ok(place) => Some(std::mem::replace(&mut replicas[place], replica).spec.index),
            Err(place) => {
                replicas.insert(place, replica);
                None
            }
        };
        let old = old.filter(|old| *old != index);
        if let Some(worker) = self.workers.get_mut(&id) {
            if let Some(old) = old {
                worker.functions.remove(&old);
            }
            worker.functions.insert(index, key);
        }
        Ok(old)
    }

    /// Refuses an id that somebody of the same zone holds, where one of the two wants it alone. Zones do not
    /// compete: what another zone registers can neither take an id away nor stand in its place.
    fn check_conflict(
        &self,
        key: &FunctionKey,
        id: WorkerId,
        zone: &Zone,
        exclusive: bool,
    ) -> Result<(), CallError> {
        let others = self.replicas(key).iter().filter(|other| other.worker != id && other.zone == *zone);
        match others.into_iter().find(|other| exclusive || other.spec.exclusive) {
            Some(holder) => {
                let holder = self.worker_name(holder.worker);
                Err(CallError::registration_conflict(&key.id, &holder))
            }
            None => Ok(()),
        }
    }

    /// Removes a worker's function; returns the index it had.
    pub(crate) fn remove(&mut self, id: WorkerId, key: &FunctionKey) -> Option<u32> {
        let replicas = self.functions.get_mut(key)?;
        let place = replicas.binary_search_by_key(&id, |replica| replica.worker).ok()?;
        let index = replicas.remove(place).spec.index;
        if replicas.is_empty() {
            self.functions.remove(key);
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.functions.remove(&index);
        }
        Some(index)
    }

    pub(crate) fn worker_name(&self, id: WorkerId) -> String {
        match self.workers.get(&id) {
            Some(worker) if !worker.hello.name.is_empty() => worker.hello.name.clone(),
            _ => id.to_string(),
        }
    }
}

pub(crate) fn check_bytes(what: &str, found: usize, allowed: usize) -> Result<(), CallError> {
    if found > allowed {
        let message = format!("wanted {what} of at most {allowed} bytes, found {found}");
        return Err(CallError::invalid_registration(message));
    }
    Ok(())
}

pub(crate) fn check_json(what: &str, value: Option<&Value>) -> Result<(), CallError> {
    let bytes = value.map_or(0, |value| value.to_string().len());
    check_bytes(what, bytes, limits::SCHEMA_BYTES_MAX)
}

/// Refuses ids that only the engine, or a built-in worker, may register.
fn check_reserved(id: &str, worker: &Worker) -> Result<(), CallError> {
    let allowed = worker.credentials.engine || worker.inside && naming::is_built_in(id);
    if naming::is_reserved(id) && !allowed {
        return Err(CallError::registration_conflict(id, naming::ENGINE_WORKER_NAME));
    }
    Ok(())
}

fn check_spec(spec: &FunctionSpec, worker: &Worker) -> Result<(), CallError> {
    check_reserved(&spec.id, worker)?;
    if spec.index == 0 || spec.index >= limits::FUNCTION_INDEX_END {
        let end = limits::FUNCTION_INDEX_END - 1;
        let message = format!("wanted a function index from 1 to {end}, found {}", spec.index);
        return Err(CallError::invalid_registration(message));
    }
    let description = spec.description.as_ref().map_or(0, String::len);
    check_bytes("a description", description, limits::DESCRIPTION_BYTES_MAX)?;
    check_bytes("a type key", spec.type_key.as_ref().map_or(0, String::len), limits::ID_BYTES_MAX)?;
    check_json("a request schema", spec.request_schema.as_ref())?;
    check_json("a response schema", spec.response_schema.as_ref())?;
    check_json("metadata", spec.metadata.as_ref())
}

/// Checks a worker's greeting.
pub(crate) fn check_hello(hello: &Hello) -> Result<(), CallError> {
    if hello.protocol != limits::PROTOCOL_VERSION {
        return Err(CallError::incompatible_version(limits::PROTOCOL_VERSION, hello.protocol));
    }
    check_bytes("a worker name", hello.name.len(), limits::NAME_BYTES_MAX)?;
    check_bytes("a namespace", hello.namespace.len(), limits::NAME_BYTES_MAX)?;
    if hello.namespace.trim().is_empty() {
        return Err(CallError::invalid_registration("wanted a namespace, found a blank text"));
    }
    if hello.name.chars().chain(hello.namespace.chars()).any(char::is_control) {
        let message = "wanted a worker name and a namespace without control characters";
        return Err(CallError::invalid_registration(message));
    }
    let description = hello.description.as_ref().map_or(0, String::len);
    check_bytes("a description", description, limits::DESCRIPTION_BYTES_MAX)?;
    check_json("metadata", hello.metadata.as_ref())
}

/// Checks a trigger type.
pub(crate) fn check_trigger_type(spec: &TriggerTypeSpec, worker: &Worker) -> Result<(), CallError> {
    ringway_protocol::ids::check_id(&spec.id).map_err(CallError::invalid_registration)?;
    check_reserved(&spec.id, worker)?;
    check_bytes("a description", spec.description.len(), limits::DESCRIPTION_BYTES_MAX)?;
    check_json("a configuration schema", spec.configuration_schema.as_ref())?;
    check_json("a request schema", spec.request_schema.as_ref())?;
    check_json("a response schema", spec.response_schema.as_ref())
}

/// Checks the parts of a binding that have limits.
pub(crate) fn check_trigger(spec: &ringway_protocol::control::TriggerSpec) -> Result<(), CallError> {
    ringway_protocol::ids::check_id(&spec.id).map_err(CallError::invalid_registration)?;
    ringway_protocol::ids::check_id(&spec.trigger_type).map_err(CallError::invalid_registration)?;
    for namespace in [&spec.namespace, &spec.trigger_namespace].into_iter().flatten() {
        if namespace.trim().is_empty() {
            return Err(CallError::invalid_registration("wanted a namespace, found a blank text"));
        }
        check_bytes("a namespace", namespace.len(), limits::NAME_BYTES_MAX)?;
    }
    check_json("a configuration", Some(&spec.config))?;
    check_json("metadata", spec.metadata.as_ref())
}
