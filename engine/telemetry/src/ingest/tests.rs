//! Frames as SDKs write them, frames that nobody should write, and the limits between them.

use proptest::prelude::*;
use prost::Message;
use ringway_protocol::{SpanId, TraceId};
use serde_json::{Value, json};

use super::*;
use crate::collector::Collector;
use crate::record::{FieldValue, Level, SpanKind};
use crate::store::{PointKind, StoreLimits};
use crate::testing::worker;

const ANCHOR: ClockAnchor = ClockAnchor { monotonic_ns: 1_000, unix_ns: 1_700_000_000_000_001_000 };
const T: u64 = 1_700_000_000_000_000_000;

fn place(signal: Signal, frame: &Value) -> Placed {
    let batch = Batch::read(signal, Format::Json, frame.to_string().as_bytes()).unwrap();
    batch.place(&mut Programs::default(), &worker(7, "sender"), ANCHOR)
}

fn spans_of(spans: Value) -> Value {
    json!({"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "orders"}},
            {"key": "service.instance.id", "value": {"stringValue": "i-1"}},
            {"key": "process.pid", "value": {"intValue": "4242"}},
        ], "droppedAttributesCount": 0},
        "scopeSpans": [{"scope": {"name": "@iii-dev/helpers", "version": "1"}, "spans": spans}],
    }]})
}

fn span(fields: &Value) -> Value {
    let mut span = json!({
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7",
        "parentSpanId": "00f067aa0ba902b6", "name": "execute orders::create", "kind": 2,
        "startTimeUnixNano": T.to_string(), "endTimeUnixNano": (T + 500).to_string(),
        "attributes": [], "status": {"code": 0},
    });
    for (key, value) in fields.as_object().unwrap() {
        span[key] = value.clone();
    }
    span
}

