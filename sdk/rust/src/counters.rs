//! Counts payload bytes: what was lent, and what had to be copied. Process-wide, for `ringway shm`, the demo and the
//! benchmarks, which claim zero copies and show it with these.

use std::sync::atomic::{AtomicU64, Ordering};

static LENT_BYTES: AtomicU64 = AtomicU64::new(0);
static COPIED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Payload bytes of this process since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct PayloadCounters {
    /// Passed to other processes by reference.
    pub lent_bytes: u64,
    /// Copied into a block because they did not lie in one. Bytes inside slots are not counted: they always move.
    pub copied_bytes: u64,
}

/// Reads the counters.
#[must_use]
pub fn payload_counters() -> PayloadCounters {
    PayloadCounters {
        lent_bytes: LENT_BYTES.load(Ordering::Relaxed),
        copied_bytes: COPIED_BYTES.load(Ordering::Relaxed),
    }
}

pub(crate) fn lent(bytes: u64) {
    LENT_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

pub(crate) fn copied(bytes: usize) {
    COPIED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}
