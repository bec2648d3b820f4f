//! What one zone sees of the catalog: its own workers and the engine's, their functions, and functions of
//! other zones that somebody of the zone may call, shown as the engine's. A view changes key by key, at a
//! cost that does not depend on the catalog's size, and always equals the one that would be made from
//! scratch.

use std::collections::{BTreeMap, BTreeSet};

use ringway_protocol::control::{CatalogFunction, Change, Relay};
use ringway_protocol::header::Encoding;
use ringway_protocol::ids::WorkerId;

use crate::catalog::{Catalog, FunctionKey, Replica};
use crate::policy::Policy;
use crate::relay::Relays;
use crate::zones::Zone;

#[cfg(test)]
thread_local! {
    /// How many functions and replicas were looked at, for the test of what a change costs.
    static VISITS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Returns how many functions and replicas this thread has looked at.
#[cfg(test)]
pub(crate) fn visits() -> u64 {
    VISITS.get()
}

/// A zone's view.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) revision: u64,
    /// The zone's own workers: those to be told.
    pub(crate) members: BTreeSet<WorkerId>,
    /// Entries by function, in the order of replicas, then of zones relayed.
    functions: BTreeMap<FunctionKey, Vec<CatalogFunction>>,
    /// Changes that have been made and not yet sent.
    pub(crate) pending: Vec<Change>,
}

/// What entries are made from.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) policy: &'a Policy,
    pub(crate) relays: &'a mut Relays,
    pub(crate) engine: WorkerId,
}

fn direct(key: &FunctionKey, replica: &Replica) -> CatalogFunction {
    let spec = &replica.spec;
    CatalogFunction {
        id: key.id.clone(),
        namespace: key.namespace.to_string(),
        worker: replica.worker,
        index: spec.index,
        generation: spec.generation,
        encodings: spec.encodings.clone(),
        type_key: spec.type_key.clone(),
        idempotent: spec.idempotent,
        streams_in: spec.streams_in,
        streams_out: spec.streams_out,
        relay: None,
    }
}

/// Shows the replicas of another zone as one function of the engine. What not all of them can do, it cannot.
fn relayed(
    engine: WorkerId,
    index: u32,
    key: &FunctionKey,
    replicas: &[&Replica],
) -> Option<CatalogFunction> {
    let first = replicas.first()?;
    let all = |what: fn(&Replica) -> bool| replicas.iter().all(|replica| what(replica));
    let mut entry = direct(key, first);
    entry.worker = engine;
    entry.index = index;
    entry.generation = 0;
    entry.encodings.retain(|encoding| {
        *encoding != Encoding::Rkyv
            && replicas.iter().all(|replica| replica.spec.encodings.contains(encoding))
    });
    entry.type_key = None;
    entry.idempotent = all(|replica| replica.spec.idempotent);
    entry.streams_in = all(|replica| replica.spec.streams_in);
    entry.streams_out = all(|replica| replica.spec.streams_out);
    entry.relay = Some(Relay { zone: first.zone.to_string() });
    Some(entry)
}

impl Sources<'_> {
    /// Returns what a zone sees of one function.
    fn entries(&mut self, zone: &Zone, key: &FunctionKey) -> Vec<CatalogFunction> {
        #[cfg(test)]
        VISITS.set(VISITS.get() + 1 + self.catalog.replicas(key).len() as u64);
        let (mut entries, mut foreign) = (Vec::new(), BTreeMap::<&Zone, Vec<&Replica>>::new());
        for replica in self.catalog.replicas(key) {
            if !self.policy.shows(zone, &replica.zone, &key.id) {
                continue;
            }
            if replica.zone == *zone || replica.worker == self.engine {
                entries.push(direct(key, replica));
            } else {
                foreign.entry(&replica.zone).or_default().push(replica);
            }
        }
        for (zone, replicas) in foreign {
            let index = self.relays.index(zone, key);
            entries.extend(index.and_then(|index| relayed(self.engine, index, key, &replicas)));
        }
        entries
    }
}

impl View {
    /// Makes a function's entries anew and notes what changed.
    pub(crate) fn refresh(&mut self, sources: &mut Sources<'_>, zone: &Zone, key: &FunctionKey) {
        let new = sources.entries(zone, key);
        let old = self.functions.get(key).map_or(&[][..], Vec::as_slice);
        if new == old {
            return;
        }
        let place = |entry: &CatalogFunction| (entry.worker, entry.index);
        let removed = old.iter().filter(|old| new.iter().all(|new| place(new) != place(old)));
        let removed = removed.map(|old| Change::FunctionRemoved {
            id: old.id.clone(),
            namespace: old.namespace.clone(),
            worker: old.worker,
            index: old.index,
        });
        let added = new.iter().filter(|new| !old.contains(new));
        let added = added.map(|new| Change::FunctionAdded { function: new.clone() });
        self.pending.extend(removed.chain(added));
        if new.is_empty() {
            self.functions.remove(key);
        } else {
            self.functions.insert(key.clone(), new);
        }
    }

    /// Forgets a worker that has gone, before its functions are refreshed: whoever hears that it is gone
    /// drops its functions too.
    pub(crate) fn forget(&mut self, worker: WorkerId, keys: impl Iterator<Item = FunctionKey>) {
        self.members.remove(&worker);
        for key in keys {
            let Some(entries) = self.functions.get_mut(&key) else { continue };
            entries.retain(|entry| entry.worker != worker);
            if entries.is_empty() {
                self.functions.remove(&key);
            }
        }
    }

    pub(crate) fn functions(&self) -> impl Iterator<Item = &CatalogFunction> {
        self.functions.values().flatten()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &FunctionKey> {
        self.functions.keys()
    }
}
