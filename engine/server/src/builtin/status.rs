//! How the engine is, and what it counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringway::{CallError, Function, Worker, WorkerId};
use ringway_protocol::naming;
use ringway_telemetry::store::Point;
use ringway_telemetry::{ClockAnchor, TraceStore};
use serde_json::{Map, Value, json};

use super::answer;
use crate::limits;
use crate::shared::{Shared, clock_anchor, now_ns};

pub(super) fn health(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::HEALTH, |shared, context, _| {
        let core = shared.core.read();
        let workers = core
            .worker(context.caller())
            .map_or(0, |caller| core.workers().filter(|(_, worker)| core.sees(caller, worker)).count());
        drop(core);
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

/// Figures over the calls that the store holds: the traced ones of the recent past, which is what the engine sees of calls.
#[derive(Default)]
struct Served {
    by_function: BTreeMap<Arc<str>, u64>,
    errors: u64,
    durations_ns: Vec<u64>,
}

impl Served {
    fn new(store: &TraceStore) -> Self {
        let mut served = Self::default();
        for span in store.served() {
            *served.by_function.entry(Arc::clone(&span.name)).or_default() += 1;
            served.errors += u64::from(span.is_error());
            served.durations_ns.extend(span.duration_ns());
        }
        served
    }

    fn invocations(&self) -> Value {
        let total: u64 = self.by_function.values().sum();
        json!({ "total": total, "success": total - self.errors, "error": self.errors, "deferred": 0,
            "by_function": self.by_function })
    }

    fn performance(&mut self) -> Value {
        self.durations_ns.sort_unstable();
        let all = &self.durations_ns;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
        let ms = |ns: u64| ns as f64 / 1e6;
        // The nearest rank, in tenths of a per cent.
        let at = |permille: usize| all.get((all.len() * permille / 1000).min(all.len().saturating_sub(1)));
        let at = |permille: usize| at(permille).copied().map_or(0.0, ms);
        let average = all.iter().sum::<u64>().checked_div(all.len() as u64).unwrap_or(0);
        json!({ "avg_duration_ms": ms(average), "p50_duration_ms": at(500), "p95_duration_ms": at(950),
            "p99_duration_ms": at(990), "min_duration_ms": at(0), "max_duration_ms": at(1000) })
    }
}

pub(super) fn metrics(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::METRICS_LIST, |shared, _, _| {
        let control = shared.counters.report();
        let active = shared.core.read().workers().count();
        let collector = shared.collector.lock();
        let (store, intake) = (collector.store().counters(), collector.counters());
        let export = collector.exporter().map(ringway_telemetry::Exporter::counters);
        let mut served = Served::new(collector.store());
        let figures = figures(collector.store(), collector.anchor());
        drop(collector);
        Ok(json!({
            "engine_metrics": {
                "invocations": served.invocations(),
                "performance": served.performance(),
                "workers": { "spawns": control.attaches, "deaths": control.deaths, "active": active },
                "control": control,
                "store": store,
                "intake": intake,
                "export": export,
            },
            "sdk_metrics": figures,
            "timestamp": clock_anchor().unix_ns / 1_000_000,
        }))
    })
    .description("the engine's counters")
}

/// The latest points of the figures that programs report, by program and name.
fn figures(store: &TraceStore, anchor: ClockAnchor) -> Vec<Value> {
    let mut points: Vec<_> = store.points().collect();
    points.sort_by(|a, b| (&a.worker.name, &a.name).cmp(&(&b.worker.name, &b.name)));
    let shaped = |point: &&Point| {
        json!({
            "name": point.name,
            "unit": point.unit,
            "kind": point.kind,
            "value": point.value,
            "count": point.count,
            "service_name": point.worker.name,
            "worker_id": point.worker.id,
            "attributes": point.attributes.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<Map<_, _>>(),
            "timestamp_unix_nano": anchor.unix_ns(point.time_ns),
        })
    };
    points.iter().map(shaped).collect()
}

/// Adds how many calls a worker works on at this moment, as it says itself; nothing where it does not.
pub(super) fn add_activity(own: &Worker, worker: &mut Value) {
    let Some(id) = serde_json::from_value::<WorkerId>(worker["id"].clone()).ok() else { return };
    match activity(own, id) {
        Ok(calls) => worker["active_invocations"] = calls.into(),
        Err(error) => tracing::debug!(worker = %id, %error, "a worker does not say what it works on"),
    }
}

/// How many calls a worker works on at this moment, as it says itself.
pub(crate) fn activity(own: &Worker, id: WorkerId) -> Result<u64, CallError> {
    let held = own.inspect_within(id, limits::ACTIVITY_TIME_MAX)?;
    let channels = held["channels"].as_array().into_iter().flatten();
    let calls = channels.filter(|channel| channel["role"] == "callee");
    Ok(calls.filter_map(|channel| channel["in_flight"].as_u64()).sum())
}
