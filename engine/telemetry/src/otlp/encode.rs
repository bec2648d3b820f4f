//! Spans and logs as OTLP messages, one resource per worker.
//!
//! Used by the export threads. Attribute names follow OpenTelemetry's semantic conventions where there is one, and
//! begin with `ringway.` where there is none. This file must not know how a body travels.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind as OtlpSpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status};
use prost::Message as _;
use ringway_protocol::WorkerId;

use super::batch::Signal;
use super::config::ResourceConfig;
use crate::record::{
    ClockAnchor, FieldValue, Level, Log, SPAN_FLAG_IN_PLACE, SPAN_FLAG_RELAYED, SPAN_FLAG_STREAM, Span,
    SpanKind, WorkerIdentity,
};

/// Something with what turns its times into unix time.
#[derive(Debug)]
pub(super) struct Stamped<T> {
    pub(super) item: T,
    pub(super) anchor: ClockAnchor,
}

/// The W3C sampled flag: what is recorded at all was sampled.
const SAMPLED: u32 = 1;

/// How spans become requests.
pub(super) struct TracesSignal {
    resource: Arc<ResourceConfig>,
}

impl TracesSignal {
    pub(super) fn new(resource: Arc<ResourceConfig>) -> Self {
        Self { resource }
    }
}

impl Signal for TracesSignal {
    type Item = Stamped<Span>;
    const NAME: &'static str = "traces";

    fn encode(&self, spans: &[Stamped<Span>]) -> Vec<u8> {
        let resource_spans = by_worker(spans, |span| &span.worker)
            .into_iter()
            .map(|(worker, spans)| ResourceSpans {
                resource: Some(encode_resource(worker, &self.resource)),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope("ringway")),
                    spans: spans.into_iter().map(encode_span).collect(),
                    schema_url: String::new(),
                }],
                schema_url: String::new(),
            })
            .collect();
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    fn rejected(&self, answer: &[u8]) -> Option<(u64, String)> {
        let partial = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
        rejection(partial.rejected_spans, partial.error_message)
    }
}

/// How logs become requests.
pub(super) struct LogsSignal {
    resource: Arc<ResourceConfig>,
}

impl LogsSignal {
    pub(super) fn new(resource: Arc<ResourceConfig>) -> Self {
        Self { resource }
    }
}

impl Signal for LogsSignal {
    type Item = Stamped<Log>;
    const NAME: &'static str = "logs";

    fn encode(&self, logs: &[Stamped<Log>]) -> Vec<u8> {
        let resource_logs = by_worker(logs, |log| &log.worker)
            .into_iter()
            .map(|(worker, logs)| ResourceLogs {
                resource: Some(encode_resource(worker, &self.resource)),
                scope_logs: by_target(logs),
                schema_url: String::new(),
            })
            .collect();
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    }

    fn rejected(&self, answer: &[u8]) -> Option<(u64, String)> {
        let partial = ExportLogsServiceResponse::decode(answer).ok()?.partial_success?;
        rejection(partial.rejected_log_records, partial.error_message)
    }
}

/// An empty partial success is how some collectors spell a full one.
fn rejection(count: i64, reason: String) -> Option<(u64, String)> {
    let count = u64::try_from(count).unwrap_or(0);
    (count > 0 || !reason.is_empty()).then_some((count, reason))
}

