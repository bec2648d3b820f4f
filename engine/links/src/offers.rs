//! What others are told of this engine, as it changes: functions that they may call, and of the workers those that serve one.
//! Used by [`crate::peer`] for one engine, by [`crate::gateway`] for all behind a bus. It must not know how they are told.

use std::collections::HashSet;
use std::sync::Arc;

use ringway_protocol::WorkerId;
use ringway_protocol::control::{CatalogWorker, Change};

use crate::callable::Callable;

/// See the module.
#[derive(Debug)]
pub(crate) struct Offers {
    pub(crate) callable: Arc<Callable>,
    /// Workers of this engine that the others were told of.
    told: HashSet<WorkerId>,
}

impl Offers {
    pub(crate) fn new(callable: Arc<Callable>) -> Self {
        Self { callable, told: HashSet::new() }
    }

    /// What is to be told of these changes. `worker` finds workers of this engine.
    pub(crate) fn of<'a>(
        &mut self,
        changes: Vec<Change>,
        worker: impl Fn(WorkerId) -> Option<&'a CatalogWorker>,
    ) -> Vec<Change> {
        let mut told = Vec::new();
        for change in self.callable.keep_callable_of(changes) {
            match &change {
                // Whoever serves nothing is nobody's business.
                Change::WorkerAdded { worker } | Change::WorkerChanged { worker }
                    if !self.told.contains(&worker.id) => {}
                Change::WorkerDraining { id } if !self.told.contains(id) => {}
                Change::WorkerGone { id, .. } if !self.told.remove(id) => {}
                Change::FunctionAdded { function } => {
                    if self.told.insert(function.worker)
                        && let Some(worker) = worker(function.worker)
                    {
                        told.push(Change::WorkerAdded { worker: worker.clone() });
                    }
                    told.push(change);
                }
                _ => told.push(change),
            }
        }
        told
    }
}
