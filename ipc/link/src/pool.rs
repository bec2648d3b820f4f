//! The memory into which payloads are received. Used by [`crate::session`] and [`crate::parcel`]; the driver counts it. It must
//! not know who reads a payload.
//!
//! A channel that closes takes its leases back, and its local peer cannot say how long it goes on reading what it was lent: a
//! handler that runs, a reply that is kept. On one host that harms nobody, since whoever closes a channel leaves with its
//! arena. A link goes on: a block of such a channel, used for what comes next, would change under its reader. So the arena
//! is left behind: what is lent from it stays as it is, nothing more is loaned from it, and its segments go with their last
//! block and their last reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use ringway_ipc::arena::{Arena, ArenaConfig};

/// See the module.
#[derive(Debug)]
pub(crate) struct Pool {
    config: ArenaConfig,
    current: Mutex<Arc<Arena>>,
    freed: Arc<AtomicU64>,
}

impl Pool {
    pub(crate) fn new(config: ArenaConfig) -> Arc<Self> {
        let freed = Arc::new(AtomicU64::new(0));
        let current = Mutex::new(arena(&config, &freed));
        Arc::new(Self { config, current, freed })
    }

    /// Where to loan from now; not to be kept.
    pub(crate) fn arena(&self) -> Arc<Arena> {
        Arc::clone(&self.current.lock())
    }

    /// Loans nothing more of what there is.
    pub(crate) fn leave_behind(&self) {
        *self.current.lock() = arena(&self.config, &self.freed);
        self.freed.fetch_add(1, Ordering::Relaxed);
    }

    /// Rises whenever segments went back to the system.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }
}

fn arena(config: &ArenaConfig, freed: &Arc<AtomicU64>) -> Arc<Arena> {
    let arena = Arena::new(config.clone());
    let freed = Arc::clone(freed);
    arena.on_segment_freed(move |_| {
        freed.fetch_add(1, Ordering::Relaxed);
    });
    arena
}

#[cfg(test)]
mod tests {
    use ringway_ipc::arena::SegmentSource;

    use super::*;

    #[test]
    fn what_was_left_behind_is_loaned_no_more() {
        let pool = Pool::new(ArenaConfig { source: SegmentSource::Heap, ..ArenaConfig::default() });
        let mut first = pool.arena().loan(700_000, 64).unwrap();
        first.fill(1);
        let (kept, place) = (first.freeze(), |bytes: &[u8]| bytes.as_ptr().addr());
        let at = place(&kept);
        drop(kept.clone());
        pool.leave_behind();
        assert_eq!(pool.freed(), 1);
        let mut second = pool.arena().loan(700_000, 64).unwrap();
        second.fill(2);
        assert!(place(&second) != at && kept.iter().all(|byte| *byte == 1));
        // Given back in the usual way, it is warm again.
        let at = place(&second);
        drop(second);
        assert_eq!(place(&pool.arena().loan(700_000, 64).unwrap()), at);
    }
}
