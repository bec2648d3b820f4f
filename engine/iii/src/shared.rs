//! What all connections share: the engine's address, who is connected, which names are taken. It must not know how a
//! connection is served.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use ringway::{Worker, WorkerId};
use ringway_worker_listen::Places;
use tokio::runtime::Handle;

use crate::channels::Channels;
use crate::config::Config;
use crate::otel::Telemetry;
use crate::session::Session;

/// A worker's name in its namespace.
type Name = (String, String);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where the engine is.
    pub(crate) address: String,
    /// The settings.
    pub(crate) config: Config,
    /// The listener's own worker, which calls what belongs to no connection.
    pub(crate) worker: Worker,
    /// Streams beside calls.
    pub(crate) channels: Channels,
    /// What came as telemetry.
    pub(crate) telemetry: Telemetry,
    /// Where connections are served.
    pub(crate) runtime: Handle,
    /// For how many connections there is room.
    pub(crate) places: Arc<Places>,
    sessions: RwLock<HashMap<WorkerId, Weak<Session>>>,
    /// By their UUIDs, which are what clients know.
    by_uuid: Mutex<HashMap<String, Weak<Session>>>,
    names: Mutex<HashMap<Name, WorkerId>>,
}

impl Shared {
    pub(crate) fn new(address: &str, config: Config, worker: Worker, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            address: address.to_owned(),
            places: Places::new(config.connections_max),
            config,
            worker,
            channels: Channels::default(),
            telemetry: Telemetry::default(),
            runtime,
            sessions: RwLock::default(),
            by_uuid: Mutex::default(),
            names: Mutex::default(),
        })
    }

    pub(crate) fn add(&self, session: &Arc<Session>) {
        self.sessions.write().insert(session.worker_id, Arc::downgrade(session));
        self.by_uuid.lock().insert(session.uuid.clone(), Arc::downgrade(session));
    }

    pub(crate) fn remove(&self, session: &Session) {
        self.sessions.write().remove(&session.worker_id);
        self.by_uuid.lock().remove(&session.uuid);
        self.names.lock().retain(|_, holder| *holder != session.worker_id);
    }

    /// The connection of a worker, if it has one here.
    pub(crate) fn session(&self, worker: WorkerId) -> Option<Arc<Session>> {
        self.sessions.read().get(&worker)?.upgrade()
    }

    /// The connection whose worker has a UUID.
    pub(crate) fn session_of(&self, uuid: &str) -> Option<Arc<Session>> {
        self.by_uuid.lock().get(uuid)?.upgrade()
    }

    /// Takes a name for a worker; if another one has it, its UUID.
    pub(crate) fn claim(&self, namespace: &str, name: &str, session: &Session) -> Result<(), String> {
        let mut names = self.names.lock();
        let name = (namespace.to_owned(), name.to_owned());
        let holder = names.get(&name).filter(|holder| **holder != session.worker_id);
        let holder = holder.and_then(|holder| self.session(*holder)).filter(|holder| !holder.is_ended());
        if let Some(holder) = holder {
            return Err(holder.uuid.clone());
        }
        names.insert(name, session.worker_id);
        Ok(())
    }
}
