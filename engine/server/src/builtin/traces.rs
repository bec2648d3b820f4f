//! Traces and logs of the recent past, from the store. Shapes are those of `ringway_telemetry::waterfall::json`, and beside
//! them those of the iii protocol, from `ringway_telemetry::waterfall::otel`.

use std::sync::Arc;

use ringway::{CallError, Failure, Function};
use ringway_protocol::telemetry::Level;
use ringway_protocol::{SpanId, TraceId, WorkerId, naming};
use ringway_telemetry::store::{LogFilter, Outcome, TraceFilter, TraceSummary};
use ringway_telemetry::trace::assemble;
use ringway_telemetry::waterfall::groups::{GroupFilter, group};
use ringway_telemetry::waterfall::json::{TraceJson, TraceLine};
use ringway_telemetry::waterfall::otel::{OtelLog, OtelSpan};
use ringway_telemetry::{ClockAnchor, Log, Span};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{answer, read};
use crate::shared::{Shared, clock_anchor};

const LIMIT_DEFAULT: usize = 100;

#[derive(Deserialize)]
struct TracesWanted {
    #[serde(default)]
    trace_id: Option<TraceId>,
    #[serde(default)]
    trace_ids: Option<Vec<TraceId>>,
    /// A function's id, or its beginning before `*`.
    #[serde(default, alias = "name")]
    function: Option<String>,
    /// The name of the worker where the trace began.
    #[serde(default)]
    service_name: Option<String>,
    /// `ok` or `error`; `unset` is what no trace here is.
    #[serde(default)]
    status: Option<Status>,
    #[serde(default)]
    min_duration_ms: u64,
    #[serde(default)]
    max_duration_ms: Option<u64>,
    /// Unix milliseconds.
    #[serde(default)]
    start_time: Option<u64>,
    /// Unix milliseconds.
    #[serde(default)]
    end_time: Option<u64>,
    #[serde(default)]
    sort_by: Option<SortBy>,
    #[serde(default)]
    sort_order: Order,
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    limit: Option<usize>,
    /// Tells every span of the traces found, not only the one that began each.
    #[serde(default)]
    search_all_spans: bool,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Error,
    Unset,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SortBy {
    #[serde(alias = "start_time_unix_nano")]
    StartTime,
    #[serde(alias = "duration_ms")]
    Duration,
    Name,
    #[serde(alias = "worker")]
    ServiceName,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Asc,
    Desc,
}

#[derive(Deserialize)]
struct TraceWanted {
    trace_id: TraceId,
}

#[derive(Deserialize)]
struct LogsWanted {
    #[serde(default, alias = "severity_text")]
    level: Option<String>,
    /// OpenTelemetry's number for the least grave level.
    #[serde(default)]
    severity_min: Option<u8>,
    #[serde(default)]
    trace_id: Option<TraceId>,
    #[serde(default)]
    span_id: Option<SpanId>,
    #[serde(default)]
    worker_id: Option<WorkerId>,
    #[serde(default, alias = "service_name")]
    worker: Option<String>,
    #[serde(default)]
    text: Option<String>,
    /// Unix milliseconds.
    #[serde(default)]
    start_time: Option<u64>,
    /// Unix milliseconds.
    #[serde(default)]
    end_time: Option<u64>,
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    limit: Option<usize>,
}

impl TracesWanted {
    fn filter(&self, anchor: ClockAnchor) -> TraceFilter {
        TraceFilter {
            function: self.function.clone(),
            outcome: self.status.and_then(|status| match status {
                Status::Ok => Some(Outcome::Ok),
                Status::Error => Some(Outcome::Error),
                Status::Unset => None,
            }),
            duration_ns_min: self.min_duration_ms.saturating_mul(NS_PER_MS),
            since_ns: since(self.start_time, anchor),
            limit: 0,
        }
    }

