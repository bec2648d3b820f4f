//! Spans and logs in the field names of the iii protocol (section "Observability"), which are those of OpenTelemetry's
//! JSON with underscores: for callers that were written for iii. What Ringway knows beyond them is in attributes. This
//! file must not know who asks.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ringway_protocol::{SpanId, TraceId};
use serde::Serialize;

use super::json::LogJson;
use crate::record::{ClockAnchor, FieldValue, Level, Log, Span, SpanKind};

/// What recorded the spans, as OTLP names it too.
const SCOPE: &str = "ringway";
/// The W3C flag of what is recorded at all.
const SAMPLED: u8 = 1;

/// One span, and the spans below it where a tree was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OtelSpan<'a> {
    trace_id: TraceId,
    span_id: SpanId,
    parent_span_id: Option<SpanId>,
    name: &'a str,
    start_time_unix_nano: u64,
    /// That of the start while the span runs.
    end_time_unix_nano: u64,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<&'a str>,
    attributes: Vec<(&'a str, String)>,
    service_name: &'a str,
    events: Vec<OtelEvent<'a>>,
    links: [(); 0],
    instrumentation_scope_name: &'a str,
    flags: u8,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pending: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<Vec<Self>>,
}

/// A log line within a span.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OtelEvent<'a> {
    name: &'a str,
    timestamp_unix_nano: u64,
    attributes: Vec<(&'a str, &'a FieldValue)>,
}

impl<'a> OtelSpan<'a> {
    /// Shapes a span; of the logs, those that belong to it become its events.
    #[must_use]
    pub fn new(span: &'a Span, logs: &'a [Log], anchor: ClockAnchor) -> Self {
        let lines = logs.iter().filter(|log| log.span_id == Some(span.span_id));
        let events = lines.map(|log| OtelEvent {
            name: &log.message,
            timestamp_unix_nano: anchor.unix_ns(log.time_ns),
            attributes: log.fields.iter().map(|(key, value)| (key.as_str(), value)).collect(),
        });
        let details = span.details.as_deref();
        let attributes = ATTRIBUTES.iter().filter_map(|key| Some((*key, attribute(span, key)?.into_owned())));
        let own = details.into_iter().flat_map(|details| &details.attributes);
        let attributes =
            attributes.chain(own.map(|(key, value)| (key.as_str(), text_of(value).into_owned())));
        let said = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        Self {
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_span_id: span.parent_id,
            name: &span.name,
            start_time_unix_nano: anchor.unix_ns(span.start_ns),
            end_time_unix_nano: anchor.unix_ns(span.end_ns.unwrap_or(span.start_ns)),
            status: status(span),
            status_description: details
                .and_then(|details| said(&details.message))
                .or_else(|| span.error_code()),
            attributes: attributes.collect(),
            service_name: &span.worker.name,
            events: events.collect(),
            links: [],
            instrumentation_scope_name: details.and_then(|details| said(&details.scope)).unwrap_or(SCOPE),
            flags: SAMPLED,
            pending: span.is_live(),
            children: None,
        }
    }

    /// Shapes a whole trace: the spans above which none is held, each with what lies below it, by start. What lies deeper
    /// than `DEPTH_MAX` stands beside its parent instead of below it. A ring of spans, which only a faulty worker could
    /// report, has no beginning and is left out.
    #[must_use]
    pub fn tree(spans: &'a [Span], logs: &'a [Log], anchor: ClockAnchor) -> Vec<Self> {
        let held: BTreeMap<SpanId, usize> =
            spans.iter().zip(0..).map(|(span, at)| (span.span_id, at)).collect();
        let mut latest_first: Vec<usize> = (0..spans.len()).collect();
        latest_first.sort_by_key(|at| std::cmp::Reverse((spans[*at].start_ns, spans[*at].span_id)));
        let mut reported: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
        let mut open: Vec<(usize, Option<usize>, usize)> = Vec::new();
        for at in latest_first {
            match spans[at].parent_id.and_then(|parent| held.get(&parent)) {
                Some(parent) => reported[*parent].push(at),
                None => open.push((at, None, 0)),
            }
        }
        let mut forest = Forest { spans, logs, anchor, below: vec![Vec::new(); spans.len()] };
        let mut roots = Vec::new();
        while let Some((at, parent, depth)) = open.pop() {
            match parent {
                Some(parent) => forest.below[parent].push(at),
                None => roots.push(at),
            }
            let place = if depth < DEPTH_MAX { (Some(at), depth + 1) } else { (parent, depth) };
            open.extend(reported[at].iter().map(|child| (*child, place.0, place.1)));
        }
        roots.into_iter().map(|at| forest.shape(at)).collect()
    }
}

