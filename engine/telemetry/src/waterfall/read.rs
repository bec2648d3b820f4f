//! From the JSON of a trace back to what the waterfall draws, for those who have it from the engine. The shape is that of
//! [`super::json`]. Times stay unix nanoseconds, so the anchor is the same on both clocks. It must not know who asks.

use std::sync::Arc;

use ringway_protocol::error::STATUS_OK;
use ringway_protocol::{ErrorCode, SpanId, TraceId, WorkerId};
use serde::Deserialize;
use serde_json::Value;

use crate::record::{ClockAnchor, FieldValue, Level, Log, Span, SpanKind, WorkerIdentity};
use crate::trace::{Row, Trace, Work};

/// The status of an error whose code this version does not know.
const STATUS_UNKNOWN: u32 = u32::MAX;

#[derive(Deserialize)]
struct TraceText {
    trace_id: TraceId,
    start_unix_ns: u64,
    duration_ns: u64,
    spans: usize,
    spans_dropped: u64,
    rows: Vec<RowText>,
    #[serde(default)]
    logs: Vec<LogText>,
}

#[derive(Deserialize)]
struct RowText {
    depth: usize,
    #[serde(default)]
    orphan: bool,
    name: String,
    worker: WorkerText,
    callee: Option<WorkerText>,
    error: Option<String>,
    request_bytes: u64,
    reply_bytes: u64,
    spans: Vec<SpanText>,
    #[serde(default)]
    logs: Vec<LogText>,
}

#[derive(Deserialize)]
struct WorkerText {
    id: WorkerId,
    name: String,
    pid: u32,
}

#[derive(Deserialize)]
struct SpanText {
    span_id: SpanId,
    parent_id: Option<SpanId>,
    kind: SpanKind,
    start_unix_ns: u64,
    end_unix_ns: Option<u64>,
    woke_unix_ns: Option<u64>,
    #[serde(default)]
    lost: bool,
}

#[derive(Deserialize)]
struct LogText {
    time_unix_ns: u64,
    level: Level,
    worker: String,
    worker_id: WorkerId,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    target: String,
    message: String,
    #[serde(default)]
    fields: std::collections::BTreeMap<String, FieldValue>,
}

/// Why a text is no trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It has another shape.
    #[error("the JSON is no trace: {0}")]
    Shape(#[from] serde_json::Error),
    /// A row is neither a call nor a span of its own.
    #[error("`{name}` has {spans} spans, wanted one, or two and a callee")]
    Spans {
        /// The row.
        name: String,
        /// How many it has.
        spans: usize,
    },
}

/// Reads an answer of `engine::traces::tree`.
///
/// # Errors
/// [`ReadError`] for what is no trace.
pub fn trace(value: Value) -> Result<(Trace, ClockAnchor), ReadError> {
    let text: TraceText = serde_json::from_value(value)?;
    let depths: Vec<usize> = text.rows.iter().map(|row| row.depth).collect();
    let trace_id = text.trace_id;
    let rows: Result<Vec<Row>, ReadError> = text
        .rows
        .into_iter()
        .enumerate()
        .map(|(place, row)| row.into_row(trace_id, is_last(&depths, place)))
        .collect();
    let trace = Trace {
        trace_id,
        start_ns: text.start_unix_ns,
        end_ns: text.start_unix_ns.saturating_add(text.duration_ns),
        rows: rows?,
        logs: text.logs.into_iter().map(LogText::into_log).collect(),
        spans: text.spans,
        spans_dropped: text.spans_dropped,
    };
    Ok((trace, ClockAnchor { monotonic_ns: 0, unix_ns: 0 }))
}

/// Says whether no sibling follows: the next row that is not deeper is not as deep.
fn is_last(depths: &[usize], place: usize) -> bool {
    let own = depths[place];
    depths[place + 1..].iter().find(|depth| **depth <= own).is_none_or(|depth| *depth < own)
}

impl RowText {
    fn into_row(self, trace_id: TraceId, last: bool) -> Result<Row, ReadError> {
        let status = match &self.error {
            None => STATUS_OK,
            Some(code) => code.parse::<ErrorCode>().map_or(STATUS_UNKNOWN, ErrorCode::status),
        };
        let name: Arc<str> = self.name.into();
        let worker = Arc::new(self.worker.into_identity());
        let callee = self.callee.map(|callee| Arc::new(callee.into_identity()));
        let (request, reply) = (self.request_bytes, self.reply_bytes);
        let make = |span: SpanText, worker: &Arc<WorkerIdentity>, peer: Option<&Arc<WorkerIdentity>>| Span {
            trace_id,
            span_id: span.span_id,
            parent_id: span.parent_id,
            kind: span.kind,
            status,
            start_ns: span.start_unix_ns,
            end_ns: span.end_unix_ns,
            woke_ns: span.woke_unix_ns,
            lost: span.lost,
            flags: 0,
            worker: Arc::clone(worker),
            name: Arc::clone(&name),
            peer: peer.map(|peer| peer.id),
            bytes_in: request,
            bytes_out: reply,
            details: None,
        };
        let mut spans = self.spans.into_iter();
        let work = match (spans.next(), spans.next(), &callee) {
            (Some(client), Some(server), Some(callee)) => Work::Hop {
                client: make(client, &worker, Some(callee)),
                server: make(server, callee, Some(&worker)),
            },
            (Some(span), None, _) => Work::Single(make(span, &worker, None)),
            (_, second, _) => {
                let spans = usize::from(second.is_some()) * 2;
                return Err(ReadError::Spans { name: name.to_string(), spans });
            }
        };
        let logs = self.logs.into_iter().map(LogText::into_log).collect();
        Ok(Row { depth: self.depth, orphan: self.orphan, last, work, logs })
    }
}

impl WorkerText {
    fn into_identity(self) -> WorkerIdentity {
        let Self { id, name, pid } = self;
        WorkerIdentity { id, name, namespace: String::new(), pid, is_engine: false }
    }
}

impl LogText {
    fn into_log(self) -> Log {
        let worker = WorkerText { id: self.worker_id, name: self.worker, pid: 0 };
        Log {
            time_ns: self.time_unix_ns,
            level: self.level,
            worker: Arc::new(worker.into_identity()),
            trace_id: self.trace_id,
            span_id: self.span_id,
            target: self.target,
            message: self.message,
            fields: self.fields.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::waterfall::{Style, json::TraceJson, render};

    use super::*;

    /// The JSON of a trace, and how the same trace is drawn.
    const JSON: &str = include_str!("snapshots/trace.json");
    const DRAWN: &str = include_str!("snapshots/wide.txt");

    #[test]
    fn a_trace_survives_the_way_through_json() {
        let (trace, anchor) = trace(serde_json::from_str(JSON).unwrap()).unwrap();
        assert_eq!(serde_json::to_string_pretty(&TraceJson::new(&trace, anchor)).unwrap() + "\n", JSON);
    }

    #[test]
    fn it_is_drawn_as_the_engine_would() {
        let (trace, anchor) = trace(serde_json::from_str(JSON).unwrap()).unwrap();
        let found = render(&trace, anchor, Style { width: 120, ..Style::default() });
        // JSON keeps fields by name, the store in the order they were logged.
        assert_eq!(found, DRAWN.replace("count=12 best=\"a b\"", "best=\"a b\" count=12"), "\n{found}");
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        for wrong in [Value::Null, serde_json::json!({"rows": []}), serde_json::json!([])] {
            assert!(trace(wrong).is_err());
        }
    }
}
