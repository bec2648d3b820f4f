//! Calling a job's function: payload and time limit. It must not know why it is called now.

use std::time::Duration;

use jiff::Timestamp;
use ringway::{CallError, CallOptions, Worker};
use ringway_worker_kit::{Binding, Delivered, deliver_async};
use serde_json::{Value, json};

use crate::config::Bound;
use crate::job::Millis;

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
    let mut options = CallOptions::new();
    if let Some(timeout_ms) = binding.config.config.timeout_ms {
        options = options.timeout(Duration::from_millis(timeout_ms));
    }
    deliver_async(worker, binding, payload, options).await
}
