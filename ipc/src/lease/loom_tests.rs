//! Every interleaving of one side that lends, the peer's number coming back, and the channel closing.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};

/// Counts how often it was dropped.
struct Counted(Arc<AtomicU32>);

impl LeaseBytes for Counted {
    fn bytes(&self) -> u64 {
        1
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Shared {
    table: Mutex<LeaseTable<Counted>>,
    closed: AtomicBool,
}

impl Shared {
    /// As `channel` lends: looks at the flag after the lease is in the table.
    fn lend(&self, payload: Counted) -> Option<u32> {
        let lease = self.table.lock().lend(payload).ok()?;
        if self.closed.load(Ordering::SeqCst) {
            drop(self.table.lock().drain());
            return None;
        }
        Some(lease)
    }

    /// As `channel` closes: sets the flag before it drains.
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let ended = self.table.lock().drain();
        drop(ended);
    }
}

#[test]
fn loom_every_payload_ends_exactly_once_when_the_peer_dies() {
    loom::model(|| {
        let drops = Arc::new(AtomicU32::new(0));
        let shared =
            Arc::new(Shared { table: Mutex::new(LeaseTable::new()), closed: AtomicBool::new(false) });
        let first = shared.lend(Counted(Arc::clone(&drops))).unwrap();
        let closer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.close())
        };
        let returner = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let ended = shared.table.lock().give_back(first);
                drop(ended);
            })
        };
        shared.lend(Counted(Arc::clone(&drops)));
        closer.join().unwrap();
        returner.join().unwrap();
        assert_eq!(shared.table.lock().len(), 0, "a lease outlived its channel");
        assert_eq!(drops.load(Ordering::Relaxed), 2, "each payload is dropped once");
    });
}
