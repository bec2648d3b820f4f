//! The worker under a real engine: functions through the SDK, triggers, watches, expiry, restarts.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod bed;
mod expiry;
mod model;
mod restart;
mod revisions;
mod triggers;
mod values;
mod watch;
mod writers;