/// The attributes of a span, in the order in which they are told.
const ATTRIBUTES: [&str; 5] =
    ["ringway.worker.id", "ringway.request.bytes", "ringway.reply.bytes", "span.kind", "ringway.peer.id"];

/// Returns an attribute of a span: one of those that are told with it, or one of its fields by its name.
pub(super) fn attribute<'a>(span: &'a Span, key: &str) -> Option<Cow<'a, str>> {
    Some(match key {
        "ringway.worker.id" => span.worker.id.to_string().into(),
        "ringway.request.bytes" => span.bytes_in.to_string().into(),
        "ringway.reply.bytes" => span.bytes_out.to_string().into(),
        "span.kind" => kind(span.kind).into(),
        "ringway.peer.id" => span.peer?.to_string().into(),
        "name" => Cow::Borrowed(&*span.name),
        "service_name" | "service.name" => Cow::Borrowed(span.worker.name.as_str()),
        "status" => status(span).into(),
        key => {
            let details = span.details.as_deref()?;
            text_of(&details.attributes.iter().find(|(name, _)| name == key)?.1)
        }
    })
}

fn text_of(value: &FieldValue) -> Cow<'_, str> {
    match value {
        FieldValue::Bool(value) => value.to_string().into(),
        FieldValue::I64(value) => value.to_string().into(),
        FieldValue::U64(value) => value.to_string().into(),
        FieldValue::F64(value) => value.to_string().into(),
        FieldValue::Text(text) => text.into(),
    }
}

fn status(span: &Span) -> &'static str {
    if span.is_error() { "error" } else { "ok" }
}

/// How deep a tree is told at most: readers of JSON give up beyond some depth, those of serde at 128.
const DEPTH_MAX: usize = 32;

/// Spans and which of them are shown below each.
struct Forest<'a> {
    spans: &'a [Span],
    logs: &'a [Log],
    anchor: ClockAnchor,
    below: Vec<Vec<usize>>,
}

impl<'a> Forest<'a> {
    fn shape(&self, at: usize) -> OtelSpan<'a> {
        let children = self.below[at].iter().map(|child| self.shape(*child)).collect();
        OtelSpan { children: Some(children), ..OtelSpan::new(&self.spans[at], self.logs, self.anchor) }
    }
}

const fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

/// One log line, in Ringway's own field names and in iii's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OtelLog<'a> {
    #[serde(flatten)]
    own: LogJson<'a>,
    timestamp_unix_nano: u64,
    observed_timestamp_unix_nano: u64,
    severity_number: u8,
    severity_text: String,
    body: &'a str,
    attributes: BTreeMap<&'a str, &'a FieldValue>,
    resource: BTreeMap<&'static str, String>,
    service_name: &'a str,
    instrumentation_scope_name: &'a str,
}

