//! `hello`: a worker attaches for the first time, again after its connection broke, or again after the
//! engine was away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringway_protocol::control::{Catalog, Change, EngineMessage, Hello, Welcome, WorkerStatus};
use ringway_protocol::error::{CallError, ErrorCode};
use ringway_protocol::ids::WorkerId;
use ringway_protocol::limits;

use super::{Core, Sources};
use crate::catalog::{self, Announced, Unconfirmed, Worker};
use crate::effect::Effect;
use crate::event::{ConnectionId, Credentials};
use crate::view::View;
use crate::zones::Zone;

impl Core {
    pub(super) fn attach(&mut self, now_ns: u64, from: ConnectionId, hello: Hello, out: &mut Vec<Effect>) {
        let Some(credentials) = self.connections.get(&from).map(|connection| connection.credentials) else {
            return;
        };
        let zone = match self.admit(&hello, credentials) {
            Ok(zone) => zone,
            Err(error) => return self.refuse(from, error, out),
        };
        let id = hello.worker_id;
        let wants_catalog = hello.catalog;
        let worker = self.make_worker(now_ns, from, hello, credentials, &zone);
        if let Some(connection) = self.connections.get_mut(&from) {
            connection.worker = Some(id);
        }
        if wants_catalog {
            self.join(&zone, id);
        }
        let change = if let Some(old) = self.catalog.workers.get(&id) {
            // The old connection is dead even if its end has not been seen.
            out.push(Effect::Close { connection: old.connection });
            self.connections.remove(&old.connection);
            Change::WorkerChanged { worker: worker.entry(id) }
        } else {
            Change::WorkerAdded { worker: worker.entry(id) }
        };
        self.catalog.workers.insert(id, worker);
        self.note(&zone, credentials.engine, &change);
        out.push(Effect::Attached { connection: from, worker: id });
        // The welcome has it all.
        if wants_catalog && let Some(view) = self.views.get_mut(&zone) {
            view.knows_all(id);
        }
        self.publish(None, out);
        let catalog = if wants_catalog { self.view(&zone) } else { Catalog::default() };
        let welcome = self.welcome(now_ns, id, &zone, catalog);
        out.push(Effect::Send { to: from, message: EngineMessage::Welcome(Box::new(welcome)) });
        self.adopt_channels(id, out);
    }

    /// Says whether a worker may attach, and to which zone.
    fn admit(&self, hello: &Hello, credentials: Credentials) -> Result<Zone, CallError> {
        catalog::check_hello(hello)?;
        let limit = self.config.limits.channels_max;
        if hello.channels.len() > limit as usize {
            let found = hello.channels.len();
            let message = format!("wanted at most {limit} kept channels, found {found}");
            return Err(CallError::invalid_registration(message));
        }
        if credentials.engine != (hello.worker_id == self.config.engine_id) {
            let message = format!("worker id {} is the engine's own", self.config.engine_id);
            return Err(CallError::new(ErrorCode::Forbidden, message));
        }
        let zone = self.config.zones.assign(credentials.uid, hello.zone.as_deref())?;
        match self.catalog.workers.get(&hello.worker_id) {
            Some(old) if old.credentials != credentials || old.zone != zone => {
                let message = format!(
                    "worker id {} is in use by process {}; draw a random id at each start",
                    hello.worker_id, old.credentials.pid
                );
                Err(CallError::new(ErrorCode::RegistrationConflict, message))
            }
            Some(old) if identity(&old.hello) != identity(hello) => {
                let message = format!(
                    "worker id {} is in use by {}; draw a random id at each start",
                    hello.worker_id,
                    identity(&old.hello).map_or("a worker of this host", |holder| holder)
                );
                Err(CallError::new(ErrorCode::RegistrationConflict, message))
            }
            Some(old) if *old.namespace != *hello.namespace => {
                Err(CallError::invalid_registration("a worker cannot change its namespace while attached"))
            }
            _ => Ok(zone),
        }
    }

