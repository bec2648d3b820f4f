//! The worker `configuration`: values that other workers are told, each with a JSON Schema that it must fit, a version for
//! every change, and triggers that tell of it. Function ids and shapes are those of iii, with `history`, `rollback` and
//! `delete` beside them.
//!
//! Start with [`Configuration::start`]. Written against the SDK and the store like any user's worker; it must not know the
//! engine.
//!
//! - `config`: what `ringway.yaml` may say of it;
//! - `functions`: what can be called;
//! - `entries`: what a change does to what is stored;
//! - `store`: how entries lie in the store;
//! - `check`: schemas, ids and variables;
//! - `trigger`: who is told of changes;

#![forbid(unsafe_code)]

mod check;
mod config;
mod entries;
mod functions;
mod store;
mod trigger;
mod worker;

pub use config::Config;
pub use ringway_worker_kit::Clock;
pub use worker::{Configuration, StartError};
