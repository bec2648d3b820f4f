//! Calling a job's function: payload, condition, metadata, time limit. It must not know why it is called now.

use std::time::Duration;

use jiff::Timestamp;
use ringway::{CallError, CallOptions, Worker};
use ringway_worker_kit::{Binding, Condition, Delivered};
use serde_json::{Value, json};

use crate::config::Bound;
use crate::job::Millis;

/// How long a condition's function may take. The job's own function has the time that its trigger says.
const CONDITION_TIMEOUT: Duration = Duration::from_secs(30);

/// What a job's function is given, as iii gives it.
pub(crate) fn payload(id: &str, scheduled: Millis, actual: Millis) -> Value {
    json!({
        "trigger": "cron",
        "job_id": id,
        "scheduled_time": rfc3339(scheduled),
        "actual_time": rfc3339(actual),
    })
}

/// A time in words, UTC.
pub(crate) fn rfc3339(at: Millis) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

/// Calls the function if the condition holds, and waits for its answer without a thread.
///
/// # Errors
/// As the call, or the condition, ended.
pub(crate) async fn deliver(
    worker: &Worker,
    binding: &Binding<Bound>,
    payload: &Value,
) -> Result<Delivered, CallError> {
    let wanted = match &binding.condition {
        Condition::Function(id) => {
            let options = CallOptions::new().timeout(CONDITION_TIMEOUT);
            is_yes(&worker.trigger_json_async(id, payload, &options).await?)
        }
        other => other.holds(worker, payload)?,
    };
    if !wanted {
        return Ok(Delivered::Skipped);
    }
    let mut options = CallOptions::new();
    if let Some(metadata) = &binding.metadata {
        options = options.metadata(metadata.clone());
    }
    if let Some(timeout_ms) = binding.config.config.timeout_ms {
        options = options.timeout(Duration::from_millis(timeout_ms));
    }
    worker.trigger_json_async(&binding.function_id, payload, &options).await.map(Delivered::Answered)
}

/// The answer of a condition's function, as the kit reads it.
fn is_yes(answer: &Value) -> bool {
    match answer {
        Value::Null => false,
        Value::Bool(answer) => *answer,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}
