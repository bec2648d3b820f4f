//! What happened, kept for a while and passed on: spans and logs of every worker, joined into traces, shown as a
//! waterfall, and exported over OTLP.
//!
//! The engine drains its workers' telemetry rings into a [`Collector`], which fills a [`TraceStore`] and feeds an
//! [`Exporter`]; the CLI and the console show what [`assemble`](trace::assemble) and [`waterfall`] make of a trace. Time comes in as
//! `CLOCK_MONOTONIC` nanoseconds and leaves as unix time by a [`ClockAnchor`]. This crate must not know rings,
//! sockets to workers or the catalog: names are told to the [`Directory`].
//!
//! Start with [`record`], then [`collector`]; [`ingest`] reads what comes in OpenTelemetry's own formats.

#![forbid(unsafe_code)]

pub mod collector;
pub mod directory;
pub mod ingest;
pub mod otlp;
pub mod record;
pub mod sampler;
pub mod store;
pub mod trace;
pub mod waterfall;

#[cfg(test)]
mod testing;

pub use collector::Collector;
pub use directory::Directory;
pub use ingest::{Batch, Format, IngestedCounts, Signal};
pub use otlp::Exporter;
pub use record::{ClockAnchor, Log, Span, WorkerIdentity};
pub use store::TraceStore;
