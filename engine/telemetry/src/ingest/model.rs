//! What OTLP says, whatever it is written in: programs with their spans, logs and points, cut to the limits. Both formats
//! fill it; from it come the spans and logs that are kept. It must not know either format.

use std::sync::Arc;

use ringway_protocol::error::STATUS_OK;
use ringway_protocol::{ErrorCode, SpanId, TraceId};
use serde_json::Value;

use super::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, EVENTS_MAX, ITEMS_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX};
use super::{Placed, VALUE_BYTES_MAX};
use crate::record::{ClockAnchor, Details, FieldValue, Level, Log, Span, SpanKind, WorkerIdentity};
use crate::store::{Point, PointKind};

/// What a frame was found to say so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) programs: Vec<Program>,
    pub(super) rejected: u64,
    items: usize,
}

impl Reading {
    /// Whether one more item may be read; counted, either way.
    pub(super) fn admit(&mut self) -> bool {
        self.items += 1;
        let fits = self.items <= ITEMS_MAX;
        self.rejected += u64::from(!fits);
        fits
    }

    /// Leaves those of a span's events that may be read; the others are counted.
    pub(super) fn admit_events<E>(&mut self, mut events: Vec<E>) -> Vec<E> {
        let room = EVENTS_MAX.min(ITEMS_MAX.saturating_sub(self.items));
        self.rejected += events.len().saturating_sub(room) as u64;
        events.truncate(room);
        self.items += events.len();
        events
    }

    pub(super) fn reject(&mut self) {
        self.rejected += 1;
    }

    /// Begins what another program says; what is read next is its.
    pub(super) fn begin(&mut self, resource: &Attributes) {
        self.programs.push(Program::of(resource));
    }

    /// The program that is being read.
    pub(super) fn program(&mut self) -> &mut Program {
        if self.programs.is_empty() {
            self.programs.push(Program::default());
        }
        let last = self.programs.len() - 1;
        &mut self.programs[last]
    }
}

/// One program, and what it says.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) service_name: String,
    pub(super) service_namespace: String,
    /// What tells it from others of that name.
    pub(super) instance: String,
    pub(super) pid: Option<u32>,
    pub(super) spans: Vec<OfferedSpan>,
    pub(super) logs: Vec<OfferedLog>,
    pub(super) points: Vec<OfferedPoint>,
}

impl Program {
    fn of(resource: &Attributes) -> Self {
        let text = |key: &str| match resource.get(key) {
            Some(FieldValue::Text(text)) => cut(text, NAME_BYTES_MAX).to_owned(),
            _ => String::new(),
        };
        let pid = match resource.get("process.pid") {
            Some(FieldValue::I64(pid)) => u32::try_from(*pid).ok(),
            Some(FieldValue::Text(pid)) => pid.parse().ok(),
            _ => None,
        };
        Self {
            service_name: text("service.name"),
            service_namespace: text("service.namespace"),
            instance: text("service.instance.id"),
            pid,
            ..Self::default()
        }
    }
}

/// Cuts a text at a character's end.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Named values within their limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Attributes {
    list: Vec<(String, FieldValue)>,
    bytes: usize,
}

impl Attributes {
    /// Adds a value; leaves it out where there is no room.
    pub(super) fn push(&mut self, name: &str, value: Any) {
        let name = cut(name, NAME_BYTES_MAX);
        let value = value.into_field();
        let bytes = name.len() + if let FieldValue::Text(text) = &value { text.len() } else { 8 };
        if self.list.len() < ATTRIBUTES_MAX && self.bytes + bytes <= ATTRIBUTE_BYTES_MAX {
            self.bytes += bytes;
            self.list.push((name.to_owned(), value));
        }
    }

    fn get(&self, name: &str) -> Option<&FieldValue> {
        self.list.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// A value of either format.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Any {
    Bool(bool),
    I64(i64),
    F64(f64),
    Text(String),
    /// A list, a map or bytes.
    Json(Value),
    /// Nothing was said.
    Nothing,
}

impl Any {
    /// What a log's message is.
    pub(super) fn into_message(self) -> String {
        let text = match self {
            Self::Text(text) => text,
            Self::Nothing => String::new(),
            other => other.into_json().to_string(),
        };
        cut(&text, MESSAGE_BYTES_MAX).to_owned()
    }

    pub(super) fn into_json(self) -> Value {
        match self {
            Self::Bool(value) => value.into(),
            Self::I64(value) => value.into(),
            Self::F64(value) => value.into(),
            Self::Text(text) => text.into(),
            Self::Json(value) => value,
            Self::Nothing => Value::Null,
        }
    }

