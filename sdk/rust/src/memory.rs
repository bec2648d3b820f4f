//! Where the payloads lie that a worker sends. An ordinary worker has one arena, lends its blocks to whoever it calls, and
//! passes on what others lent to it. The engine's worker talks to several zones, and whoever is lent a block can read the
//! whole segment around it: so it has an arena for each zone, and copies whatever it passes on into the arena of the zone
//! that it is for. It must not know what payloads mean.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use ringway_ipc::arena::{Arena, ArenaConfig};
use ringway_protocol::{CallError, Started, WorkerId};

use crate::worker::Inner;

/// Says in which zone a worker is; none when it is gone.
pub(crate) type ZoneOf = dyn Fn(WorkerId) -> Option<String> + Send + Sync;

/// What is sent over one channel is taken from here.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) arena: Arc<Arena>,
    /// Whatever is sent is copied into the arena first, wherever it lies.
    pub(crate) apart: bool,
}

impl Memory {
    /// The memory of a worker whose peers may read all that it sends.
    pub(crate) fn shared(arena: &Arc<Arena>) -> Self {
        Self { arena: Arc::clone(arena), apart: false }
    }
}

/// The arenas of a worker that talks to several zones.
pub(crate) struct Zones {
    zone_of: Arc<ZoneOf>,
    config: ArenaConfig,
    arenas: Mutex<HashMap<String, Arc<Arena>>>,
    /// Told when an arena shrinks.
    worker: OnceLock<Weak<Inner>>,
}

impl std::fmt::Debug for Zones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zones").field("arenas", &self.arenas).finish_non_exhaustive()
    }
}

impl Zones {
    pub(crate) fn new(zone_of: Arc<ZoneOf>, config: ArenaConfig) -> Self {
        Self { zone_of, config, arenas: Mutex::default(), worker: OnceLock::new() }
    }

    /// Names the worker whose channels are told when memory is given back.
    pub(crate) fn belong_to(&self, worker: &Arc<Inner>) {
        let _the_first_stays = self.worker.set(Arc::downgrade(worker));
    }

    fn memory(&self, peer: WorkerId) -> Result<Memory, CallError> {
        let zone = (self.zone_of)(peer).ok_or_else(|| CallError::worker_gone(peer, Started::No))?;
        let mut arenas = self.arenas.lock();
        let make = || {
            let arena = Arena::new(self.config.clone());
            if let Some(worker) = self.worker.get() {
                tell_of_freed_segments(&arena, worker.clone());
            }
            arena
        };
        Ok(Memory { arena: Arc::clone(arenas.entry(zone).or_insert_with(make)), apart: true })
    }

    /// Every zone's arena.
    pub(crate) fn arenas(&self) -> Vec<(String, Arc<Arena>)> {
        let mut arenas: Vec<_> =
            self.arenas.lock().iter().map(|(zone, arena)| (zone.clone(), Arc::clone(arena))).collect();
        arenas.sort_by(|a, b| a.0.cmp(&b.0));
        arenas
    }

    /// Gives back what nobody needs: free memory beyond `keep_bytes`, and arenas of zones that no channel leads to.
    pub(crate) fn trim(&self, keep_bytes: u64) {
        let mut arenas = self.arenas.lock();
        arenas.retain(|_, arena| Arc::strong_count(arena) > 1 || arena.stats().live_blocks > 0);
        arenas.values().for_each(|arena| arena.trim(keep_bytes));
    }
}

/// Has open channels told when a segment goes, so that peers unmap it.
pub(crate) fn tell_of_freed_segments(arena: &Arena, worker: Weak<Inner>) {
    arena.on_segment_freed(move |_| {
        if let Some(inner) = worker.upgrade() {
            for caller in inner.dispatcher.callers().iter() {
                caller.channel.retract_freed_segments();
            }
            for callee in inner.dispatcher.callees().iter() {
                callee.channel.retract_freed_segments();
            }
        }
    });
}

impl Inner {
    /// Where the payloads for a peer lie.
    ///
    /// # Errors
    /// `worker_gone` when nobody knows the peer's zone any more.
    pub(crate) fn memory_for(&self, peer: WorkerId) -> Result<Memory, CallError> {
        match &self.zones {
            None => Ok(Memory::shared(&self.arena)),
            Some(zones) => zones.memory(peer),
        }
    }
}
