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
use crate::limits::STRANGERS_MAX;
use crate::linger::Linger;
use crate::observers::Observers;
use crate::otel::Telemetry;
use crate::protocol::NewTrigger;
use crate::session::Session;

/// A worker's name in its namespace.
type Name = (String, String);

/// Triggers by their clients and ids.
type Triggers = HashMap<(WorkerId, String), (Weak<Session>, NewTrigger)>;

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
    /// Keeps it awake while much comes.
    pub(crate) linger: Arc<Linger>,
    /// For how many connections there is room.
    pub(crate) places: Arc<Places>,
    /// Functions that are called after calls of others.
    pub(crate) observers: Observers,
    sessions: RwLock<HashMap<WorkerId, Weak<Session>>>,
    /// By their UUIDs, which are what clients know.
    by_uuid: Mutex<HashMap<String, Weak<Session>>>,
    names: Mutex<HashMap<Name, WorkerId>>,
    /// Triggers of clients, some of which may be observers yet.
    triggers: Mutex<Triggers>,
    /// What workers are called that are no clients here; a number is never given twice.
    strangers: RwLock<HashMap<WorkerId, Arc<str>>>,
}

impl Shared {
    pub(crate) fn new(address: &str, config: Config, worker: Worker, runtime: Handle) -> Arc<Self> {
        Arc::new_cyclic(|shared| Self {
            observers: Observers::new(Weak::clone(shared)),
            address: address.to_owned(),
            places: Places::new(config.connections_max),
            config,
            worker,
            channels: Channels::default(),
            telemetry: Telemetry::default(),
            runtime,
            linger: Arc::new(Linger::new()),
            sessions: RwLock::default(),
            by_uuid: Mutex::default(),
            names: Mutex::default(),
            triggers: Mutex::default(),
            strangers: RwLock::default(),
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
        self.triggers.lock().retain(|(of, _), _| *of != session.worker_id);
    }

    /// The connection of a worker, if it has one here.
    pub(crate) fn session(&self, worker: WorkerId) -> Option<Arc<Session>> {
        self.sessions.read().get(&worker)?.upgrade()
    }

    /// The connection whose worker has a UUID.
    pub(crate) fn session_of(&self, uuid: &str) -> Option<Arc<Session>> {
        self.by_uuid.lock().get(uuid)?.upgrade()
    }

    /// Remembers a trigger of a client.
    pub(crate) fn keep_trigger(&self, session: &Arc<Session>, trigger: &NewTrigger) {
        let kept = (Arc::downgrade(session), trigger.clone());
        self.triggers.lock().insert((session.worker_id, trigger.id.clone()), kept);
    }

    /// A trigger of a client has ended, or was refused.
    pub(crate) fn forget_trigger(&self, session: &Session, id: &str) {
        drop(self.triggers.lock().remove(&(session.worker_id, id.to_owned())));
    }

    /// Triggers of a type.
    pub(crate) fn triggers_of(&self, trigger_type: &str) -> Vec<(Arc<Session>, NewTrigger)> {
        let triggers = self.triggers.lock();
        let of_type = triggers.values().filter(|(_, trigger)| trigger.trigger_type == trigger_type);
        of_type.filter_map(|(of, trigger)| Some((of.upgrade()?, trigger.clone()))).collect()
    }

    /// What a worker is called that is no client here.
    pub(crate) fn stranger(&self, worker: WorkerId) -> Option<Arc<str>> {
        if let Some(name) = self.strangers.read().get(&worker) {
            return Some(Arc::clone(name));
        }
        let catalog = self.worker.catalog();
        let found = catalog.workers.iter().find(|found| found.id == worker)?;
        let name = Arc::<str>::from(found.name.as_str());
        let mut strangers = self.strangers.write();
        if strangers.len() >= STRANGERS_MAX {
            strangers.clear();
        }
        strangers.insert(worker, Arc::clone(&name));
        Some(name)
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
