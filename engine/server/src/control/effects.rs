//! What the core wants done, one small function each. Messages are queued here and sent at the end of the round.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ringway_engine_core::{ConnectionId, Effect};
use ringway_ipc::packet::PacketError;
use ringway_protocol::control::{CatalogFunction, Change, EngineMessage, GoneCause, WorkerMessage};
use ringway_protocol::ids::WorkerId;
use ringway_telemetry::WorkerIdentity;

use super::Control;
use crate::{counters, limits};

/// What a worker's function is called: telemetry knows functions by worker and index.
pub(super) type FunctionName = (WorkerId, u32, String);

impl Control {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(to, &message),
            Effect::Broadcast { to, message } => self.broadcast(&to, &message),
            Effect::Attached { connection, worker } => self.attached(connection, worker),
            Effect::Described { worker } => self.described(worker),
            Effect::Left { worker, cause, .. } => self.left(worker, cause),
            Effect::OpenChannel { .. } => self.open_channel(effect),
            Effect::AdoptChannel {
                caller_connection,
                callee_connection,
                caller,
                callee,
                permissions,
                ..
            } => {
                self.adopt_channel(caller_connection, callee_connection, caller, callee, &permissions);
            }
            Effect::SetPermissions { caller, callee, words } => self.pages.set_words(caller, callee, &words),
            Effect::DropChannel { caller, callee } => self.drop_channel(caller, callee),
            Effect::Logs { worker, records } => self.telemetry.logs(worker, records),
            Effect::TriggerSettled { id, error } => {
                if let Some(waiting) = self.shared.settling.lock().remove(&id) {
                    let _given_up = waiting.send(error);
                }
            }
            Effect::Close { connection } => self.close(connection),
            other => tracing::error!(?other, "the engine cannot do what its core wants"),
        }
    }

    fn send(&mut self, to: ConnectionId, message: &EngineMessage) {
        let fds = match (message, self.connections.get_mut(&to)) {
            (EngineMessage::Welcome(_), Some(connection)) => std::mem::take(&mut connection.welcome_fds),
            _ => Vec::new(),
        };
        if let EngineMessage::Welcome(welcome) = message {
            self.name_relays(welcome.catalog.functions.iter());
        }
        if let EngineMessage::Refused { error } = message {
            tracing::warn!(connection = to, %error, "a worker is put out");
        }
        self.send_with(to, message, fds);
    }

    /// Queues a message with descriptors.
    pub(super) fn send_with(&mut self, to: ConnectionId, message: &EngineMessage, fds: Vec<Arc<OwnedFd>>) {
        match serde_json::to_vec(message) {
            Ok(json) => self.queue(to, &json, fds),
            Err(error) => tracing::error!(%error, message = message.name(), "cannot write a message"),
        }
    }

    fn broadcast(&mut self, to: &[ConnectionId], message: &EngineMessage) {
        if let EngineMessage::CatalogChange { changes, .. } = message {
            self.tell_relay_names(changes);
            self.tell_watchers(to, changes);
        }
        match serde_json::to_vec(message) {
            Ok(json) => to.iter().for_each(|to| self.queue(*to, &json, Vec::new())),
            Err(error) => tracing::error!(%error, message = message.name(), "cannot write a message"),
        }
    }

    /// Passes on what the engine's own worker sees of the catalog, where somebody wants to hear of it.
    fn tell_watchers(&self, to: &[ConnectionId], changes: &[Change]) {
        if self.shared.watchers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let engine = Some(self.shared.engine_id);
        let to_engine = |to: &ConnectionId| {
            self.connections.get(to).is_some_and(|connection| connection.worker == engine)
        };
        if to.iter().any(to_engine)
            && let Some(watchers) = &*self.shared.changes.lock()
            && watchers.send(changes.to_vec()).is_err()
        {
            tracing::debug!("nobody tells of changes any more");
        }
    }

    fn queue(&mut self, to: ConnectionId, json: &[u8], fds: Vec<Arc<OwnedFd>>) {
        let Some(connection) = self.connections.get_mut(&to).filter(|connection| !connection.mute) else {
            return;
        };
        match connection.stream.queue(json, fds) {
            Ok(()) => {
                counters::count(&self.shared.counters.messages_out);
                self.unsent.insert(to);
            }
            Err(error) => {
                if matches!(error, PacketError::SlowReader { .. }) {
                    counters::count(&self.shared.counters.slow_readers);
                }
                tracing::warn!(connection = to, %error, "cannot send to a worker");
                connection.mute = true;
                self.failed.push((to, error.to_string()));
            }
        }
    }

    fn attached(&mut self, connection: ConnectionId, worker: WorkerId) {
        counters::count(&self.shared.counters.attaches);
        let Some(identity) = self.identity(worker) else { return };
        tracing::info!(%worker, name = identity.name, pid = identity.pid, "attached");
        let intake = self.connections.get_mut(&connection).and_then(|connection| {
            connection.worker = Some(worker);
            connection.intake.take()
        });
        self.telemetry.attached(identity, intake);
    }

    /// A worker is called otherwise from now on.
    fn described(&self, worker: WorkerId) {
        if let Some(identity) = self.identity(worker) {
            tracing::info!(%worker, name = identity.name, "announced itself");
            self.telemetry.attached(identity, None);
        }
    }

    fn identity(&self, worker: WorkerId) -> Option<WorkerIdentity> {
        let core = self.shared.core.read();
        let attached = core.worker(worker)?;
        Some(WorkerIdentity {
            id: worker,
            name: attached.hello.name.clone(),
            namespace: attached.hello.namespace.clone(),
            pid: attached.credentials.pid,
            is_engine: attached.credentials.engine,
        })
    }

    fn left(&mut self, worker: WorkerId, cause: GoneCause) {
        let counters = &self.shared.counters;
        counters::count(match cause {
            GoneCause::Goodbye => &counters.goodbyes,
            GoneCause::Died => &counters.deaths,
            _ => &counters.expulsions,
        });
        tracing::info!(%worker, ?cause, "left");
        if cause == GoneCause::Expelled {
            self.pages.revoke_all(worker);
        }
        self.telemetry.gone(worker);
    }

    /// Drops a connection once all is sent to it.
    fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.closing = true;
            connection.until = Some(Instant::now() + limits::CLOSING_TIME_MAX);
            self.unsent.insert(id);
        }
    }

    /// Finds which functions a message may name.
    pub(super) fn named_functions(&self, id: ConnectionId, message: &WorkerMessage) -> Vec<FunctionName> {
        let WorkerMessage::Register(register) = message else { return Vec::new() };
        let Some(worker) = self.connections.get(&id).and_then(|connection| connection.worker) else {
            return Vec::new();
        };
        register.functions.iter().map(|spec| (worker, spec.index, spec.id.to_string())).collect()
    }

    /// Tells the store the names of functions that were registered.
    pub(super) fn tell_names(&self, names: &[FunctionName]) {
        if names.is_empty() {
            return;
        }
        let core = self.shared.core.read();
        let mut collector = self.shared.collector.lock();
        for (worker, index, name) in names {
            if core.function_at(*worker, *index).is_some_and(|key| *key.id.as_str() == **name) {
                collector.function_registered(*worker, *index, name);
            }
        }
    }

    /// Tells the store the names of functions that the engine relays.
    fn tell_relay_names(&self, changes: &[Change]) {
        self.name_relays(changes.iter().filter_map(|change| match change {
            Change::FunctionAdded { function } => Some(function),
            _ => None,
        }));
    }

    fn name_relays<'a>(&self, functions: impl Iterator<Item = &'a CatalogFunction>) {
        for function in functions.filter(|function| function.relay.is_some()) {
            let mut collector = self.shared.collector.lock();
            collector.function_registered(function.worker, function.index, function.id.as_str());
        }
    }
}
