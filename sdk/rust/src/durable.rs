//! Work that outlives its caller: calls that are handed to a queue, the receipts of them, what a handler knows about the
//! delivery it serves, and steps that are remembered from attempt to attempt. Users see all of it; the rest of the SDK
//! knows only [`KeptSteps`]. It speaks to the queue's functions as any caller does, and must not know how the queue keeps
//! its promises.

mod delivery;
mod enqueue;
mod receipt;
mod steps;

pub use delivery::Delivery;
pub use enqueue::Enqueue;
pub use receipt::{MessageState, MessageStatus, Receipt};
pub(crate) use steps::KeptSteps;

use std::time::Duration;

/// Milliseconds, as the queue's functions take them.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