impl<'a> OtelLog<'a> {
    /// Shapes a log line.
    #[must_use]
    pub fn new(log: &'a Log, anchor: ClockAnchor) -> Self {
        let time = anchor.unix_ns(log.time_ns);
        let resource = [
            ("service.name", log.worker.name.clone()),
            ("service.instance.id", log.worker.id.to_string()),
            ("process.pid", log.worker.pid.to_string()),
        ];
        Self {
            own: LogJson::new(log, anchor),
            timestamp_unix_nano: time,
            observed_timestamp_unix_nano: time,
            severity_number: severity_number(log.level),
            severity_text: log.level.as_str().to_ascii_uppercase(),
            body: &log.message,
            attributes: log.fields.iter().map(|(key, value)| (key.as_str(), value)).collect(),
            resource: resource.into_iter().collect(),
            service_name: &log.worker.name,
            instrumentation_scope_name: &log.target,
        }
    }
}

/// The number that OpenTelemetry gives a level (data model of logs, "Severity Fields").
const fn severity_number(level: Level) -> u8 {
    match level {
        Level::Trace => 1,
        Level::Debug => 5,
        Level::Info => 9,
        Level::Warn => 13,
        Level::Error => 17,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{log, span, worker};

    const ANCHOR: ClockAnchor = ClockAnchor { monotonic_ns: 0, unix_ns: 1_000 };

    #[test]
    fn a_tree_has_every_span_once_under_its_parent() {
        let (a, b) = (worker(1, "a"), worker(2, "b"));
        let mut failed = span(&b, (3, 2), SpanKind::Server, "g", (30, 40));
        failed.status = ringway_protocol::ErrorCode::Busy.status();
        let spans = [
            failed,
            span(&a, (1, 0), SpanKind::Client, "f", (10, 100)),
            span(&b, (2, 1), SpanKind::Server, "f", (20, 90)),
            span(&b, (9, 8), SpanKind::Server, "lost parent", (5, 6)),
        ];
        let logs = [log(&b, 2, 25, Level::Warn, "said")];
        let tree = serde_json::to_value(OtelSpan::tree(&spans, &logs, ANCHOR)).unwrap();
        let names = |list: &serde_json::Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|span| span["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&tree), ["lost parent", "f"]);
        let below = &tree[1]["children"][0];
        assert_eq!((&below["service_name"], &below["start_time_unix_nano"]), (&"b".into(), &1_020.into()));
        assert_eq!(
            (&below["events"][0]["name"], &below["events"][0]["timestamp_unix_nano"]),
            (&"said".into(), &1_025.into())
        );
        let leaf = &below["children"][0];
        assert_eq!((&leaf["status"], &leaf["status_description"]), (&"error".into(), &"busy".into()));
        assert_eq!(leaf["children"], serde_json::json!([]));
    }

    #[test]
    fn a_deep_tree_is_told_to_some_depth_and_whole() {
        let deep = worker(1, "deep");
        let chain: Vec<Span> = (1..=200u8)
            .map(|id| span(&deep, (id, id - 1), SpanKind::Internal, "step", (u64::from(id), 1_000)))
            .collect();
        let text = serde_json::to_string(&OtelSpan::tree(&chain, &[], ANCHOR)).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).expect("not too deep to be read");
        assert_eq!((text.matches("\"span_id\"").count(), read.as_array().unwrap().len()), (200, 1));
    }

    #[test]
    fn a_log_has_both_kinds_of_names() {
        let log = log(&worker(1, "a"), 2, 25, Level::Error, "broken");
        let shaped = serde_json::to_value(OtelLog::new(&log, ANCHOR)).unwrap();
        for (field, expected) in [
            ("timestamp_unix_nano", serde_json::json!(1_025)),
            ("time_unix_ns", serde_json::json!(1_025)),
            ("severity_number", 17.into()),
            ("severity_text", "ERROR".into()),
            ("level", "error".into()),
            ("body", "broken".into()),
            ("message", "broken".into()),
            ("service_name", "a".into()),
            ("attributes", serde_json::json!({})),
        ] {
            assert_eq!(shaped[field], expected, "{field}");
        }
    }
}
