//! What one zone sees of the catalog: its own workers and the engine's, their functions, and functions of
//! other zones that somebody of the zone may call, shown as the engine's. A view changes key by key, at a
//! cost that does not depend on the catalog's size, and always equals the one that would be made from
//! scratch.
//!
//! Its changes are told to its members in few messages: the first after a quiet time at once, what follows it
//! closely together. A member whose own request caused a change is told of it before the answer, ahead of the
//! others.

use std::collections::{BTreeMap, BTreeSet};

use ringway_protocol::control::{CatalogFunction, Change, EngineMessage, Relay};
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

/// How long news that nobody waits for may be kept to be told together, and the least time between two tellings of such
/// news: a worker registers some dozens of functions one by one in this time, and a person does not notice it.
pub(crate) const GATHER_NS: u64 = 5_000_000;

/// A zone's view.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// How many changes all members have been told.
    revision: u64,
    /// The zone's own workers: those to be told.
    pub(crate) members: BTreeSet<WorkerId>,
    /// Entries by function, in the order of replicas, then of zones relayed.
    functions: BTreeMap<FunctionKey, Vec<CatalogFunction>>,
    /// Changes that have been made and not yet told to all.
    pending: Vec<Change>,
    /// How many of these a member has been told already, where that is not none.
    ahead: BTreeMap<WorkerId, usize>,
    /// When they are to be told to all. Means nothing while there are none.
    due_ns: u64,
    /// Until when a change of a function is kept for the next telling.
    gather_until_ns: u64,
}

/// What entries are made from.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) policy: &'a Policy,
    pub(crate) relays: &'a mut Relays,
    pub(crate) engine: WorkerId,
    pub(crate) now_ns: u64,
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
        streams_optional: spec.streams_optional,
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
    entry.streams_optional = false;
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
    /// Takes everything for told: a view that was just made has nobody yet who could lack it.
    pub(crate) fn told(self) -> Self {
        Self { functions: self.functions, ..Self::default() }
    }

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
        let changes: Vec<_> = removed.chain(added).collect();
        changes.into_iter().for_each(|change| self.note(change, sources.now_ns));
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
        self.ahead.remove(&worker);
        for key in keys {
            let Some(entries) = self.functions.get_mut(&key) else { continue };
            entries.retain(|entry| entry.worker != worker);
            if entries.is_empty() {
                self.functions.remove(&key);
            }
        }
    }

    /// Notes a change to be told, and when.
    pub(crate) fn note(&mut self, change: Change, now_ns: u64) {
        let due_ns = match change {
            // Whoever calls there waits for this.
            Change::WorkerGone { .. } | Change::WorkerDraining { .. } => now_ns,
            Change::FunctionAdded { .. } | Change::FunctionRemoved { .. } => self.gather_until_ns.max(now_ns),
            // Nothing can be called yet; most workers register at once.
            _ => now_ns.saturating_add(GATHER_NS),
        };
        self.due_ns = if self.pending.is_empty() { due_ns } else { self.due_ns.min(due_ns) };
        self.pending.push(change);
    }

    /// Has what was noted told with the next telling.
    pub(crate) const fn hurry(&mut self) {
        self.due_ns = 0;
    }

    /// Returns when there is something to be told.
    pub(crate) fn due_ns(&self) -> Option<u64> {
        (!self.pending.is_empty()).then_some(self.due_ns)
    }

    /// Returns the revision after all that has been noted.
    pub(crate) fn revision(&self) -> u64 {
        self.revision + self.pending.len() as u64
    }

    /// Notes that a member knows everything that has been noted.
    pub(crate) fn knows_all(&mut self, member: WorkerId) {
        if !self.pending.is_empty() {
            self.ahead.insert(member, self.pending.len());
        }
    }

    /// Returns what a member has not been told yet.
    pub(crate) fn untold(&self, member: WorkerId) -> &[Change] {
        &self.pending[self.ahead.get(&member).copied().unwrap_or(0)..]
    }

    /// Returns what one member is to be told, ahead of the others.
    pub(crate) fn tell(&mut self, member: WorkerId) -> Option<EngineMessage> {
        if !self.members.contains(&member) {
            return None;
        }
        let changes = self.untold(member).to_vec();
        if changes.is_empty() {
            return None;
        }
        self.knows_all(member);
        Some(EngineMessage::CatalogChange { revision: self.revision(), changes })
    }

    /// Returns what all members are to be told: one message for those who know equally much.
    pub(crate) fn tell_all(&mut self, now_ns: u64) -> Vec<(Vec<WorkerId>, EngineMessage)> {
        let mut by_known = BTreeMap::<usize, Vec<WorkerId>>::new();
        for member in &self.members {
            by_known.entry(self.ahead.get(member).copied().unwrap_or(0)).or_default().push(*member);
        }
        by_known.remove(&self.pending.len());
        self.revision = self.revision();
        let changes = std::mem::take(&mut self.pending);
        self.ahead.clear();
        self.gather_until_ns = now_ns.saturating_add(GATHER_NS);
        let message = |known: usize| EngineMessage::CatalogChange {
            revision: self.revision,
            changes: changes[known..].to_vec(),
        };
        by_known.into_iter().map(|(known, to)| (to, message(known))).collect()
    }

    pub(crate) fn functions(&self) -> impl Iterator<Item = &CatalogFunction> {
        self.functions.values().flatten()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &FunctionKey> {
        self.functions.keys()
    }
}
