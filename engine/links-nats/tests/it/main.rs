//! Engines that see each other through a real NATS server: what all linked engines promise, and what is NATS's own.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failure")]

mod engines;
mod outages;
mod simulation;
mod stage;
#[path = "../../../links/tests/it/suite.rs"]
mod suite;
