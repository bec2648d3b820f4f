//! OTLP as JSON: ids in hex, 64-bit numbers as strings or numbers, anything left out or null. Each span, log and figure is
//! read by itself, so that one that is wrong takes nothing with it. See the parent for what this must not know.

use std::borrow::Cow;
use std::fmt;

use ringway_protocol::{SpanId, TraceId};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::model::{Any, Attributes, OfferedEvent, OfferedLog, OfferedPoint, OfferedSpan, Reading};
use super::model::{STATUS_FAILED, cut, kind, level};
use super::{NAME_BYTES_MAX, Signal, VALUE_BYTES_MAX};
use crate::store::PointKind;

/// The three signals have the same shape: resources, scopes, items.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default, rename = "resourceSpans", alias = "resourceLogs", alias = "resourceMetrics")]
    resources: Option<Vec<Resource<'a>>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "scopeSpans", alias = "scopeLogs", alias = "scopeMetrics")]
    scopes: Option<Vec<Scope<'a>>>,
}

#[derive(Deserialize)]
struct Scope<'a> {
    #[serde(borrow, default)]
    scope: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "spans", alias = "logRecords", alias = "metrics")]
    items: Option<Vec<&'a RawValue>>,
}

/// What has attributes, and perhaps a name.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    attributes: Option<Vec<KeyValue<'a>>>,
}

#[derive(Deserialize)]
struct KeyValue<'a> {
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Option<AnyValue<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AnyValue<'a> {
    #[serde(borrow)]
    string_value: Option<Cow<'a, str>>,
    bool_value: Option<bool>,
    int_value: Option<Number>,
    double_value: Option<Number>,
    #[serde(borrow)]
    array_value: Option<ArrayValue<'a>>,
    #[serde(borrow)]
    kvlist_value: Option<ListValue<'a>>,
    #[serde(borrow)]
    bytes_value: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ArrayValue<'a> {
    #[serde(borrow)]
    values: Option<Vec<AnyValue<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ListValue<'a> {
    #[serde(borrow)]
    values: Option<Vec<KeyValue<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    trace_id: TraceId,
    span_id: SpanId,
    #[serde(borrow, default)]
    parent_span_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    kind: Option<Number>,
    #[serde(default)]
    start_time_unix_nano: Option<Number>,
    #[serde(default)]
    end_time_unix_nano: Option<Number>,
    #[serde(borrow, default)]
    attributes: Option<Vec<KeyValue<'a>>>,
    #[serde(borrow, default)]
    events: Option<Vec<EventJson<'a>>>,
    #[serde(borrow, default)]
    status: Option<StatusJson<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    time_unix_nano: Option<Number>,
    #[serde(borrow, default)]
    attributes: Option<Vec<KeyValue<'a>>>,
}

#[derive(Deserialize)]
struct StatusJson<'a> {
    #[serde(default)]
    code: Option<Number>,
    #[serde(borrow, default)]
    message: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct LogJson<'a> {
    time_unix_nano: Option<Number>,
    observed_time_unix_nano: Option<Number>,
    severity_number: Option<Number>,
    #[serde(borrow)]
    severity_text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body: Option<AnyValue<'a>>,
    #[serde(borrow)]
    attributes: Option<Vec<KeyValue<'a>>>,
    #[serde(borrow)]
    trace_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    span_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct MetricJson<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unit: Option<Cow<'a, str>>,
    #[serde(borrow)]
    gauge: Option<Points<'a>>,
    #[serde(borrow)]
    sum: Option<Points<'a>>,
    #[serde(borrow, alias = "exponentialHistogram", alias = "summary")]
    histogram: Option<Points<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Points<'a> {
    #[serde(borrow)]
    data_points: Option<Vec<PointJson<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PointJson<'a> {
    time_unix_nano: Option<Number>,
    as_double: Option<Number>,
    as_int: Option<Number>,
    sum: Option<Number>,
    count: Option<Number>,
    #[serde(borrow)]
    attributes: Option<Vec<KeyValue<'a>>>,
}

/// A number, or a text that says one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    I64(i64),
    U64(u64),
    F64(f64),
}

impl Number {
    fn u64(self) -> u64 {
        match self {
            Self::I64(value) => u64::try_from(value).unwrap_or(0),
            Self::U64(value) => value,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "stops at the ends")]
            Self::F64(value) => value as u64,
        }
    }

    fn i64(self) -> i64 {
        match self {
            Self::I64(value) => value,
            Self::U64(value) => i64::try_from(value).unwrap_or(i64::MAX),
            #[expect(clippy::cast_possible_truncation, reason = "stops at the ends")]
            Self::F64(value) => value as i64,
        }
    }

    fn f64(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "a figure")]
            Self::I64(value) => value as f64,
            #[expect(clippy::cast_precision_loss, reason = "a figure")]
            Self::U64(value) => value as f64,
            Self::F64(value) => value,
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or a text that says one")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number::I64(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(i64::try_from(value).map_or(Number::U64(value), Number::I64))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number::F64(value))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                let whole = text.parse().map(Number::I64).or_else(|_| text.parse().map(Number::U64));
                let fraction = || text.parse().map(Number::F64);
                whole.or_else(|_| fraction()).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl From<AnyValue<'_>> for Any {
    fn from(value: AnyValue<'_>) -> Self {
        let AnyValue {
            string_value,
            bool_value,
            int_value,
            double_value,
            array_value,
            kvlist_value,
            bytes_value,
        } = value;
        if let Some(text) = string_value.or(bytes_value) {
            Self::Text(text.into_owned())
        } else if let Some(value) = bool_value {
            Self::Bool(value)
        } else if let Some(number) = int_value {
            Self::I64(number.i64())
        } else if let Some(number) = double_value {
            Self::F64(number.f64())
        } else if let Some(array) = array_value {
            let values = array.values.unwrap_or_default().into_iter();
            Self::Json(values.map(|value| Self::from(value).into_json()).collect())
        } else if let Some(list) = kvlist_value {
            let pairs = list.values.unwrap_or_default().into_iter();
            let pair = |pair: KeyValue<'_>| {
                (pair.key.into_owned(), pair.value.map_or(Self::Nothing, Self::from).into_json())
            };
            Self::Json(serde_json::Value::Object(pairs.map(pair).collect()))
        } else {
            Self::Nothing
        }
    }
}

