//! Tests over an open store: the suite, a model, damage, faults, killed processes, cut power.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a helper of a test fails and tells as the test does")]

mod backup;
mod blobs;
mod damage;
mod faults;
mod kill;
mod model;
mod opening;
mod power;
mod store;
mod tools;
