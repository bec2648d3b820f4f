//! What the tests of built-in workers stand on: engine, store, clock, client, and the worker itself, started and ended at
//! will; what listens to its triggers and streams. Used by the tests of those workers and by nothing else. It must not
//! know any worker.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod bed;
mod listen;

use std::time::Duration;

pub use bed::Bed;
pub use listen::{Traced, bind, hear, hear_traced, in_trace, next};

/// How long a test waits for what must come. A test that waits that long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where the clock of a test begins, in milliseconds since 1970.
pub const NOW_MS: u64 = 1_700_000_000_000;