    /// Says whether a trace is wanted, as far as the store's filter does not.
    fn wants(&self, summary: &TraceSummary, anchor: ClockAnchor) -> bool {
        let ids = self.trace_id.iter().chain(self.trace_ids.iter().flatten());
        let named = self.trace_id.is_some() || self.trace_ids.is_some();
        (!named || ids.into_iter().any(|id| *id == summary.trace_id))
            && self.status != Some(Status::Unset)
            && self.service_name.as_ref().is_none_or(|name| *name == summary.worker.name)
            && self.max_duration_ms.is_none_or(|ms| summary.duration_ns() <= ms.saturating_mul(NS_PER_MS))
            && self.end_time.is_none_or(|ms| anchor.unix_ns(summary.end_ns) <= ms.saturating_mul(NS_PER_MS))
    }

    /// Puts traces in the order that is asked for; the latest come first where none is.
    fn sort(&self, found: &mut [TraceSummary]) {
        match self.sort_by {
            None => return,
            Some(SortBy::StartTime) => found.sort_by_key(|summary| summary.start_ns),
            Some(SortBy::Duration) => found.sort_by_key(TraceSummary::duration_ns),
            Some(SortBy::Name) => found.sort_by(|a, b| a.root.cmp(&b.root)),
            Some(SortBy::ServiceName) => found.sort_by(|a, b| a.worker.name.cmp(&b.worker.name)),
        }
        if self.sort_order == Order::Desc {
            found.reverse();
        }
    }
}

const NS_PER_MS: u64 = 1_000_000;

/// Turns Unix milliseconds into the store's time; none is the beginning.
fn since(ms: Option<u64>, anchor: ClockAnchor) -> u64 {
    ms.map_or(0, |ms| anchor.monotonic_ns(ms.saturating_mul(NS_PER_MS)))
}

pub(super) fn list(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::TRACES_LIST, |shared, _, input| {
        let wanted: TracesWanted = read(input)?;
        let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
        let collector = shared.collector.lock();
        let anchor = collector.anchor();
        let mut found = collector.store().traces(&wanted.filter(anchor));
        found.retain(|summary| wanted.wants(summary, anchor));
        wanted.sort(&mut found);
        let total = found.len();
        let page: Vec<_> = found.into_iter().skip(wanted.offset).take(limit).collect();
        let all = wanted.search_all_spans || wanted.trace_id.is_some();
        // Spans and their logs where all are asked for; the first span alone costs no walk over the logs.
        let held = page.iter().map(|summary| {
            let record = all.then(|| collector.store().trace(summary.trace_id)).flatten();
            record.map_or_else(
                || (collector.store().root(summary.trace_id).into_iter().collect(), Vec::new()),
                |record| (record.spans, record.logs),
            )
        });
        let held: Vec<(Vec<Span>, Vec<Log>)> = held.collect();
        drop(collector);
        let shaped = |(spans, logs): &'_ (Vec<Span>, Vec<Log>)| -> Vec<Value> {
            spans
                .iter()
                .filter_map(|span| serde_json::to_value(OtelSpan::new(span, logs, anchor)).ok())
                .collect()
        };
        let spans: Vec<Value> = held.iter().flat_map(shaped).collect();
        let traces: Vec<_> = page.iter().map(|summary| TraceLine::new(summary, anchor)).collect();
        Ok(json!({ "traces": traces, "spans": spans, "total": total, "offset": wanted.offset, "limit": limit,
            "storage": STORAGE }))
    })
    .description("recent traces, the latest first")
}

/// Where traces are kept.
const STORAGE: &str = "memory";

pub(super) fn tree(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::TRACES_TREE, |shared, _, input| {
        let wanted: TraceWanted = read(input)?;
        let collector = shared.collector.lock();
        let (record, anchor) = (collector.store().trace(wanted.trace_id), collector.anchor());
        drop(collector);
        let record = record.ok_or_else(|| CallError::not_found("trace", &wanted.trace_id.to_string()))?;
        let roots = serde_json::to_value(OtelSpan::tree(&record.spans, &record.logs, anchor))?;
        let mut tree = serde_json::to_value(TraceJson::new(&assemble(record), anchor))?;
        tree["roots"] = roots;
        tree["storage"] = STORAGE.into();
        Ok(tree)
    })
    .description("one trace, its spans in the order of the tree")
}

