//! Functions that one zone may call in another, through the engine. Each has an index at the engine's
//! worker that is never used again, so a stale handle can only fail. The engine checks permission at every
//! such call and chooses the replica.

use std::collections::{BTreeMap, HashMap};

use ringway_protocol::ids::WorkerId;
use ringway_protocol::limits;

use crate::catalog::FunctionKey;
use crate::zones::Zone;

/// Where a relayed call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayTarget {
    /// The function's zone.
    pub zone: Zone,
    /// The function.
    pub key: FunctionKey,
    /// The replicas that take calls: worker, function index, generation.
    pub replicas: Vec<(WorkerId, u32, u16)>,
    /// Whether a call may be repeated without harm, as all of them say.
    pub idempotent: bool,
    /// Whether any of them streams.
    pub streams: bool,
}

/// The indexes that are in use.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Relays {
    indexes: BTreeMap<(Zone, FunctionKey), u32>,
    targets: HashMap<u32, (Zone, FunctionKey)>,
    next: u32,
}

impl Default for Relays {
    fn default() -> Self {
        Self { indexes: BTreeMap::new(), targets: HashMap::new(), next: limits::RELAY_INDEX_START }
    }
}

impl Relays {
    /// Returns the index of a function of a zone, and gives it one if it has none. None where all indexes
    /// have been used up: four thousand million registrations later.
    pub(crate) fn index(&mut self, zone: &Zone, key: &FunctionKey) -> Option<u32> {
        let relay = (Zone::clone(zone), key.clone());
        if let Some(&index) = self.indexes.get(&relay) {
            return Some(index);
        }
        let index = self.next;
        self.next = self.next.checked_add(1)?;
        self.targets.insert(index, relay.clone());
        self.indexes.insert(relay, index);
        Some(index)
    }

    pub(crate) fn remove(&mut self, zone: &Zone, key: &FunctionKey) {
        if let Some(index) = self.indexes.remove(&(Zone::clone(zone), key.clone())) {
            self.targets.remove(&index);
        }
    }

    pub(crate) fn target(&self, index: u32) -> Option<&(Zone, FunctionKey)> {
        self.targets.get(&index)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.indexes.len()
    }
}
