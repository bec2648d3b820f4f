//! Traces and logs of the recent past, from the store. Shapes are those of `ringway_telemetry::waterfall::json`.

use std::sync::Arc;

use ringway::{CallError, Function};
use ringway_protocol::telemetry::Level;
use ringway_protocol::{TraceId, WorkerId, naming};
use ringway_telemetry::store::{LogFilter, Outcome, TraceFilter};
use ringway_telemetry::trace::assemble;
use ringway_telemetry::waterfall::json::{LogJson, TraceJson, TraceLine};
use serde::Deserialize;
use serde_json::json;

use super::{answer, read};
use crate::shared::Shared;

const LIMIT_DEFAULT: usize = 100;

#[derive(Deserialize)]
struct TracesWanted {
    /// A function's id, or its beginning before `*`.
    #[serde(default, alias = "name")]
    function: Option<String>,
    /// `ok` or `error`.
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    min_duration_ms: u64,
    /// Unix milliseconds.
    #[serde(default)]
    start_time: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Error,
}

#[derive(Deserialize)]
struct TraceWanted {
    trace_id: TraceId,
}

#[derive(Deserialize)]
struct LogsWanted {
    #[serde(default, alias = "severity_text")]
    level: Option<Level>,
    #[serde(default)]
    trace_id: Option<TraceId>,
    #[serde(default)]
    worker_id: Option<WorkerId>,
    #[serde(default, alias = "service_name")]
    worker: Option<String>,
    #[serde(default)]
    text: Option<String>,
    /// Unix milliseconds.
    #[serde(default)]
    start_time: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
}

pub(super) fn list(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::TRACES_LIST, |shared, _, input| {
        let wanted: TracesWanted = read(input)?;
        let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
        let collector = shared.collector.lock();
        let anchor = collector.anchor();
        let filter = TraceFilter {
            function: wanted.function,
            outcome: wanted.status.map(|status| match status {
                Status::Ok => Outcome::Ok,
                Status::Error => Outcome::Error,
            }),
            duration_ns_min: wanted.min_duration_ms.saturating_mul(1_000_000),
            since_ns: wanted.start_time.map_or(0, |ms| anchor.monotonic_ns(ms.saturating_mul(1_000_000))),
            limit,
        };
        let (found, total) = (collector.store().traces(&filter), collector.store().counters().traces);
        drop(collector);
        let traces: Vec<_> = found.iter().map(|summary| TraceLine::new(summary, anchor)).collect();
        Ok(json!({ "traces": traces, "total": total, "limit": limit, "storage": "memory" }))
    })
    .description("recent traces, the latest first")
}

pub(super) fn tree(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::TRACES_TREE, |shared, _, input| {
        let wanted: TraceWanted = read(input)?;
        let collector = shared.collector.lock();
        let (record, anchor) = (collector.store().trace(wanted.trace_id), collector.anchor());
        drop(collector);
        let record = record.ok_or_else(|| CallError::not_found("trace", &wanted.trace_id.to_string()))?;
        Ok(serde_json::to_value(TraceJson::new(&assemble(record), anchor))?)
    })
    .description("one trace, its spans in the order of the tree")
}

pub(super) fn logs(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::LOGS_LIST, |shared, _, input| {
        let wanted: LogsWanted = read(input)?;
        let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
        let collector = shared.collector.lock();
        let anchor = collector.anchor();
        let filter = LogFilter {
            level: wanted.level,
            trace_id: wanted.trace_id,
            worker: wanted.worker_id,
            worker_name: wanted.worker,
            since_ns: wanted.start_time.map_or(0, |ms| anchor.monotonic_ns(ms.saturating_mul(1_000_000))),
            text: wanted.text,
            limit,
        };
        let (found, total) = (collector.store().logs(&filter), collector.store().counters().logs);
        drop(collector);
        let logs: Vec<_> = found.iter().map(|log| LogJson::new(log, anchor)).collect();
        Ok(json!({ "logs": logs, "total": total, "limit": limit }))
    })
    .description("recent log lines")
}
