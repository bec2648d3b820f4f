//! The engine's state and its one door: an event goes in with the time, effects come out. The same events
//! give the same effects. Each kind of message has its own file below; this one holds what they share. It
//! must not read a clock or know a socket.

use std::collections::{BTreeMap, BTreeSet};

use ringway_protocol::control::{Change, EngineMessage, Limits, WorkerMessage, WorkerStatus};
use ringway_protocol::error::CallError;
use ringway_protocol::ids::WorkerId;

use crate::bindings::{Bindings, Notice};
use crate::catalog::{Catalog, FunctionKey, Worker};
use crate::channels::{self, Channels};
use crate::effect::Effect;
use crate::event::{ConnectionId, Credentials, Event};
use crate::policy::Policy;
use crate::relay::{RelayTarget, Relays};
use crate::view::{Sources, View};
use crate::zones::{Zone, Zones};

mod announce;
mod attach;
mod connect;
mod leave;
mod permissions;
mod register;
mod retell;
mod triggers;
mod unregister;

pub use crate::listing::LISTING_FUNCTIONS;

/// What an engine is told at its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The id of the engine's own worker.
    pub engine_id: WorkerId,
    /// The engine's process.
    pub engine_pid: u32,
    /// The engine's release.
    pub engine_version: String,
    /// Unix time in milliseconds at nanosecond 0 of the engine's clock.
    pub unix_anchor_ms: u64,
    /// How users map to zones.
    pub zones: Zones,
    /// Who may call what.
    pub policy: Policy,
    /// Limits on every worker.
    pub limits: Limits,
}

/// A control connection.
#[derive(Clone, Copy, Debug)]
struct Connection {
    credentials: Credentials,
    /// The worker that is attached over it.
    worker: Option<WorkerId>,
}

/// Everything that an engine knows.
#[derive(Debug)]
pub struct Core {
    config: Config,
    connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) catalog: Catalog,
    views: BTreeMap<Zone, View>,
    relays: Relays,
    pub(crate) bindings: Bindings,
    channels: Channels,
    epoch: u64,
    /// The time of the event that is being handled.
    now_ns: u64,
}

