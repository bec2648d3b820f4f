//! The built-in queue: messages that are on disk before they are acknowledged, delivered at least once, in order within
//! groups where that is asked for, tried again, and kept as dead letters when nothing helps.
//!
//! An ordinary worker on the public SDK. [`Queue::start`] attaches it; `ringway.yaml` holds its [`Config`]. The work is
//! split so that each part can be tested by itself:
//! - `machine`: what happens when, as plain data; time is an argument;
//! - `record`: what lies on disk; the README describes it;
//! - `driver`: the thread that owns the machine, and commits what it says;
//! - `runner`: the calls; `topics` and `triggers`: who gets what; `functions`: what users call.
//!
//! This crate must not know the engine; it is told an address and a store.
#![forbid(unsafe_code)]

mod blobs;
mod config;
mod record;

mod machine;

mod attempt;
mod forget;
mod runner;
mod topics;

mod driver;

mod functions;
mod triggers;
mod worker;

pub use config::{
    BackoffType, CodeSettings, Config, Fairness, QueueSettings, QueueType, SettingsError, SubscriberSettings,
};
pub use record::Mode;
pub use ringway_worker_kit::Clock;
pub use worker::{Queue, StartError};