fn attributes(pairs: Option<Vec<KeyValue<'_>>>) -> Attributes {
    let mut attributes = Attributes::default();
    for pair in pairs.unwrap_or_default() {
        attributes.push(&pair.key, pair.value.map_or(Any::Nothing, Any::from));
    }
    attributes
}

fn short(text: Option<Cow<'_, str>>, bytes_max: usize) -> String {
    text.map(|text| cut(&text, bytes_max).to_owned()).unwrap_or_default()
}

fn named(raw: Option<&RawValue>) -> (String, Attributes) {
    // What cannot be read says nothing; the items beside it may be fine.
    let named: Named<'_> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    (short(named.name, NAME_BYTES_MAX), attributes(named.attributes))
}

/// Reads a frame.
pub(super) fn read(signal: Signal, frame: &[u8], reading: &mut Reading) -> Result<(), serde_json::Error> {
    if frame.trim_ascii_start().first() == Some(&b'[') {
        // Read as fields without names otherwise, and thus as an empty frame.
        return Err(serde::de::Error::custom("an object was wanted, this is a list"));
    }
    let frame: Frame<'_> = serde_json::from_slice(frame)?;
    for resource in frame.resources.unwrap_or_default() {
        reading.begin(&named(resource.resource).1);
        for scope in resource.scopes.unwrap_or_default() {
            let name = named(scope.scope).0;
            for item in scope.items.unwrap_or_default() {
                if !reading.admit() {
                    continue;
                }
                let read = match signal {
                    Signal::Traces => span(item, &name, reading),
                    Signal::Logs => log(item, &name, reading),
                    Signal::Metrics => metric(item, reading),
                };
                if read.is_err() {
                    reading.reject();
                }
            }
        }
    }
    Ok(())
}

fn span(item: &RawValue, scope: &str, reading: &mut Reading) -> Result<(), serde_json::Error> {
    let span: SpanJson<'_> = serde_json::from_str(item.get())?;
    let parent_id = span.parent_span_id.and_then(|id| id.parse().ok()).filter(|id: &SpanId| !id.is_none());
    let event = |event: EventJson<'_>| OfferedEvent {
        name: short(event.name, NAME_BYTES_MAX),
        time_ns: event.time_unix_nano.map_or(0, Number::u64),
        attributes: attributes(event.attributes),
    };
    let events = reading.admit_events(span.events.unwrap_or_default());
    let (code, message) = span.status.map_or((None, None), |status| (status.code, status.message));
    reading.program().spans.push(OfferedSpan {
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_id,
        kind: kind(span.kind.map_or(0, Number::i64)),
        name: short(span.name, NAME_BYTES_MAX),
        start_ns: span.start_time_unix_nano.map_or(0, Number::u64),
        end_ns: span.end_time_unix_nano.map_or(0, Number::u64),
        failed: code.is_some_and(|code| code.i64() == STATUS_FAILED),
        message: short(message, VALUE_BYTES_MAX),
        scope: scope.to_owned(),
        attributes: attributes(span.attributes),
        events: events.into_iter().map(event).collect(),
    });
    Ok(())
}

fn log(item: &RawValue, scope: &str, reading: &mut Reading) -> Result<(), serde_json::Error> {
    let log: LogJson<'_> = serde_json::from_str(item.get())?;
    let time = [log.time_unix_nano, log.observed_time_unix_nano].into_iter().flatten().map(Number::u64);
    let number = log.severity_number.map_or(0, Number::i64);
    reading.program().logs.push(OfferedLog {
        time_ns: time.into_iter().find(|time| *time != 0).unwrap_or(0),
        level: level(number, log.severity_text.as_deref().unwrap_or_default()),
        trace_id: log.trace_id.and_then(|id| id.parse().ok()).unwrap_or_default(),
        span_id: log.span_id.and_then(|id| id.parse().ok()).unwrap_or_default(),
        scope: scope.to_owned(),
        message: log.body.map_or(Any::Nothing, Any::from).into_message(),
        attributes: attributes(log.attributes),
    });
    Ok(())
}

fn metric(item: &RawValue, reading: &mut Reading) -> Result<(), serde_json::Error> {
    let metric: MetricJson<'_> = serde_json::from_str(item.get())?;
    let (name, unit) = (short(metric.name, NAME_BYTES_MAX), short(metric.unit, NAME_BYTES_MAX));
    for (points, kind) in [
        (metric.gauge, PointKind::Gauge),
        (metric.sum, PointKind::Sum),
        (metric.histogram, PointKind::Histogram),
    ] {
        for point in points.and_then(|points| points.data_points).unwrap_or_default() {
            if !reading.admit() {
                continue;
            }
            let value = [point.as_double, point.as_int, point.sum].into_iter().flatten().next();
            reading.program().points.push(OfferedPoint {
                name: name.clone(),
                unit: unit.clone(),
                kind,
                time_ns: point.time_unix_nano.map_or(0, Number::u64),
                value: value.map_or(0.0, Number::f64),
                count: point.count.map(Number::u64),
                attributes: attributes(point.attributes),
            });
        }
    }
    Ok(())
}