impl Core {
    /// Makes an engine that knows nobody.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            connections: BTreeMap::new(),
            catalog: Catalog::default(),
            views: BTreeMap::new(),
            relays: Relays::default(),
            bindings: Bindings::default(),
            channels: Channels::default(),
            epoch: 0,
            now_ns: 0,
        }
    }

    /// Takes in what happened and returns what is to be done, in order. Its cost depends on what changed and
    /// on how many see it, not on the size of the catalog; only a change of the policy looks at everything.
    #[must_use]
    pub fn handle(&mut self, now_ns: u64, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        let out = &mut effects;
        self.now_ns = self.now_ns.max(now_ns);
        match event {
            Event::Opened { connection, credentials } => {
                self.connections.insert(connection, Connection { credentials, worker: None });
            }
            Event::Message { connection, message } => self.message(now_ns, connection, message, out),
            Event::Closed { connection } => self.closed(connection, out),
            Event::Violated { connection, problem } => self.violated(connection, &problem, out),
            Event::PolicyChanged { policy } => self.change_policy(policy, out),
            Event::TriggerKept { zone, spec } => self.keep_trigger(&zone, spec, out),
            Event::TriggerRemoved { zone, id } => self.remove_kept_trigger(&zone, &id, out),
            Event::WorkerAnnounced { worker, announcement } => self.announce(worker, *announcement, out),
            Event::NewsDue {} => self.publish(None, out),
            Event::Stopping { reason, drain_ms } => self.stop(reason, drain_ms, out),
        }
        effects
    }

    fn message(&mut self, now_ns: u64, from: ConnectionId, message: WorkerMessage, out: &mut Vec<Effect>) {
        let Some(connection) = self.connections.get(&from).copied() else { return };
        let worker = match (connection.worker, message) {
            (None, WorkerMessage::Hello(hello)) => return self.attach(now_ns, from, *hello, out),
            (None, other) => {
                return self.violated(from, &format!("wanted hello first, found {}", other.name()), out);
            }
            (Some(_), WorkerMessage::Hello(_)) => return self.violated(from, "found a second hello", out),
            (Some(worker), message) => {
                if let Some(worker) = self.catalog.workers.get_mut(&worker) {
                    worker.heard_at_ns = now_ns;
                }
                (worker, message)
            }
        };
        match worker {
            (worker, WorkerMessage::Register(register)) => self.register(worker, from, register, out),
            (worker, WorkerMessage::Unregister(unregister)) => self.unregister(worker, from, unregister, out),
            (worker, WorkerMessage::Connect { request, to }) => self.connect(worker, from, request, to, out),
            (worker, WorkerMessage::Disconnected { peer }) => self.disconnected(worker, peer, out),
            (worker, WorkerMessage::Draining {}) => self.drain(worker, out),
            (_, WorkerMessage::Goodbye {}) => self.goodbye(from, out),
            (worker, WorkerMessage::Logs { records }) => out.push(Effect::Logs { worker, records }),
            (_, WorkerMessage::Heartbeat {}) => {}
            (worker, WorkerMessage::TriggerBound { binding, error }) => {
                self.trigger_bound(worker, &binding, error, out);
            }
            (_, other) => self.violated(from, &format!("cannot handle {}", other.name()), out),
        }
    }

    /// Puts a connection out, with the reason.
    fn violated(&mut self, connection: ConnectionId, problem: &str, out: &mut Vec<Effect>) {
        self.refuse(connection, CallError::protocol_violation(problem), out);
    }

    fn stop(&self, reason: String, drain_ms: u64, out: &mut Vec<Effect>) {
        let to = self.catalog.workers.values().map(|worker| worker.connection).collect();
        out.push(Effect::Broadcast { to, message: EngineMessage::Shutdown { reason, drain_ms } });
    }

    /// Looks at functions again in every zone's view, and notes what changed there.
    fn refresh(&mut self, keys: &BTreeSet<FunctionKey>) {
        let mut sources = Sources {
            catalog: &self.catalog,
            policy: &self.config.policy,
            relays: &mut self.relays,
            engine: self.config.engine_id,
            now_ns: self.now_ns,
        };
        for (zone, view) in &mut self.views {
            for key in keys {
                view.refresh(&mut sources, zone, key);
            }
        }
    }

    /// Frees the relay indexes of functions that a zone offers no longer.
    fn retire_relays(&mut self, zone: &Zone, keys: &BTreeSet<FunctionKey>) {
        for key in keys {
            if self.catalog.replicas(key).iter().all(|replica| replica.zone != *zone) {
                self.relays.remove(zone, key);
            }
        }
    }

    /// Notes a change in the views that show a worker: its own zone's, and all for the engine's worker.
    fn note(&mut self, zone: &Zone, engine: bool, change: &Change) {
        let seeing = self.views.iter_mut().filter(|(name, _)| engine || *name == zone);
        seeing.for_each(|(_, view)| view.note(change.clone(), self.now_ns));
    }

    /// Tells what was noted to all members of the views where it is time to, and elsewhere to one worker that is
    /// about to be answered.
    fn publish(&mut self, answered: Option<WorkerId>, out: &mut Vec<Effect>) {
        let workers = &self.catalog.workers;
        for view in self.views.values_mut() {
            let told = if view.due_ns().is_some_and(|due_ns| due_ns <= self.now_ns) {
                view.tell_all(self.now_ns)
            } else {
                let ahead = answered.and_then(|id| Some((vec![id], view.tell(id)?)));
                ahead.into_iter().collect()
            };
            for (to, message) in told {
                let to = to.iter().filter_map(|id| workers.get(id)).map(|worker| worker.connection).collect();
                out.push(Effect::Broadcast { to, message });
            }
        }
        self.views.retain(|_, view| !view.members.is_empty());
    }

    /// Returns when news that were kept to be told together are due: then [`Event::NewsDue`] must come. None where there
    /// are none.
    #[must_use]
    pub fn news_due_ns(&self) -> Option<u64> {
        self.views.values().filter_map(View::due_ns).min()
    }

    fn send(&self, to: WorkerId, message: EngineMessage, out: &mut Vec<Effect>) {
        if let Some(worker) = self.catalog.workers.get(&to) {
            out.push(Effect::Send { to: worker.connection, message });
        }
    }

    fn send_all(&self, notices: Vec<Notice>, out: &mut Vec<Effect>) {
        for (to, message) in notices {
            self.send(to, message, out);
        }
    }

    /// Returns an attached worker.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.catalog.workers.get(&id)
    }

    /// Returns all attached workers in the order of their ids.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.catalog.workers.iter().map(|(id, worker)| (*id, worker))
    }

    /// Returns the id of the function that a worker serves under an index, or that the engine relays under
    /// it: telemetry names functions so.
    #[must_use]
    pub fn function_at(&self, worker: WorkerId, index: u32) -> Option<&FunctionKey> {
        let own = self.catalog.workers.get(&worker).and_then(|worker| worker.functions.get(&index));
        own.or_else(|| {
            let relayed = (worker == self.config.engine_id).then(|| self.relays.target(index)).flatten();
            relayed.map(|(_, key)| key)
        })
    }

    /// Says whether a worker may call a function of a zone. The engine's own worker may call everything.
    #[must_use]
    pub fn may_call(&self, caller: WorkerId, zone: &str, function: &str) -> bool {
        self.catalog.workers.get(&caller).is_some_and(|caller| self.allows(caller, zone, function))
    }

    /// Says whether a worker may know that a function of a zone exists: somebody of its own zone may call it.
    pub(crate) fn shows(&self, caller: &Worker, zone: &str, function: &str) -> bool {
        caller.credentials.engine || self.config.policy.shows(&caller.zone, zone, function)
    }

    /// Says whether one worker may see another: one of its own zone, or the engine's; the engine sees all.
    #[must_use]
    pub fn sees(&self, caller: &Worker, other: &Worker) -> bool {
        other.credentials.engine || caller.credentials.engine || caller.zone == other.zone
    }

    pub(crate) fn allows(&self, caller: &Worker, zone: &str, function: &str) -> bool {
        caller.credentials.engine
            || self.config.policy.allows(&caller.zone, &caller.hello.name, zone, function)
    }

    /// Decides one relayed call: where it may go. To be asked for every such call, since this is where its
    /// permission is checked.
    ///
    /// # Errors
    /// `stale_handle` for an index that is in use no longer, `forbidden`, or `draining` where no replica
    /// takes calls.
    pub fn relay(&self, caller: WorkerId, index: u32) -> Result<RelayTarget, CallError> {
        // One that the caller's zone is not shown looks like one that is not there, or its name could be guessed at.
        let shown = |(zone, key): &&(Zone, FunctionKey)| {
            let worker = self.catalog.workers.get(&caller);
            worker.is_some_and(|worker| self.shows(worker, zone, &key.id))
        };
        let (zone, key) = self.relays.target(index).filter(shown).ok_or_else(|| {
            let message = format!("relay {index} is in use no longer; resolve the function again");
            CallError::new(ringway_protocol::ErrorCode::StaleHandle, message)
        })?;
        if !self.may_call(caller, zone, &key.id) {
            return Err(CallError::forbidden(&key.id, &self.catalog.worker_name(caller)));
        }
        let offers = self.catalog.replicas(key).iter().filter(|replica| replica.zone == *zone);
        let ready = offers.filter(|replica| {
            self.catalog
                .workers
                .get(&replica.worker)
                .is_some_and(|worker| worker.status == WorkerStatus::Ready)
        });
        let ready: Vec<_> = ready.collect();
        if ready.is_empty() {
            return Err(CallError::draining(&key.id).with_function(key.id.as_str()));
        }
        Ok(RelayTarget {
            zone: Zone::clone(zone),
            key: key.clone(),
            replicas: ready
                .iter()
                .map(|replica| (replica.worker, replica.spec.index, replica.spec.generation))
                .collect(),
            idempotent: ready.iter().all(|replica| replica.spec.idempotent),
            streams: ready.iter().any(|replica| replica.spec.streams_in || replica.spec.streams_out),
        })
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