/// What is to be gathered, in iii's words.
#[derive(Deserialize)]
struct GroupsWanted {
    attribute: String,
    /// Unix milliseconds.
    #[serde(default)]
    since_ms: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    include_internal: bool,
    #[serde(default)]
    label_attribute: Option<String>,
}

pub(super) fn group_by(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::TRACES_GROUP_BY, |shared, _, input| {
        let wanted: GroupsWanted = read(input)?;
        let collector = shared.collector.lock();
        let anchor = collector.anchor();
        let filter = GroupFilter {
            attribute: wanted.attribute,
            label_attribute: wanted.label_attribute,
            since_ns: since(wanted.since_ms, anchor),
            include_internal: wanted.include_internal,
            limit: wanted.limit.unwrap_or(LIMIT_DEFAULT),
        };
        let groups = group(collector.store(), &filter, anchor);
        drop(collector);
        Ok(json!({ "groups": groups, "storage": STORAGE }))
    })
    .description("recent spans, gathered by the value of an attribute")
}

pub(super) fn clear(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::TRACES_CLEAR, |shared, _, _| {
        shared.collector.lock().clear_traces();
        Ok(json!({ "success": true }))
    })
    .description("forgets all traces")
}

pub(super) fn clear_logs(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::LOGS_CLEAR, |shared, _, _| {
        shared.collector.lock().clear_logs();
        Ok(json!({ "success": true }))
    })
    .description("forgets all log lines")
}

pub(super) fn logs(shared: &Arc<Shared>) -> Function {
    answer(shared, naming::LOGS_LIST, |shared, _, input| {
        let wanted: LogsWanted = read(input)?;
        let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
        let collector = shared.collector.lock();
        let anchor = collector.anchor();
        let filter = LogFilter {
            level: wanted.level.as_deref().map(read_level).transpose()?.or_else(|| wanted.least_grave()),
            trace_id: wanted.trace_id,
            worker: wanted.worker_id,
            worker_name: wanted.worker,
            since_ns: since(wanted.start_time, anchor),
            text: wanted.text,
            limit: 0,
        };
        let mut found = collector.store().logs(&filter);
        drop(collector);
        found.retain(|log| {
            wanted.span_id.is_none_or(|span| log.span_id == Some(span))
                && wanted
                    .end_time
                    .is_none_or(|ms| anchor.unix_ns(log.time_ns) <= ms.saturating_mul(NS_PER_MS))
        });
        let total = found.len();
        // The last ones that match, the oldest of them first; an offset goes back from there.
        let end = total.saturating_sub(wanted.offset);
        let page = &found[end.saturating_sub(limit)..end];
        let logs: Vec<_> = page.iter().map(|log| OtelLog::new(log, anchor)).collect();
        Ok(json!({ "logs": logs, "total": total, "offset": wanted.offset, "limit": limit,
            "timestamp": clock_anchor().unix_ns / NS_PER_MS }))
    })
    .description("recent log lines")
}

/// Reads a level's name in any case of letters, as iii's callers write it.
fn read_level(text: &str) -> Result<Level, Failure> {
    serde_json::from_value(text.to_lowercase().into()).map_err(|error| Failure::invalid(error.to_string()))
}

impl LogsWanted {
    /// Returns the level that the least severity number stands for.
    fn least_grave(&self) -> Option<Level> {
        Some(match self.severity_min? {
            0..=4 => Level::Trace,
            5..=8 => Level::Debug,
            9..=12 => Level::Info,
            13..=16 => Level::Warn,
            _ => Level::Error,
        })
    }
}
