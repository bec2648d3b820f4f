//! Tests over a real NATS server: the suite, who has a store, servers that are away, killed servers and engines, and what
//! others read in the bucket.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails and tells as the test does")]

mod bucket;
mod nats_kill;
mod outages;
mod owners;
mod suite;
mod tools;
