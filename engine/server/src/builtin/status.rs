//! How the engine is, and what it counted.

use std::sync::Arc;

use ringway::Function;
use ringway_protocol::naming;
use serde_json::json;

use super::answer;
use crate::shared::{Shared, clock_anchor, now_ns};

pub(super) fn health(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::HEALTH, |shared, _, _| {
        let workers = shared.core.read().workers().count();
        Ok(json!({
            "status": "healthy",
            "engine_id": shared.engine_id,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_ms": now_ns().saturating_sub(shared.started_ns) / 1_000_000,
            "workers": workers,
        }))
    })
    .description("says whether the engine is well")
}

pub(super) fn metrics(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::METRICS_LIST, |shared, _, _| {
        let control = shared.counters.report();
        let active = shared.core.read().workers().count();
        let collector = shared.collector.lock();
        let (store, intake) = (collector.store().counters(), collector.counters());
        let export = collector.exporter().map(ringway_telemetry::Exporter::counters);
        drop(collector);
        Ok(json!({
            "engine_metrics": {
                "workers": { "spawns": control.attaches, "deaths": control.deaths, "active": active },
                "control": control,
                "store": store,
                "intake": intake,
                "export": export,
            },
            "timestamp": clock_anchor().unix_ns / 1_000_000,
        }))
    })
    .description("the engine's counters")
}
