//! What the engine of this host has to offer: its catalog, followed by an attach of its own, and which of it goes to other
//! engines. Used by [`crate::gateway`]. It must not know links.
//!
//! An engine offers what its own workers serve and what workers serve that dialled it themselves, and never what it was
//! offered by another engine: so nothing goes round in circles, and engines that are to see each other are linked to each
//! other. Built-in functions are not offered: every engine has its own.

use std::time::{Duration, Instant};

use ringway_protocol::control::{Catalog, CatalogFunction, CatalogWorker, Change, EngineMessage, Hello};
use ringway_protocol::{CallError, ErrorCode, WorkerId, naming};

use crate::attach::{Attach, AttachError};

/// What the identity of a worker begins with that another engine offered.
pub(crate) const ENGINE_IDENTITY: &str = "engine:";

/// What ids of the built-in workers begin with: each engine has its own, over its own store, so that another's would be a
/// replica of something else.
const BUILT_IN: [&str; 12] = [
    "blob",
    "configuration",
    "cron",
    "http",
    "iii",
    "links",
    "publish",
    "pubsub",
    "queue",
    "state",
    "store",
    "stream",
];

/// How long the engine may take to answer the greeting.
const WELCOME_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) attach: Attach,
    pub(crate) engine_id: WorkerId,
    catalog: Catalog,
}

impl Watch {
    /// Attaches and waits for the catalog.
    pub(crate) fn new(engine: &str, name: &str) -> Result<Self, CallError> {
        let failed = |error: AttachError| CallError::new(ErrorCode::EngineUnavailable, error.to_string());
        let id = WorkerId::new(random());
        let mut hello = Hello::new(id, format!("links {name}"), std::process::id());
        hello.description = Some("carries calls between this engine and others".to_owned());
        let mut attach = Attach::new(engine, hello).map_err(failed)?;
        let until = Instant::now() + WELCOME_MAX;
        loop {
            attach.flush().map_err(failed)?;
            match attach.receive().map_err(failed)? {
                Some((EngineMessage::Welcome(welcome), _)) => {
                    let (engine_id, catalog) = (welcome.engine_id, welcome.catalog);
                    return Ok(Self { attach, engine_id, catalog });
                }
                Some((EngineMessage::Refused { error }, _)) => return Err(error),
                Some(_) => {}
                None if Instant::now() > until => {
                    return Err(CallError::deadline_exceeded(WELCOME_MAX));
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// The next change of what may be offered; none where nothing waits.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Change>>, AttachError> {
        while let Some((message, _)) = self.attach.receive()? {
            let EngineMessage::CatalogChange { revision, changes } = message else { continue };
            // A gap cannot be where every message of one stream is read.
            let _follows = self.catalog.apply(revision, &changes);
            return Ok(Some(changes.into_iter().filter(|change| self.is_offered(change)).collect()));
        }
        Ok(None)
    }

    /// All that may be offered, as changes of nothing.
    pub(crate) fn all(&self) -> Vec<Change> {
        let workers =
            self.catalog.workers.iter().map(|worker| Change::WorkerAdded { worker: worker.clone() });
        let functions = self.catalog.functions.iter();
        let functions = functions.map(|function| Change::FunctionAdded { function: function.clone() });
        workers.chain(functions).filter(|change| self.is_offered(change)).collect()
    }

    fn is_offered(&self, change: &Change) -> bool {
        match change {
            Change::WorkerAdded { worker } | Change::WorkerChanged { worker } => is_own(worker),
            Change::FunctionAdded { function } => self.is_of_own(function),
            Change::FunctionRemoved { .. } => true,
            Change::WorkerDraining { .. } | Change::WorkerGone { .. } => true,
            _ => false,
        }
    }

    fn is_of_own(&self, function: &CatalogFunction) -> bool {
        // A worker is told of before its functions.
        let Some(worker) = self.worker(function.worker) else { return false };
        let inside = worker.pid == std::process::id() && worker.remote.is_none();
        let id = function.id.as_str();
        let built_in = naming::is_reserved(id) || (inside && BUILT_IN.contains(&naming::first_segment(id)));
        is_own(worker) && function.relay.is_none() && !built_in
    }

    /// A worker as the catalog has it.
    pub(crate) fn worker(&self, id: WorkerId) -> Option<&CatalogWorker> {
        self.catalog.workers.iter().find(|worker| worker.id == id)
    }
}

/// Whether a worker is of this engine: here, or dialled in by itself.
fn is_own(worker: &CatalogWorker) -> bool {
    worker.remote.as_ref().is_none_or(|remote| !remote.identity.starts_with(ENGINE_IDENTITY))
}

/// A number that nobody else draws. The standard library's hash keys come from the system's random source.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish().max(1)
}
