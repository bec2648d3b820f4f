//! Functions that iii's SDKs call of the engine and that nobody else here serves: logs by a call, and what is told of
//! baggage. It must not know connections.

use std::time::{SystemTime, UNIX_EPOCH};

use ringway::protocol::naming;
use ringway::{CallOptions, Context, Encoding, Function, HandlerResult, Message};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Levels of `engine::log::…`, with OpenTelemetry's numbers.
const LEVELS: &[(&str, u8)] = &[("trace", 1), ("debug", 5), ("info", 9), ("warn", 13), ("error", 17)];

/// A line of a log.
#[derive(Debug, Deserialize, JsonSchema)]
struct Line {
    /// What happened.
    message: String,
    /// The trace that it belongs to; the call's own unless given.
    #[serde(default)]
    trace_id: Option<String>,
    /// The span that it belongs to.
    #[serde(default)]
    span_id: Option<String>,
    /// More about it.
    #[serde(default)]
    data: Option<Value>,
    /// Whose line it is.
    #[serde(default)]
    service_name: Option<String>,
}

/// A key of the baggage.
#[derive(Debug, Deserialize, JsonSchema)]
struct Key {
    key: String,
}

/// The functions, for the listener's own worker.
pub(crate) fn all() -> Vec<Function> {
    let mut functions: Vec<Function> = LEVELS
        .iter()
        .map(|(level, number)| {
            let log = move |context: &Context, line: Line| log(context, level, *number, &line);
            Function::json(&format!("{}{level}", naming::LOG_PREFIX), log)
                .pooled()
                .internal()
                .description("Writes a line into the log")
        })
        .collect();
    functions.push(
        Function::json("engine::baggage::get", |context, asked: Key| {
            let value = context.baggage().and_then(|baggage| baggage.get(&asked.key)).map(str::to_owned);
            Ok(json!({ "value": value }))
        })
        .internal()
        .description("Tells one entry of the call's baggage"),
    );
    functions.push(
        Function::json("engine::baggage::set", |_, _: Value| {
            Ok(json!({"success": true, "note": "baggage travels with each call; set it where the call is made"}))
        })
        .internal()
        .description("Tells how baggage is set"),
    );
    functions.push(
        Function::json("engine::baggage::get_all", |context, _: Value| {
            let members = context.baggage().map(ringway::Baggage::members).unwrap_or_default();
            let all: Map<String, Value> =
                members.iter().map(|member| (member.key.clone(), member.value.as_str().into())).collect();
            Ok(json!({ "baggage": all }))
        })
        .internal()
        .description("Tells the call's baggage"),
    );
    functions
}

/// Hands a line over as an SDK's own exporter would.
fn log(context: &Context, level: &str, number: u8, line: &Line) -> HandlerResult<Value> {
    let trace = context.trace();
    let valid = trace.is_valid();
    let trace_id = line.trace_id.clone().or_else(|| valid.then(|| trace.trace_id.to_string()));
    let span_id = line.span_id.clone().or_else(|| valid.then(|| trace.span_id.to_string()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let text = |key: &str, text: &str| json!({"key": key, "value": {"stringValue": text}});
    let data = line.data.iter().map(|data| text("data", &data.to_string()));
    let record = json!({
        "timeUnixNano": now, "observedTimeUnixNano": now,
        "severityNumber": number, "severityText": level.to_uppercase(),
        "body": {"stringValue": line.message},
        "attributes": data.collect::<Vec<_>>(),
        "traceId": trace_id.unwrap_or_default(), "spanId": span_id.unwrap_or_default(),
    });
    let service = text("service.name", line.service_name.as_deref().unwrap_or("iii"));
    let frame = json!({"resourceLogs": [{"resource": {"attributes": [service]},
        "scopeLogs": [{"scope": {"name": "engine::log"}, "logRecords": [record]}]}]});
    let options = CallOptions::new().metadata(json!({"signal": "logs"}));
    let message = Message::from_vec(Encoding::Json, frame.to_string().into_bytes());
    context.worker().handle(naming::TELEMETRY_INGEST).call_with(&message, &options)?;
    Ok(Value::Null)
}
