//! A worker's view of the catalog: who is there and what may be called where. It is what routing needs and
//! no more: schemas, descriptions of functions and metadata stay in the engine, which tells them on request
//! (`engine::functions::info`), so that a push to hundreds of workers stays small.

use serde::{Deserialize, Serialize};

use super::spec::is_false;
use crate::header::Encoding;
use crate::ids::{FunctionId, WorkerId};

/// Everything that a worker can see, at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Catalog {
    /// Rises by one with every change.
    pub revision: u64,
    /// Workers, the engine's own included.
    pub workers: Vec<CatalogWorker>,
    /// Functions: one entry for each replica.
    pub functions: Vec<CatalogFunction>,
}

/// Whether a worker takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// It takes calls.
    #[default]
    Ready,
    /// It finishes what it has.
    Draining,
}

/// A worker in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogWorker {
    /// Its id.
    pub id: WorkerId,
    /// Its name.
    pub name: String,
    /// The namespace of its functions.
    pub namespace: String,
    /// Its zone.
    pub zone: String,
    /// Its process.
    pub pid: u32,
    /// What it is written in.
    pub runtime: String,
    /// Whether it takes calls.
    #[serde(default)]
    pub status: WorkerStatus,
    /// Where it is, if it is on another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
}

/// Where a worker is that reaches this engine over a link.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Remote {
    /// What it was let in by: its token's holder, its certificate, its engine. Only the same one may attach with its id again.
    pub identity: String,
    /// The other host, as the connection has it.
    pub host: String,
    /// How long a round trip took at its attach, in microseconds; near replicas are called before far ones.
    pub round_trip_us: u32,
}

/// A function in the catalog, at one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogFunction {
    /// Its id.
    pub id: FunctionId,
    /// Its namespace.
    pub namespace: String,
    /// The worker to call: the one that serves it, or the engine's own where it is relayed.
    pub worker: WorkerId,
    /// Its index there.
    pub index: u32,
    /// The registration's generation.
    #[serde(default)]
    pub generation: u16,
    /// The encodings that it takes, the best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encodings: Vec<Encoding>,
    /// The name of its types' layout; see [`super::FunctionSpec::type_key`]. None where it is relayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_key: Option<String>,
    /// Repeating a call does no harm.
    #[serde(default, skip_serializing_if = "is_false")]
    pub idempotent: bool,
    /// The caller streams items to it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub streams_in: bool,
    /// It streams items to the caller.
    #[serde(default, skip_serializing_if = "is_false")]
    pub streams_out: bool,
    /// Items go both ways where a caller wants that. Not where it is relayed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub streams_optional: bool,
    /// Where it really lives, if the engine relays it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
}

/// Where a relayed function lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Relay {
    /// The other zone.
    pub zone: String,
}

/// Why a worker is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GoneCause {
    /// It left in peace.
    Goodbye,
    /// Its process ended or closed the control socket.
    Died,
    /// The engine put it out: it broke the protocol or a limit.
    Expelled,
}

/// One change of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Change {
    /// A worker attached.
    WorkerAdded {
        /// The worker.
        worker: CatalogWorker,
    },
    /// What is known of a worker changed.
    WorkerChanged {
        /// The worker as it is now.
        worker: CatalogWorker,
    },
    /// A worker takes no new calls.
    WorkerDraining {
        /// The worker.
        id: WorkerId,
    },
    /// A worker left, and all its functions with it: no [`Change::FunctionRemoved`] is sent for them.
    WorkerGone {
        /// The worker.
        id: WorkerId,
        /// Why.
        cause: GoneCause,
    },
    /// A function was added at a worker, or replaces the one with its id there.
    FunctionAdded {
        /// The function.
        function: CatalogFunction,
    },
    /// A function was taken away from a worker.
    FunctionRemoved {
        /// Its id.
        id: FunctionId,
        /// Its namespace.
        namespace: String,
        /// The worker.
        worker: WorkerId,
        /// Its index there.
        index: u32,
    },
}

impl Catalog {
    /// Applies one pushed change set. A view that is behind must attach again.
    ///
    /// # Errors
    /// The revision is not the one after so many changes; nothing is changed.
    pub fn apply(&mut self, revision: u64, changes: &[Change]) -> Result<(), RevisionGapError> {
        let wanted = self.revision.wrapping_add(changes.len() as u64);
        if revision != wanted {
            return Err(RevisionGapError { wanted, found: revision });
        }
        self.revision = revision;
        changes.iter().for_each(|change| self.apply_one(change));
        Ok(())
    }

    fn apply_one(&mut self, change: &Change) {
        match change {
            Change::WorkerAdded { worker } | Change::WorkerChanged { worker } => {
                match self.workers.iter_mut().find(|old| old.id == worker.id) {
                    Some(old) => old.clone_from(worker),
                    None => self.workers.push(worker.clone()),
                }
            }
            Change::WorkerDraining { id } => {
                if let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == *id) {
                    worker.status = WorkerStatus::Draining;
                }
            }
            Change::WorkerGone { id, .. } => {
                self.workers.retain(|worker| worker.id != *id);
                self.functions.retain(|function| function.worker != *id);
            }
            Change::FunctionAdded { function } => {
                let same = |old: &&mut CatalogFunction| {
                    (old.worker, old.index, &old.id, &old.namespace)
                        == (function.worker, function.index, &function.id, &function.namespace)
                };
                match self.functions.iter_mut().find(same) {
                    Some(old) => old.clone_from(function),
                    None => self.functions.push(function.clone()),
                }
            }
            Change::FunctionRemoved { id, namespace, worker, index } => {
                self.functions.retain(|old| {
                    (old.worker, old.index, &old.id, &old.namespace) != (*worker, *index, id, namespace)
                });
            }
        }
    }
}

/// A change set that does not follow the view's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted catalog revision {wanted}, found {found}")]
pub struct RevisionGapError {
    /// The revision wanted.
    pub wanted: u64,
    /// The revision found.
    pub found: u64,
}
