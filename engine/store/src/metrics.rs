//! Plain counters, read by whoever exports them. They count since the store was opened.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets of a latency: the n-th counts those of less than 2ⁿ microseconds, the last everything else.
pub const BUCKETS: usize = 24;

/// The counters as they are filled. Relaxed throughout: each is a number of its own.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) groups: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) largest_group: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) second_copy_reads: AtomicU64,
    pub(crate) latency: [AtomicU64; BUCKETS],
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, number: u64) {
        counter.fetch_add(number, Relaxed);
    }

    pub(crate) fn count_latency(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        Self::add(&self.latency[bucket.min(BUCKETS - 1)], 1);
    }

    pub(crate) fn read(&self) -> Metrics {
        Metrics {
            commits: self.commits.load(Relaxed),
            refused: self.refused.load(Relaxed),
            groups: self.groups.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            syncs: self.syncs.load(Relaxed),
            largest_group: self.largest_group.load(Relaxed),
            checkpoints: self.checkpoints.load(Relaxed),
            second_copy_reads: self.second_copy_reads.load(Relaxed),
            latency: std::array::from_fn(|bucket| self.latency[bucket].load(Relaxed)),
        }
    }
}

/// What the store has done since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Batches written.
    pub commits: u64,
    /// Batches whose preconditions did not hold.
    pub refused: u64,
    /// Groups written, each with one write to the log.
    pub groups: u64,
    /// Bytes written to the log.
    pub bytes: u64,
    /// `fdatasync` calls on the log.
    pub syncs: u64,
    /// Batches in the largest group.
    pub largest_group: u64,
    /// Times that memory was moved to the index.
    pub checkpoints: u64,
    /// Reads that the first index file could not answer and the second did.
    pub second_copy_reads: u64,
    /// Groups by the time from taking them to telling: the n-th bucket counts those of less than 2ⁿ microseconds.
    pub latency: [u64; BUCKETS],
}