    fn into_field(self) -> FieldValue {
        match self {
            Self::Bool(value) => FieldValue::Bool(value),
            Self::I64(value) => FieldValue::I64(value),
            Self::F64(value) => FieldValue::F64(value),
            Self::Text(text) => FieldValue::Text(cut(&text, VALUE_BYTES_MAX).to_owned()),
            Self::Json(value) => FieldValue::Text(cut(&value.to_string(), VALUE_BYTES_MAX).to_owned()),
            Self::Nothing => FieldValue::Text(String::new()),
        }
    }
}

/// A span as it was offered; times are Unix nanoseconds.
#[derive(Debug)]
pub(super) struct OfferedSpan {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent_id: Option<SpanId>,
    pub(super) kind: SpanKind,
    pub(super) name: String,
    pub(super) start_ns: u64,
    /// 0 while it runs.
    pub(super) end_ns: u64,
    pub(super) failed: bool,
    pub(super) message: String,
    pub(super) scope: String,
    pub(super) attributes: Attributes,
    pub(super) events: Vec<OfferedEvent>,
}

/// Something that happened within a span.
#[derive(Debug)]
pub(super) struct OfferedEvent {
    pub(super) name: String,
    pub(super) time_ns: u64,
    pub(super) attributes: Attributes,
}

impl OfferedSpan {
    pub(super) fn place(self, worker: &Arc<WorkerIdentity>, anchor: ClockAnchor, placed: &mut Placed) {
        let start_ns = anchor.monotonic_ns(self.start_ns);
        let end_ns = (self.end_ns != 0).then(|| anchor.monotonic_ns(self.end_ns).max(start_ns));
        for event in self.events {
            placed.logs.push(Log {
                time_ns: anchor.monotonic_ns(event.time_ns),
                level: if event.name == "exception" { Level::Error } else { Level::Info },
                worker: Arc::clone(worker),
                trace_id: Some(self.trace_id),
                span_id: Some(self.span_id),
                target: self.scope.clone(),
                message: event.name,
                fields: event.attributes.list,
            });
        }
        let details = Details { scope: self.scope, message: self.message, attributes: self.attributes.list };
        placed.spans.push(Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_id: self.parent_id,
            kind: self.kind,
            status: if self.failed { ErrorCode::HandlerError.status() } else { STATUS_OK },
            start_ns,
            end_ns,
            woke_ns: None,
            lost: false,
            flags: 0,
            worker: Arc::clone(worker),
            name: self.name.into(),
            peer: None,
            bytes_in: 0,
            bytes_out: 0,
            details: (details != Details::default()).then(|| Arc::new(details)),
        });
    }
}

/// The kind of a span, by its number in OTLP. One that is not known is no call.
pub(super) fn kind(number: i64) -> SpanKind {
    match number {
        2 => SpanKind::Server,
        3 => SpanKind::Client,
        4 => SpanKind::Producer,
        5 => SpanKind::Consumer,
        _ => SpanKind::Internal,
    }
}

/// The number of a span's status that says that it failed.
pub(super) const STATUS_FAILED: i64 = 2;

/// A log as it was offered.
#[derive(Debug)]
pub(super) struct OfferedLog {
    pub(super) time_ns: u64,
    pub(super) level: Level,
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) scope: String,
    pub(super) message: String,
    pub(super) attributes: Attributes,
}

impl OfferedLog {
    pub(super) fn place(self, worker: &Arc<WorkerIdentity>, anchor: ClockAnchor) -> Log {
        Log {
            time_ns: anchor.monotonic_ns(self.time_ns),
            level: self.level,
            worker: Arc::clone(worker),
            trace_id: (!self.trace_id.is_none()).then_some(self.trace_id),
            span_id: (!self.span_id.is_none()).then_some(self.span_id),
            target: self.scope,
            message: self.message,
            fields: self.attributes.list,
        }
    }
}

/// How grave a log is, by its number (data model of logs, "Severity Fields"), or else by its word.
pub(super) fn level(number: i64, word: &str) -> Level {
    match number {
        1..=4 => Level::Trace,
        5..=8 => Level::Debug,
        9..=12 => Level::Info,
        13..=16 => Level::Warn,
        17.. => Level::Error,
        _ => match word.to_ascii_lowercase().as_str() {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "warn" | "warning" => Level::Warn,
            "error" | "fatal" | "critical" => Level::Error,
            _ => Level::Info,
        },
    }
}

/// A point of a figure as it was offered.
#[derive(Debug)]
pub(super) struct OfferedPoint {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) kind: PointKind,
    pub(super) time_ns: u64,
    pub(super) value: f64,
    pub(super) count: Option<u64>,
    pub(super) attributes: Attributes,
}

impl OfferedPoint {
    pub(super) fn place(self, worker: &Arc<WorkerIdentity>, anchor: ClockAnchor) -> Point {
        Point {
            worker: Arc::clone(worker),
            name: self.name.into(),
            unit: self.unit,
            kind: self.kind,
            time_ns: anchor.monotonic_ns(self.time_ns),
            value: self.value,
            count: self.count,
            attributes: self.attributes.list,
        }
    }
}
