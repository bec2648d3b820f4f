//! How fast one core copies warm memory: the line below which nothing that copies a payload can get.

use std::hint::black_box;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stats::{Clock, median, nanoseconds};

/// Sizes that are copied: within the core's cache, within the shared one, beyond both.
const SIZES: [usize; 4] = [4 << 10, 256 << 10, 16 << 20, 128 << 20];
/// Copies of one size, as long as they take no longer than the time below.
const COPIES: usize = 1001;
/// Time after which no further copy of one size is begun.
const TIME: Duration = Duration::from_millis(150);

/// How fast blocks of one size are copied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CopySpeed {
    /// Size of the block.
    pub bytes: usize,
    /// Median time of one copy.
    pub p50_ns: u64,
    /// The same as a rate.
    pub bytes_per_s: f64,
}

/// Copies blocks of several sizes, from one warm buffer to another; allocates 256 MiB while it runs.
#[must_use]
pub fn copy_speeds(clock: &Clock) -> Vec<CopySpeed> {
    let largest = SIZES.into_iter().max().unwrap_or(0);
    let (from, mut to) = (vec![0x5a_u8; largest], vec![0xa5_u8; largest]);
    SIZES.iter().map(|bytes| copy_speed(clock, &from[..*bytes], &mut to[..*bytes])).collect()
}

fn copy_speed(clock: &Clock, from: &[u8], to: &mut [u8]) -> CopySpeed {
    to.copy_from_slice(from);
    let (began, budget_ns) = (clock.now(), nanoseconds(TIME));
    let mut times = Vec::with_capacity(COPIES);
    while times.len() < COPIES && (times.len() < 5 || clock.since(began) < budget_ns) {
        let start = clock.now();
        to.copy_from_slice(black_box(from));
        black_box(&*to);
        times.push(clock.since(start).max(1));
    }
    let p50_ns = median(times).unwrap_or(1);
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    let bytes_per_s = from.len() as f64 * 1e9 / p50_ns as f64;
    CopySpeed { bytes: from.len(), p50_ns, bytes_per_s }
}