#[test]
fn a_span_keeps_its_ids_its_parent_and_what_it_says() {
    let frame = spans_of(json!([span(&json!({
        "attributes": [
            {"key": "text", "value": {"stringValue": "x"}}, {"key": "yes", "value": {"boolValue": true}},
            {"key": "int", "value": {"intValue": "-5"}}, {"key": "int2", "value": {"intValue": 5}},
            {"key": "half", "value": {"doubleValue": 0.5}}, {"key": "nothing", "value": {}}, {"key": "null", "value": null},
            {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": 1}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": false}}]}}},
        ],
        "events": [{"name": "exception", "timeUnixNano": T + 100, "attributes": [
            {"key": "exception.message", "value": {"stringValue": "boom"}}]}],
        "status": {"code": 2, "message": "it broke"}, "links": [], "flags": 257, "unknown": [1],
    }))]));
    let placed = place(Signal::Traces, &frame);
    assert_eq!((placed.rejected, placed.spans.len(), placed.logs.len()), (0, 1, 1));
    let span = &placed.spans[0];
    assert_eq!(span.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(span.parent_id.unwrap().to_string(), "00f067aa0ba902b6");
    assert_eq!(
        (&*span.name, span.kind, span.error_code()),
        ("execute orders::create", SpanKind::Server, Some("handler_error"))
    );
    assert_eq!((span.start_ns, span.end_ns), (0, Some(500)));
    assert_eq!((span.worker.name.as_str(), span.worker.pid), ("orders", 4242));
    assert_ne!(span.worker.id, WorkerId::new(7), "the sender is another program");
    let details = span.details.as_ref().unwrap();
    assert_eq!((details.scope.as_str(), details.message.as_str()), ("@iii-dev/helpers", "it broke"));
    let text = |text: &str| FieldValue::Text(text.to_owned());
    let expected = [
        ("text", text("x")),
        ("yes", FieldValue::Bool(true)),
        ("int", FieldValue::I64(-5)),
        ("int2", FieldValue::I64(5)),
        ("half", FieldValue::F64(0.5)),
        ("nothing", text("")),
        ("null", text("")),
        ("list", text(r#"["a",1]"#)),
        ("map", text(r#"{"k":false}"#)),
    ];
    assert_eq!(details.attributes, expected.map(|(key, value)| (key.to_owned(), value)));
    let event = &placed.logs[0];
    assert_eq!(
        (event.message.as_str(), event.level, event.span_id),
        ("exception", Level::Error, Some(span.span_id))
    );
    assert_eq!((event.time_ns, &event.fields[0].1), (100, &text("boom")));
}

#[test]
fn one_bad_span_costs_one_span() {
    let good = span(&json!({}));
    let frame = spans_of(json!([
        good.clone(),
        span(&json!({"traceId": "zz"})),
        span(&json!({"spanId": 5})),
        5,
        null,
        [],
        "text",
        span(&json!({"attributes": {"a": 1}})),
        span(&json!({"startTimeUnixNano": "soon"})),
        good,
    ]));
    let placed = place(Signal::Traces, &frame);
    assert_eq!((placed.spans.len(), placed.rejected), (2, 8));
}

#[test]
fn times_that_cannot_be_are_made_possible() {
    let check = |start: Value, end: Value, expected: (u64, Option<u64>)| {
        let frame = spans_of(json!([span(&json!({"startTimeUnixNano": start, "endTimeUnixNano": end}))]));
        let span = place(Signal::Traces, &frame).spans.remove(0);
        assert_eq!((span.start_ns, span.end_ns), expected);
    };
    check(json!(T + 10), json!(T + 5), (10, Some(10)));
    check(json!(T + 10), json!(0), (10, None));
    check(json!(T + 10), Value::Null, (10, None));
    check(json!(0), json!(T + 5), (0, Some(5)));
    let last = u64::MAX - (ANCHOR.unix_ns - ANCHOR.monotonic_ns);
    check(json!(-1), json!(u64::MAX.to_string()), (0, Some(last)));
}

#[test]
fn logs_and_figures_are_read() {
    let logs = json!({"resourceLogs": [{"resource": {"attributes": []}, "scopeLogs": [{"scope": {}, "logRecords": [
        {"timeUnixNano": (T + 7).to_string(), "severityNumber": 13, "severityText": "WARN", "body": {"stringValue": "careful"},
         "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7",
         "attributes": [{"key": "user", "value": {"intValue": "3"}}]},
        {"observedTimeUnixNano": T + 8, "severityText": "Error", "body": {"kvlistValue": {"values": []}}, "traceId": ""},
        {},
    ]}]}]});
    let placed = place(Signal::Logs, &logs);
    assert_eq!((placed.logs.len(), placed.rejected), (3, 0));
    let first = &placed.logs[0];
    assert_eq!((first.message.as_str(), first.level, first.time_ns), ("careful", Level::Warn, 7));
    assert_eq!(first.worker.name, "sender", "a program that does not say is the sender");
    assert!(first.trace_id.is_some() && first.span_id.is_some());
    assert_eq!(first.fields, [("user".to_owned(), FieldValue::I64(3))]);
    let second = &placed.logs[1];
    assert_eq!(
        (second.message.as_str(), second.level, second.time_ns, second.trace_id),
        ("{}", Level::Error, 8, None)
    );

    let metrics = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "iii.worker.cpu", "unit": "%", "gauge": {"dataPoints": [{"asDouble": 1.5, "timeUnixNano": T}, {"asInt": "7"}]}},
        {"name": "calls", "sum": {"dataPoints": [{"asInt": 3}], "isMonotonic": true, "aggregationTemporality": 2}},
        {"name": "took", "histogram": {"dataPoints": [{"count": "4", "sum": 10.0, "bucketCounts": ["1", "3"]}]}},
        {"name": 5},
    ]}]}]});
    let placed = place(Signal::Metrics, &metrics);
    let points: Vec<_> =
        placed.points.iter().map(|point| (&*point.name, point.kind, point.value, point.count)).collect();
    let expected = [
        ("iii.worker.cpu", PointKind::Gauge, 1.5, None),
        ("iii.worker.cpu", PointKind::Gauge, 7.0, None),
        ("calls", PointKind::Sum, 3.0, None),
        ("took", PointKind::Histogram, 10.0, Some(4)),
    ];
    assert_eq!(points, expected);
    assert_eq!(placed.rejected, 1);
}

