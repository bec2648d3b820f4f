//! What a remote worker may call, as the catalog is at this moment: which function each index of each worker stands for is
//! known here, and whether the grant has it. Used by [`crate::proxy`] and, for every call, by the gates of its channels. It
//! must not know channels.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use ringway_access::Grant;
use ringway_access::grant::Pattern;
use ringway_ipc::frame::Header;
use ringway_ipc::permission::{INDEX_END, PermissionView};
use ringway_link::tunnel::Gate;
use ringway_protocol::control::{Catalog, CatalogFunction, Change};
use ringway_protocol::{CallError, ErrorCode, FunctionId, WorkerId};

use crate::limits;

/// See the module.
#[derive(Debug)]
pub(crate) struct Callable {
    grant: Grant,
    /// What is told of at all, if there is more to that than the grant.
    offered: Option<Vec<Pattern>>,
    indexes: RwLock<HashMap<WorkerId, Indexes>>,
}

/// Of one worker.
#[derive(Debug, Default)]
struct Indexes {
    callable: HashSet<u32>,
    /// Those that were, of functions that are gone: whoever has not heard of that is told what became of them.
    gone: HashSet<u32>,
}

impl Indexes {
    fn add(&mut self, index: u32) {
        self.gone.remove(&index);
        self.callable.insert(index);
    }

    fn remove(&mut self, index: u32) -> bool {
        let was_callable = self.callable.remove(&index);
        if was_callable {
            // Whoever calls has heard of it within a second; so many do not go within that.
            if self.gone.len() >= limits::GONE_MAX {
                self.gone.clear();
            }
            self.gone.insert(index);
        }
        was_callable
    }
}

impl Callable {
    pub(crate) fn new(grant: Grant) -> Arc<Self> {
        Arc::new(Self { grant, offered: None, indexes: RwLock::default() })
    }

    /// As [`Self::new`], for whoever is told of these functions alone.
    pub(crate) fn offered(grant: Grant, offered: &[String]) -> Arc<Self> {
        let offered = offered.iter().map(|pattern| Pattern::new(pattern)).collect();
        Arc::new(Self { grant, offered: Some(offered), indexes: RwLock::default() })
    }

    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    fn allows(&self, function: &CatalogFunction) -> bool {
        let id = function.id.as_str();
        let offered = self.offered.as_ref();
        self.grant.may_call(&function.namespace, id)
            && offered.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(id)))
    }

    /// Leaves in a catalog what may be called, and remembers that.
    pub(crate) fn keep_callable(&self, catalog: &mut Catalog) {
        catalog.functions.retain(|function| self.allows(function));
        let mut indexes = self.indexes.write();
        indexes.clear();
        for function in &catalog.functions {
            indexes.entry(function.worker).or_default().add(function.index);
        }
    }

    /// The same for changes.
    pub(crate) fn keep_callable_of(&self, changes: Vec<Change>) -> Vec<Change> {
        let mut indexes = self.indexes.write();
        let kept = changes.into_iter().filter(|change| match change {
            Change::FunctionAdded { function } => {
                let allowed = self.allows(function);
                let of_worker = indexes.entry(function.worker).or_default();
                if allowed {
                    of_worker.add(function.index);
                } else {
                    // The index may have stood for another function before.
                    of_worker.callable.remove(&function.index);
                    of_worker.gone.remove(&function.index);
                }
                allowed
            }
            Change::FunctionRemoved { worker, index, id, namespace } => {
                self.grant.may_call(namespace, id.as_str())
                    && indexes.get_mut(worker).is_some_and(|of_worker| of_worker.remove(*index))
            }
            Change::WorkerGone { id, .. } => {
                indexes.remove(id);
                true
            }
            _ => true,
        });
        kept.collect()
    }
}

/// Lets calls of a remote worker through to one callee, if its grant has the function.
#[derive(Debug)]
pub(crate) struct OutwardGate {
    pub(crate) callable: Arc<Callable>,
    pub(crate) callee: WorkerId,
}

impl Gate for OutwardGate {
    fn check(&self, header: &Header) -> Result<(), CallError> {
        let indexes = self.callable.indexes.read();
        let of_callee = indexes.get(&self.callee);
        if of_callee.is_some_and(|known| known.callable.contains(&header.function)) {
            return Ok(());
        }
        if of_callee.is_some_and(|known| known.gone.contains(&header.function)) {
            // As the callee itself would say, so that the caller looks for another replica.
            return Err(CallError::stale_handle(header.function_generation, 0));
        }
        let text = format!(
            "the link's grant does not have function {} of worker {}; `call` in the token or in the engine's \
             `links` settings says what may be called",
            header.function, self.callee
        );
        Err(CallError::new(ErrorCode::Forbidden, text))
    }
}

