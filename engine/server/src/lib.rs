//! The engine: the process, or the part of one, that knows who serves what. Workers attach to its control socket; it
//! tells each of them every change of the catalog, brokers channels between them, and takes in their telemetry. No call
//! passes through it but those for itself and those from one zone to another.
//!
//! Start with [`Engine::builder`]. What happens to the engine is decided in `ringway-engine-core`; this crate gives it
//! sockets, memory, time and threads:
//! - `control`: one thread, the control socket and all that follows from what comes over it;
//! - `telemetry`: one thread, the workers' telemetry rings;
//! - `builtin`: the engine's own worker, on the public SDK, with the functions `engine::…`;
//! - `relay`: the calls from one zone into another, which the same worker passes on;
//! - `service`: what a binary wraps around an engine (signals, systemd).
//!
//! It must not know how calls travel between workers; that is the business of the SDK and of `ipc`.

#![forbid(unsafe_code)]

pub mod limits;

mod config;
mod engine;
mod shared;

mod control;
mod counters;
mod telemetry;

mod builtin;
mod relay;

mod service;

pub use config::{EngineBuilder, Otlp, ZoneSocket};
pub use counters::CountersReport;
pub use engine::{Engine, StartError};
pub use ringway_engine_core::{Action, Pattern, Policy, Rule};
pub use service::{ServiceError, StopSignals, raise_file_limit, run_until_signal, run_until_signal_then};