#[test]
fn a_frame_that_is_none_is_refused() {
    let too_large = vec![b' '; FRAME_BYTES_MAX + 1];
    for frame in [&b""[..], b"{", b"5", b"[1]", b"{\"resourceSpans\": 5}", b"\xff\xfe", &too_large] {
        assert!(Batch::read(Signal::Traces, Format::Json, frame).is_err());
    }
    for frame in [&b"{}"[..], b"{\"resourceSpans\": null}", b"{\"resourceSpans\": [{}]}", b"{\"other\": [1]}"]
    {
        let batch = Batch::read(Signal::Traces, Format::Json, frame).unwrap();
        assert_eq!(batch.rejected, 0);
    }
    assert!(Batch::read(Signal::Traces, Format::Protobuf, b"\xff\xff").is_err());
    // Deep nesting is refused before it is followed.
    let deep = format!("{}1{}", "{\"arrayValue\":{\"values\":[".repeat(100_000), "]}}".repeat(100_000));
    let frame = spans_of(json!([]));
    let frame = frame.to_string().replace(
        "\"spans\":[]",
        &format!("\"spans\":[{{\"attributes\":[{{\"key\":\"k\",\"value\":{deep}}}]}}]"),
    );
    let batch = Batch::read(Signal::Traces, Format::Json, frame.as_bytes()).unwrap();
    assert_eq!(batch.rejected, 1);
}

#[test]
fn what_is_too_long_is_cut_and_too_many_are_counted() {
    let long = "é".repeat(9_000);
    let many: Vec<Value> =
        (0..200).map(|n| json!({"key": format!("k{n}"), "value": {"stringValue": &long}})).collect();
    let events: Vec<Value> = (0..200).map(|_| json!({"name": "e"})).collect();
    let frame = spans_of(json!([span(&json!({"name": &long, "attributes": many, "events": events}))]));
    let placed = place(Signal::Traces, &frame);
    let first = &placed.spans[0];
    assert!(first.name.len() <= NAME_BYTES_MAX);
    assert!(first.details.as_ref().unwrap().footprint() <= 2 * ATTRIBUTE_BYTES_MAX);
    assert_eq!((placed.logs.len(), placed.rejected), (EVENTS_MAX, 200 - EVENTS_MAX as u64));
    let small = json!({"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7"});
    let placed = place(Signal::Traces, &spans_of(json!(vec![small; ITEMS_MAX + 3])));
    assert_eq!((placed.spans.len(), placed.rejected), (ITEMS_MAX, 3));
    // Each event becomes a log, so that few bytes could push out all that are kept.
    let full = span(&json!({"events": vec![json!({}); EVENTS_MAX]}));
    let placed = place(Signal::Traces, &spans_of(json!(vec![full; ITEMS_MAX / EVENTS_MAX])));
    assert_eq!((placed.spans.len() + placed.logs.len(), placed.rejected), (ITEMS_MAX, 64));
}

#[test]
fn both_formats_say_the_same() {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
    let text = |key: &str, text: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }),
        ..KeyValue::default()
    };
    let ids = (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128, 0x00f0_67aa_0ba9_02b7_u64);
    let proto = TracesData {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "orders")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: "s".to_owned(), ..InstrumentationScope::default() }),
                spans: vec![
                    Span {
                        trace_id: ids.0.to_be_bytes().to_vec(),
                        span_id: ids.1.to_be_bytes().to_vec(),
                        name: "n".to_owned(),
                        kind: 3,
                        start_time_unix_nano: T,
                        end_time_unix_nano: T + 5,
                        attributes: vec![text("a", "b")],
                        status: Some(Status { code: 2, message: "m".to_owned() }),
                        ..Span::default()
                    },
                    Span { trace_id: vec![1, 2], ..Span::default() },
                ],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let batch = Batch::read(Signal::Traces, Format::Protobuf, &proto.encode_to_vec()).unwrap();
    let from_proto = batch.place(&mut Programs::default(), &worker(7, "sender"), ANCHOR);
    let json = json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "orders"}}]},
        "scopeSpans": [{"scope": {"name": "s"}, "spans": [
            {"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "name": "n", "kind": 3,
             "startTimeUnixNano": T.to_string(), "endTimeUnixNano": (T + 5).to_string(),
             "attributes": [{"key": "a", "value": {"stringValue": "b"}}], "status": {"code": 2, "message": "m"}},
            {"traceId": "0102"},
        ]}],
    }]});
    let from_json = place(Signal::Traces, &json);
    assert_eq!(from_proto.spans, from_json.spans);
    assert_eq!((from_proto.rejected, from_json.rejected), (1, 1));
}