/// What a worker elsewhere serves at this moment: what is not allowed and what is gone have the same bit on a permission page.
#[derive(Debug, Default)]
pub(crate) struct Served(RwLock<HashMap<u32, FunctionId>>);

impl Served {
    /// The engine refuses what no page has a bit for, so there are no more than that.
    pub(crate) fn add(&self, index: u32, id: FunctionId) {
        if index < INDEX_END {
            self.0.write().insert(index, id);
        }
    }

    pub(crate) fn remove(&self, index: u32) {
        self.0.write().remove(&index);
    }

    pub(crate) fn remove_by_id(&self, ids: &[FunctionId]) {
        self.0.write().retain(|_, id| !ids.contains(id));
    }

    pub(crate) fn clear(&self) {
        self.0.write().clear();
    }
}

/// Lets calls through to a remote worker that the engine's permission page of the channel allows.
#[derive(Debug)]
pub(crate) struct InwardGate {
    pub(crate) page: Option<PermissionView>,
    pub(crate) served: Arc<Served>,
}

impl Gate for InwardGate {
    fn check(&self, header: &Header) -> Result<(), CallError> {
        // Index 0 is for inspection by the engine, and has a bit like any other.
        if self.page.as_ref().is_none_or(|page| page.allows(header.function)) {
            return Ok(());
        }
        if !self.served.0.read().contains_key(&header.function) {
            return Err(CallError::stale_handle(header.function_generation, 0));
        }
        let text =
            format!("the policy of this engine does not allow function {} to this caller", header.function);
        Err(CallError::new(ErrorCode::Forbidden, text))
    }
}

#[cfg(test)]
mod tests {
    use ringway_protocol::control::GoneCause;

    use super::*;

    fn function(id: &str, worker: u64, index: u32) -> CatalogFunction {
        CatalogFunction {
            id: FunctionId::new(id).unwrap(),
            namespace: "default".to_owned(),
            worker: WorkerId::new(worker),
            index,
            generation: 0,
            encodings: Vec::new(),
            type_key: None,
            idempotent: false,
            streams_in: false,
            streams_out: false,
            streams_optional: false,
            relay: None,
        }
    }

    #[test]
    fn only_what_is_granted_is_seen_and_called() {
        let callable = Callable::new(Grant::default().with_call("math::*"));
        let code = |worker: u64, index: u32| {
            let callee = WorkerId::new(worker);
            let gate = OutwardGate { callable: Arc::clone(&callable), callee };
            gate.check(&Header { function: index, ..Header::default() }).err().map(|error| error.code)
        };
        let may = |worker: u64, index: u32| code(worker, index).is_none();
        let mut catalog = Catalog {
            functions: vec![function("math::add", 1, 1), function("bank::pay", 1, 2)],
            ..Catalog::default()
        };
        callable.keep_callable(&mut catalog);
        assert_eq!(catalog.functions.len(), 1);
        assert!(may(1, 1) && !may(1, 2) && !may(2, 1) && !may(1, 0));
        let removed = |id: &str, index| Change::FunctionRemoved {
            id: FunctionId::new(id).unwrap(),
            namespace: "default".to_owned(),
            worker: WorkerId::new(1),
            index,
        };
        let kept = callable.keep_callable_of(vec![
            Change::FunctionAdded { function: function("math::sub", 2, 1) },
            Change::FunctionAdded { function: function("bank::pay", 2, 2) },
            removed("bank::pay", 2),
            removed("math::add", 1),
        ]);
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(may(2, 1) && !may(2, 2) && !may(1, 1));
        // It was there; what was never granted is not told apart from what never was.
        assert_eq!((code(1, 1), code(1, 2)), (Some(ErrorCode::StaleHandle), Some(ErrorCode::Forbidden)));
        // An index that stands for something else now is not what was granted.
        callable.keep_callable_of(vec![Change::FunctionAdded { function: function("bank::rob", 2, 1) }]);
        assert_eq!(code(2, 1), Some(ErrorCode::Forbidden));
        callable.keep_callable_of(vec![Change::FunctionAdded { function: function("math::sub", 2, 3) }]);
        callable.keep_callable_of(vec![Change::WorkerGone { id: WorkerId::new(2), cause: GoneCause::Died }]);
        assert!(!may(2, 3));
    }
}
