//! The engine, in a process of its own that can be killed. Exports what the `OTEL_…` variables say. It must not know what
//! its workers do.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use ringway_engine::Engine;
use ringway_telemetry::store::{StoreLimits, TraceFilter};
use ringway_telemetry::trace::assemble;
use ringway_telemetry::waterfall::json::TraceJson;
use ringway_tests::service::tell;

use super::Played;

/// Runs an engine until it is told to `stop`; answers `trace FUNCTION` with the last trace that has it.
pub(super) fn play(address: &str, orders: &Receiver<String>) -> Played {
    ringway_engine::raise_file_limit()?;
    // Small, so that the store is soon full: one that still fills up, as it may to its limit, looks like a leak.
    let kept = StoreLimits { spans_max: 1_000, logs_max: 1_000, ..StoreLimits::default() };
    let engine = Engine::builder().address(address).store_limits(kept).start()?;
    tell("ready");
    for order in orders {
        match order.split_once(' ') {
            Some(("trace", function)) => tell(&format!("trace {}", last_trace(&engine, function))),
            _ => {
                engine.shutdown(Duration::from_secs(10));
                tell("stopped");
            }
        }
    }
    Ok(())
}

fn last_trace(engine: &Engine, function: &str) -> serde_json::Value {
    let collector = engine.collector();
    let collector = collector.lock();
    let filter = TraceFilter { function: Some(function.to_owned()), limit: 1, ..TraceFilter::default() };
    let last = collector.store().traces(&filter).first().map(|summary| summary.trace_id);
    let Some(record) = last.and_then(|id| collector.store().trace(id)) else {
        return serde_json::Value::Null;
    };
    serde_json::json!(TraceJson::new(&assemble(record), collector.anchor()))
}
