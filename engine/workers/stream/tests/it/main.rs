//! The worker under a real engine: functions through the SDK, logs, triggers, subscriptions, expiry, restarts.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod backend;
mod bed;
mod faults;
mod items;
mod kill;
mod log;
mod model;
mod retention;
mod subscribe;
mod triggers;
mod trouble;
