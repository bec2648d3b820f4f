//! A worker goes: in peace, by death, or put out. Everything that depends on it ends at once, and all who
//! could see it hear of it.

use std::collections::BTreeSet;

use ringway_protocol::control::{Change, EngineMessage, GoneCause, WorkerStatus};
use ringway_protocol::error::CallError;
use ringway_protocol::ids::WorkerId;

use super::Core;
use crate::catalog::FunctionKey;
use crate::effect::Effect;
use crate::event::ConnectionId;

impl Core {
    pub(super) fn closed(&mut self, connection: ConnectionId, out: &mut Vec<Effect>) {
        self.leave(connection, GoneCause::Died, out);
    }

    pub(super) fn goodbye(&mut self, connection: ConnectionId, out: &mut Vec<Effect>) {
        self.leave(connection, GoneCause::Goodbye, out);
        out.push(Effect::Close { connection });
    }

    pub(super) fn refuse(&mut self, connection: ConnectionId, error: CallError, out: &mut Vec<Effect>) {
        out.push(Effect::Send { to: connection, message: EngineMessage::Refused { error } });
        self.leave(connection, GoneCause::Expelled, out);
        out.push(Effect::Close { connection });
    }

    /// Notes that a worker takes no new calls. It stays until it leaves.
    pub(super) fn drain(&mut self, id: WorkerId, out: &mut Vec<Effect>) {
        let Some(worker) = self.catalog.workers.get_mut(&id) else { return };
        if worker.status == WorkerStatus::Draining {
            return;
        }
        worker.status = WorkerStatus::Draining;
        let (zone, engine) = (worker.zone.clone(), worker.credentials.engine);
        self.note(&zone, engine, &Change::WorkerDraining { id });
        self.publish(None, out);
    }

    fn leave(&mut self, connection: ConnectionId, cause: GoneCause, out: &mut Vec<Effect>) {
        let Some(id) = self.connections.remove(&connection).and_then(|connection| connection.worker) else {
            return;
        };
        let Some(worker) = self.catalog.workers.get(&id).filter(|worker| worker.connection == connection)
        else {
            return;
        };
        let (zone, engine) = (worker.zone.clone(), worker.credentials.engine);
        let keys: BTreeSet<FunctionKey> = worker.functions.values().cloned().collect();
        for key in &keys {
            self.catalog.remove(id, key);
        }
        let worker = self.catalog.workers.remove(&id);
        for view in self.views.values_mut() {
            view.forget(id, keys.iter().cloned());
        }
        self.note(&zone, engine, &Change::WorkerGone { id, cause });
        self.refresh(&keys);
        self.retire_relays(&zone, &keys);
        self.publish(None, out);
        out.push(Effect::Left { connection, worker: id, cause });
        self.drop_channels(id, out);
        if let Some(worker) = worker {
            self.drop_triggers(id, &worker, out);
        }
    }
}