#[test]
fn a_worker_cannot_pass_for_another_and_programs_are_told_apart() {
    let mut programs = Programs::default();
    let mut who = |sender: u64, name: &str, instance: &str| {
        let program = model::Program {
            service_name: name.to_owned(),
            instance: instance.to_owned(),
            ..model::Program::default()
        };
        programs.find(&worker(sender, "sender"), &program).id
    };
    assert_eq!(who(7, "sender", "x"), WorkerId::new(7));
    assert_eq!(who(7, "", ""), WorkerId::new(7));
    let orders = who(7, "orders", "1");
    assert_eq!(who(7, "orders", "1"), orders);
    for other in [who(7, "orders", "2"), who(7, "mails", "1"), who(8, "orders", "1"), WorkerId::new(7)] {
        assert_ne!(other, orders);
    }
}

#[test]
fn the_collector_puts_it_beside_what_rings_bring() {
    let mut collector = Collector::new(StoreLimits::default(), ANCHOR, None);
    collector.worker_attached((*worker(7, "sender")).clone());
    let frame = spans_of(json!([
        span(
            &json!({"attributes": [{"key": "iii.function.id", "value": {"stringValue": "orders::create"}}]})
        ),
        span(&json!({"spanId": "0000000000000000"})),
    ]));
    let read = || Batch::read(Signal::Traces, Format::Json, frame.to_string().as_bytes()).unwrap();
    let counts = collector.ingest_batch(WorkerId::new(7), read(), 10).unwrap();
    assert_eq!(counts, IngestedCounts { spans: 1, rejected: 1, ..IngestedCounts::default() });
    assert!(collector.ingest_batch(WorkerId::new(8), read(), 10).is_err());
    let trace: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
    let record = collector.store().trace(trace).unwrap();
    assert_eq!(record.spans[0].span_id, "00f067aa0ba902b7".parse::<SpanId>().unwrap());
    let shaped = crate::waterfall::otel::OtelSpan::new(&record.spans[0], &[], ANCHOR);
    let shaped = serde_json::to_value(shaped).unwrap();
    let attributes = shaped["attributes"].as_array().unwrap();
    assert!(attributes.contains(&json!(["iii.function.id", "orders::create"])), "{shaped}");
    assert_eq!(shaped["instrumentation_scope_name"], "@iii-dev/helpers");
    let metrics = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "g", "gauge": {"dataPoints": [{"asInt": 1, "timeUnixNano": T + 999_999}, {"asInt": 2}]}}]}]}]});
    let batch = Batch::read(Signal::Metrics, Format::Json, metrics.to_string().as_bytes()).unwrap();
    assert_eq!(collector.ingest_batch(WorkerId::new(7), batch, 10).unwrap().points, 2);
    let points: Vec<_> = collector.store().points().collect();
    assert_eq!((points.len(), points[0].value), (1, 2.0), "the latest of a series is kept");
    assert_eq!((collector.store().counters().series, collector.counters().rejected), (1, 1));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), from in 0..200usize) {
        let whole = spans_of(json!([span(&json!({}))])).to_string().into_bytes();
        let mut spliced = whole.clone();
        let from = from.min(spliced.len());
        let to = (from + bytes.len()).min(spliced.len());
        spliced.splice(from..to, bytes.iter().copied());
        for frame in [&bytes, &spliced] {
            for signal in [Signal::Traces, Signal::Logs, Signal::Metrics] {
                for format in [Format::Json, Format::Protobuf] {
                    if let Ok(batch) = Batch::read(signal, format, frame) {
                        batch.place(&mut Programs::default(), &worker(7, "sender"), ANCHOR);
                    }
                }
            }
        }
    }
}