    /// Makes a worker's record. One that is attached already keeps what it registered until its next
    /// registration, which names everything it has; one that was attached to an earlier engine starts
    /// empty, and its kept channels wait for the same.
    fn make_worker(
        &mut self,
        now_ns: u64,
        from: ConnectionId,
        mut hello: Hello,
        credentials: Credentials,
        zone: &Zone,
    ) -> Worker {
        self.epoch += 1;
        let old = self.catalog.workers.get(&hello.worker_id);
        let unconfirmed = match old {
            Some(old) => Some(Unconfirmed {
                functions: old.functions.values().cloned().collect(),
                triggers: old.triggers.clone(),
                trigger_types: old.trigger_types.clone(),
            }),
            None => hello.reattach.then(Unconfirmed::default),
        };
        let kept = Worker::take_kept(&hello.channels);
        hello.channels = Vec::new();
        Worker {
            connection: from,
            credentials,
            // One that came over a link is in this process only because its end of the link is.
            inside: hello.remote.is_none()
                && (credentials.engine || credentials.pid == self.config.engine_pid),
            namespace: Arc::from(hello.namespace.as_str()),
            zone: Zone::clone(zone),
            status: WorkerStatus::Ready,
            epoch: self.epoch,
            attached_at_ns: now_ns,
            heard_at_ns: now_ns,
            functions: old.map_or_else(BTreeMap::new, |old| old.functions.clone()),
            triggers: old.map_or_else(BTreeSet::new, |old| old.triggers.clone()),
            trigger_types: old.map_or_else(BTreeSet::new, |old| old.trigger_types.clone()),
            unconfirmed,
            announced: Announced::default(),
            kept,
            hello,
        }
    }

    /// Makes a worker a member of its zone's view; the zone's first member has it made.
    fn join(&mut self, zone: &Zone, id: WorkerId) {
        if let Some(view) = self.views.get_mut(zone) {
            view.members.insert(id);
            return;
        }
        let mut made = View::default();
        let mut sources = Sources {
            catalog: &self.catalog,
            policy: &self.config.policy,
            relays: &mut self.relays,
            engine: self.config.engine_id,
            now_ns: self.now_ns,
        };
        for (key, _) in self.catalog.functions() {
            made.refresh(&mut sources, zone, key);
        }
        let mut view = made.told();
        view.members.insert(id);
        self.views.insert(Zone::clone(zone), view);
    }

    fn welcome(&self, now_ns: u64, id: WorkerId, zone: &Zone, catalog: Catalog) -> Welcome {
        Welcome {
            worker_id: id,
            engine_id: self.config.engine_id,
            epoch: self.epoch,
            protocol: limits::PROTOCOL_VERSION,
            engine_version: self.config.engine_version.clone(),
            engine_pid: self.config.engine_pid,
            zone: zone.to_string(),
            limits: self.config.limits,
            catalog,
            time_ns: now_ns,
            unix_time_ms: self.unix_ms(now_ns),
        }
    }

    /// Returns what a zone sees now. Costs a copy of its view.
    #[must_use]
    pub fn view(&self, zone: &str) -> Catalog {
        let Some(view) = self.views.get(zone) else { return Catalog::default() };
        let seen = self
            .catalog
            .workers
            .iter()
            .filter(|(_, worker)| worker.credentials.engine || *worker.zone == *zone);
        Catalog {
            revision: view.revision(),
            workers: seen.map(|(id, worker)| worker.entry(*id)).collect(),
            functions: view.functions().cloned().collect(),
        }
    }

    /// Turns the engine's clock into Unix time.
    pub(crate) const fn unix_ms(&self, time_ns: u64) -> u64 {
        self.config.unix_anchor_ms.saturating_add(time_ns / 1_000_000)
    }
}

/// What a worker of another host was let in by.
fn identity(hello: &Hello) -> Option<&str> {
    hello.remote.as_ref().map(|remote| remote.identity.as_str())
}
