//! OTLP as protobuf. See the parent for what this must not know.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, LogsData};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, MetricsData, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, TracesData, span::Event};
use prost::{DecodeError, Message};
use ringway_protocol::{SpanId, TraceId};

use super::model::{Any, Attributes, OfferedEvent, OfferedLog, OfferedPoint, OfferedSpan, Reading};
use super::model::{STATUS_FAILED, cut, kind, level};
use super::{NAME_BYTES_MAX, Signal, VALUE_BYTES_MAX};
use crate::store::PointKind;

/// Reads a frame.
pub(super) fn read(signal: Signal, frame: &[u8], reading: &mut Reading) -> Result<(), DecodeError> {
    match signal {
        Signal::Traces => traces(TracesData::decode(frame)?, reading),
        Signal::Logs => logs(LogsData::decode(frame)?, reading),
        Signal::Metrics => metrics(MetricsData::decode(frame)?, reading),
    }
    Ok(())
}

fn traces(data: TracesData, reading: &mut Reading) {
    for resource in data.resource_spans {
        begin(resource.resource, reading);
        for spans in resource.scope_spans {
            let scope = scope(spans.scope);
            for item in spans.spans {
                if !reading.admit() {
                    continue;
                }
                match span(item, &scope, reading) {
                    Some(span) => reading.program().spans.push(span),
                    None => reading.reject(),
                }
            }
        }
    }
}

fn logs(data: LogsData, reading: &mut Reading) {
    for resource in data.resource_logs {
        begin(resource.resource, reading);
        for logs in resource.scope_logs {
            let scope = scope(logs.scope);
            for item in logs.log_records {
                if reading.admit() {
                    reading.program().logs.push(log(item, &scope));
                }
            }
        }
    }
}

fn metrics(data: MetricsData, reading: &mut Reading) {
    for resource in data.resource_metrics {
        begin(resource.resource, reading);
        for metrics in resource.scope_metrics {
            for item in metrics.metrics {
                for point in points(item) {
                    if reading.admit() {
                        reading.program().points.push(point);
                    }
                }
            }
        }
    }
}

fn begin(resource: Option<Resource>, reading: &mut Reading) {
    reading.begin(&attributes(resource.map(|resource| resource.attributes).unwrap_or_default()));
}

fn scope(scope: Option<InstrumentationScope>) -> String {
    scope.map(|scope| short(&scope.name, NAME_BYTES_MAX)).unwrap_or_default()
}

fn short(text: &str, bytes_max: usize) -> String {
    cut(text, bytes_max).to_owned()
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    let mut attributes = Attributes::default();
    for pair in pairs {
        attributes.push(&pair.key, any(pair.value));
    }
    attributes
}

fn any(value: Option<AnyValue>) -> Any {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => Any::Text(text),
        Some(Value::BoolValue(value)) => Any::Bool(value),
        Some(Value::IntValue(value)) => Any::I64(value),
        Some(Value::DoubleValue(value)) => Any::F64(value),
        Some(Value::ArrayValue(array)) => {
            Any::Json(array.values.into_iter().map(|value| any(Some(value)).into_json()).collect())
        }
        Some(Value::KvlistValue(list)) => {
            let pair = |pair: KeyValue| (pair.key, any(pair.value).into_json());
            Any::Json(serde_json::Value::Object(list.values.into_iter().map(pair).collect()))
        }
        Some(Value::BytesValue(bytes)) => Any::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        _ => Any::Nothing,
    }
}

fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    bytes.try_into().ok().map(TraceId::from_bytes)
}

fn span_id(bytes: &[u8]) -> Option<SpanId> {
    bytes.try_into().ok().map(SpanId::from_bytes)
}

fn span(span: Span, scope: &str, reading: &mut Reading) -> Option<OfferedSpan> {
    let event = |event: Event| OfferedEvent {
        name: short(&event.name, NAME_BYTES_MAX),
        time_ns: event.time_unix_nano,
        attributes: attributes(event.attributes),
    };
    let status = span.status.unwrap_or_default();
    Some(OfferedSpan {
        trace_id: trace_id(&span.trace_id)?,
        span_id: span_id(&span.span_id)?,
        parent_id: span_id(&span.parent_span_id).filter(|id| !id.is_none()),
        kind: kind(span.kind.into()),
        name: short(&span.name, NAME_BYTES_MAX),
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        failed: i64::from(status.code) == STATUS_FAILED,
        message: short(&status.message, VALUE_BYTES_MAX),
        scope: scope.to_owned(),
        attributes: attributes(span.attributes),
        events: reading.admit_events(span.events).into_iter().map(event).collect(),
    })
}

fn log(log: LogRecord, scope: &str) -> OfferedLog {
    let time_ns = if log.time_unix_nano == 0 { log.observed_time_unix_nano } else { log.time_unix_nano };
    OfferedLog {
        time_ns,
        level: level(log.severity_number.into(), &log.severity_text),
        trace_id: trace_id(&log.trace_id).unwrap_or_default(),
        span_id: span_id(&log.span_id).unwrap_or_default(),
        scope: scope.to_owned(),
        message: any(log.body).into_message(),
        attributes: attributes(log.attributes),
    }
}

fn points(metric: Metric) -> Vec<OfferedPoint> {
    let (name, unit) = (short(&metric.name, NAME_BYTES_MAX), short(&metric.unit, NAME_BYTES_MAX));
    let point = |kind, time_ns, value, count, pairs| OfferedPoint {
        name: name.clone(),
        unit: unit.clone(),
        kind,
        time_ns,
        value,
        count,
        attributes: attributes(pairs),
    };
    let numbers = |kind, points: Vec<opentelemetry_proto::tonic::metrics::v1::NumberDataPoint>| {
        let number = |found: opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
            let value = match found.value {
                Some(number_data_point::Value::AsDouble(value)) => value,
                #[expect(clippy::cast_precision_loss, reason = "a figure")]
                Some(number_data_point::Value::AsInt(value)) => value as f64,
                None => 0.0,
            };
            point(kind, found.time_unix_nano, value, None, found.attributes)
        };
        points.into_iter().map(number).collect()
    };
    let many = PointKind::Histogram;
    match metric.data {
        Some(Data::Gauge(gauge)) => numbers(PointKind::Gauge, gauge.data_points),
        Some(Data::Sum(sum)) => numbers(PointKind::Sum, sum.data_points),
        Some(Data::Histogram(histogram)) => (histogram.data_points.into_iter())
            .map(|of| point(many, of.time_unix_nano, of.sum.unwrap_or(0.0), Some(of.count), of.attributes))
            .collect(),
        Some(Data::ExponentialHistogram(histogram)) => (histogram.data_points.into_iter())
            .map(|of| point(many, of.time_unix_nano, of.sum.unwrap_or(0.0), Some(of.count), of.attributes))
            .collect(),
        Some(Data::Summary(summary)) => (summary.data_points.into_iter())
            .map(|of| point(many, of.time_unix_nano, of.sum, Some(of.count), of.attributes))
            .collect(),
        None => Vec::new(),
    }
}
