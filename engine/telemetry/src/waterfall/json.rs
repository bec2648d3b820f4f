//! Traces and logs as JSON, for `--json` and the built-in functions.
//!
//! Times are unix nanoseconds; durations say their unit. A trace is a list of rows with depths, as it is in memory: a
//! reader need not recurse. These shapes are a promise to users: fields are added, never renamed. This file must not
//! know who asks.

use ringway_protocol::{SpanId, TraceId, WorkerId};
use serde::Serialize;

use crate::record::{ClockAnchor, FieldValue, Level, Log, Span, SpanKind};
use crate::store::{Outcome, TraceSummary};
use crate::trace::{Breakdown, Row, Trace, Work};

/// One trace in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TraceLine<'a> {
    trace_id: TraceId,
    root: &'a str,
    worker: &'a str,
    start_unix_ns: u64,
    duration_ns: u64,
    outcome: Outcome,
    spans: usize,
    live: usize,
    errors: usize,
    workers: usize,
    spans_dropped: u64,
}

impl<'a> TraceLine<'a> {
    /// Shapes a summary.
    #[must_use]
    pub fn new(summary: &'a TraceSummary, anchor: ClockAnchor) -> Self {
        Self {
            trace_id: summary.trace_id,
            root: &summary.root,
            worker: &summary.worker.name,
            start_unix_ns: anchor.unix_ns(summary.start_ns),
            duration_ns: summary.duration_ns(),
            outcome: summary.outcome(),
            spans: summary.spans,
            live: summary.live,
            errors: summary.errors,
            workers: summary.workers,
            spans_dropped: summary.spans_dropped,
        }
    }
}

/// A whole trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TraceJson<'a> {
    trace_id: TraceId,
    start_unix_ns: u64,
    duration_ns: u64,
    spans: usize,
    spans_dropped: u64,
    workers: usize,
    errors: usize,
    live: usize,
    rows: Vec<RowJson<'a>>,
    logs: Vec<LogJson<'a>>,
}

impl<'a> TraceJson<'a> {
    /// Shapes an assembled trace.
    #[must_use]
    pub fn new(trace: &'a Trace, anchor: ClockAnchor) -> Self {
        Self {
            trace_id: trace.trace_id,
            start_unix_ns: anchor.unix_ns(trace.start_ns),
            duration_ns: trace.duration_ns(),
            spans: trace.spans,
            spans_dropped: trace.spans_dropped,
            workers: trace.worker_count(),
            errors: trace.error_count(),
            live: trace.live_count(),
            rows: trace.rows.iter().map(|row| RowJson::new(row, anchor)).collect(),
            logs: trace.logs.iter().map(|log| LogJson::new(log, anchor)).collect(),
        }
    }
}

/// One hop or step of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowJson<'a> {
    depth: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    orphan: bool,
    name: &'a str,
    /// The caller's worker of a hop; else the one that recorded the span.
    worker: WorkerJson<'a>,
    /// The callee's worker of a hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    callee: Option<WorkerJson<'a>>,
    start_unix_ns: u64,
    duration_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    breakdown: Breakdown,
    request_bytes: u64,
    reply_bytes: u64,
    spans: Vec<SpanJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<LogJson<'a>>,
}

impl<'a> RowJson<'a> {
    fn new(row: &'a Row, anchor: ClockAnchor) -> Self {
        let (outer, inner) = (row.work.outer(), row.work.inner());
        let is_hop = matches!(row.work, Work::Hop { .. });
        let spans = if is_hop { vec![outer, inner] } else { vec![outer] };
        Self {
            depth: row.depth,
            orphan: row.orphan,
            name: &outer.name,
            worker: WorkerJson::new(outer),
            callee: is_hop.then(|| WorkerJson::new(inner)),
            start_unix_ns: anchor.unix_ns(row.work.start_ns()),
            duration_ns: row.work.duration_ns(),
            error: row.work.error_code(),
            breakdown: row.work.breakdown(),
            request_bytes: outer.bytes_in.max(inner.bytes_in),
            reply_bytes: outer.bytes_out.max(inner.bytes_out),
            spans: spans.into_iter().map(|span| SpanJson::new(span, anchor)).collect(),
            logs: row.logs.iter().map(|log| LogJson::new(log, anchor)).collect(),
        }
    }
}

/// Who recorded something.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerJson<'a> {
    id: WorkerId,
    name: &'a str,
    pid: u32,
}

impl<'a> WorkerJson<'a> {
    fn new(span: &'a Span) -> Self {
        Self { id: span.worker.id, name: &span.worker.name, pid: span.worker.pid }
    }
}

/// One span of a row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SpanJson {
    span_id: SpanId,
    parent_id: Option<SpanId>,
    kind: SpanKind,
    start_unix_ns: u64,
    end_unix_ns: Option<u64>,
    woke_unix_ns: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lost: bool,
}

impl SpanJson {
    fn new(span: &Span, anchor: ClockAnchor) -> Self {
        Self {
            span_id: span.span_id,
            parent_id: span.parent_id,
            kind: span.kind,
            start_unix_ns: anchor.unix_ns(span.start_ns),
            end_unix_ns: span.end_ns.map(|ns| anchor.unix_ns(ns)),
            woke_unix_ns: span.woke_ns.map(|ns| anchor.unix_ns(ns)),
            lost: span.lost,
        }
    }
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogJson<'a> {
    time_unix_ns: u64,
    level: Level,
    worker: &'a str,
    worker_id: WorkerId,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<TraceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<SpanId>,
    target: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    fields: &'a Vec<(String, FieldValue)>,
}

impl<'a> LogJson<'a> {
    /// Shapes a log line.
    #[must_use]
    pub fn new(log: &'a Log, anchor: ClockAnchor) -> Self {
        Self {
            time_unix_ns: anchor.unix_ns(log.time_ns),
            level: log.level,
            worker: &log.worker.name,
            worker_id: log.worker.id,
            trace_id: log.trace_id,
            span_id: log.span_id,
            target: &log.target,
            message: &log.message,
            fields: &log.fields,
        }
    }
}

/// Writes fields as an object; of fields with one name the last counts.
fn as_map<S: serde::Serializer>(fields: &[(String, FieldValue)], serializer: S) -> Result<S::Ok, S::Error> {
    let map: std::collections::BTreeMap<&str, &FieldValue> =
        fields.iter().map(|(key, value)| (key.as_str(), value)).collect();
    serializer.collect_map(map)
}