/// Groups items by worker, in the order in which the workers first occur.
fn by_worker<'a, T>(
    items: &'a [Stamped<T>],
    worker: impl Fn(&'a T) -> &'a Arc<WorkerIdentity>,
) -> Vec<(&'a WorkerIdentity, Vec<&'a Stamped<T>>)> {
    let mut places: HashMap<WorkerId, usize> = HashMap::new();
    let mut groups: Vec<(&WorkerIdentity, Vec<&Stamped<T>>)> = Vec::new();
    for stamped in items {
        let identity = worker(&stamped.item);
        let place = *places.entry(identity.id).or_insert_with(|| {
            groups.push((identity, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(stamped);
    }
    groups
}

fn by_target(logs: Vec<&Stamped<Log>>) -> Vec<ScopeLogs> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut scopes: Vec<ScopeLogs> = Vec::new();
    for stamped in logs {
        let target = stamped.item.target.as_str();
        let place = *places.entry(target).or_insert_with(|| {
            let scope = InstrumentationScope { name: target.to_owned(), ..InstrumentationScope::default() };
            scopes.push(ScopeLogs { scope: Some(scope), ..ScopeLogs::default() });
            scopes.len() - 1
        });
        scopes[place].log_records.push(encode_log(stamped));
    }
    scopes
}

fn scope(name: &str) -> InstrumentationScope {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    InstrumentationScope { name: name.to_owned(), version, ..InstrumentationScope::default() }
}

fn encode_resource(worker: &WorkerIdentity, config: &ResourceConfig) -> Resource {
    let engine_name = config.engine_service_name.as_ref().filter(|_| worker.is_engine);
    let mut attributes = vec![
        text("service.name", engine_name.unwrap_or(&worker.name)),
        text("service.instance.id", &worker.id.to_string()),
        number("process.pid", u64::from(worker.pid)),
        text("telemetry.sdk.name", "ringway"),
        text("telemetry.sdk.language", "rust"),
        text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    if !worker.namespace.is_empty() {
        attributes.push(text("service.namespace", &worker.namespace));
    }
    for (key, value) in &config.attributes {
        if !attributes.iter().any(|attribute| attribute.key == *key) {
            attributes.push(text(key, value));
        }
    }
    Resource { attributes, ..Resource::default() }
}

fn encode_span(stamped: &Stamped<Span>) -> OtlpSpan {
    let Stamped { item: span, anchor } = stamped;
    let end_ns = span.end_ns.unwrap_or(span.start_ns).max(span.start_ns);
    OtlpSpan {
        trace_id: span.trace_id.to_bytes().to_vec(),
        span_id: span.span_id.to_bytes().to_vec(),
        parent_span_id: span.parent_id.map_or_else(Vec::new, |id| id.to_bytes().to_vec()),
        flags: SAMPLED,
        name: span.name.to_string(),
        kind: encode_kind(span.kind).into(),
        start_time_unix_nano: anchor.unix_ns(span.start_ns),
        end_time_unix_nano: anchor.unix_ns(end_ns),
        attributes: span_attributes(span),
        events: woke_event(span, anchor).into_iter().collect(),
        status: Some(encode_status(span)),
        ..OtlpSpan::default()
    }
}

const fn encode_kind(kind: SpanKind) -> OtlpSpanKind {
    match kind {
        SpanKind::Internal => OtlpSpanKind::Internal,
        SpanKind::Client => OtlpSpanKind::Client,
        SpanKind::Server => OtlpSpanKind::Server,
        SpanKind::Producer => OtlpSpanKind::Producer,
        SpanKind::Consumer => OtlpSpanKind::Consumer,
    }
}

fn encode_status(span: &Span) -> Status {
    match span.error_code() {
        Some(code) => {
            let own = span.details.as_ref().map(|details| &details.message).filter(|text| !text.is_empty());
            Status { code: StatusCode::Error.into(), message: own.map_or(code, String::as_str).to_owned() }
        }
        None => Status::default(),
    }
}

fn span_attributes(span: &Span) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    if span.kind != SpanKind::Internal {
        attributes.push(text("rpc.system", "ringway"));
        if let Some((service, method)) = span.name.rsplit_once("::") {
            attributes.extend([text("rpc.service", service), text("rpc.method", method)]);
        }
        attributes.push(number("ringway.request.bytes", span.bytes_in));
        attributes.push(number("ringway.reply.bytes", span.bytes_out));
    }
    if let Some(peer) = span.peer {
        attributes.push(text("ringway.peer.worker.id", &peer.to_string()));
    }
    if let Some(code) = span.error_code() {
        attributes.push(text("error.type", code));
    }
    let flags = [
        (SPAN_FLAG_IN_PLACE, "ringway.in_place"),
        (SPAN_FLAG_RELAYED, "ringway.relayed"),
        (SPAN_FLAG_STREAM, "ringway.stream"),
    ];
    let set = flags.into_iter().filter(|(bit, _)| span.flags & bit != 0);
    attributes.extend(set.map(|(_, key)| attribute(key, Value::BoolValue(true))));
    if span.lost {
        attributes.push(attribute("ringway.lost", Value::BoolValue(true)));
    }
    let own = span.details.iter().flat_map(|details| &details.attributes);
    attributes.extend(own.map(|(key, value)| attribute(key, encode_value(value))));
    attributes
}

/// Shows on the span when its recorder woke up for the frame.
fn woke_event(span: &Span, anchor: &ClockAnchor) -> Option<Event> {
    let time_unix_nano = anchor.unix_ns(span.woke_ns?);
    Some(Event { time_unix_nano, name: "ringway.woke".to_owned(), ..Event::default() })
}

fn encode_log(stamped: &Stamped<Log>) -> LogRecord {
    let Stamped { item: log, anchor } = stamped;
    let time_unix_nano = anchor.unix_ns(log.time_ns);
    LogRecord {
        time_unix_nano,
        observed_time_unix_nano: time_unix_nano,
        severity_number: encode_level(log.level).into(),
        severity_text: log.level.as_str().to_ascii_uppercase(),
        body: Some(AnyValue { value: Some(Value::StringValue(log.message.clone())) }),
        attributes: log.fields.iter().map(|(key, value)| attribute(key, encode_value(value))).collect(),
        flags: if log.trace_id.is_some() { SAMPLED } else { 0 },
        trace_id: log.trace_id.map_or_else(Vec::new, |id| id.to_bytes().to_vec()),
        span_id: log.span_id.map_or_else(Vec::new, |id| id.to_bytes().to_vec()),
        ..LogRecord::default()
    }
}

const fn encode_level(level: Level) -> SeverityNumber {
    match level {
        Level::Trace => SeverityNumber::Trace,
        Level::Debug => SeverityNumber::Debug,
        Level::Info => SeverityNumber::Info,
        Level::Warn => SeverityNumber::Warn,
        Level::Error => SeverityNumber::Error,
    }
}

fn encode_value(value: &FieldValue) -> Value {
    match value {
        FieldValue::Bool(value) => Value::BoolValue(*value),
        FieldValue::I64(value) => Value::IntValue(*value),
        FieldValue::U64(value) => unsigned(*value),
        FieldValue::F64(value) => Value::DoubleValue(*value),
        FieldValue::Text(value) => Value::StringValue(value.clone()),
    }
}

/// OTLP has no unsigned integers: what does not fit a signed one is sent as text, unchanged.
fn unsigned(value: u64) -> Value {
    i64::try_from(value).map_or_else(|_| Value::StringValue(value.to_string()), Value::IntValue)
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, unsigned(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
