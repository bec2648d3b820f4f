//! Calling what is bound. It must not know why, nor how often it is tried.

use ringway::{CallError, CallOptions, Worker};
use serde_json::Value;

use crate::bindings::Binding;

/// What came of an event for one binding.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivered {
    /// Its condition does not hold.
    Skipped,
    /// The function's answer.
    Answered(Value),
}

/// Calls the bound function with an event's payload if the condition holds, and waits for its answer. The trigger's own
/// metadata goes along unless `options` hold some.
///
/// # Errors
/// As the call, or the condition, ended.
pub fn deliver<C>(
    worker: &Worker,
    binding: &Binding<C>,
    payload: &Value,
    options: CallOptions,
) -> Result<Delivered, CallError> {
    if !binding.condition.holds(worker, payload)? {
        return Ok(Delivered::Skipped);
    }
    let options = match &binding.metadata {
        Some(metadata) if !options.has_metadata() => options.metadata(metadata.clone()),
        _ => options,
    };
    worker.trigger_json_with(&binding.function_id, payload, &options).map(Delivered::Answered)
}

/// As [`deliver`], without a thread that waits.
///
/// # Errors
/// As the call, or the condition, ended.
pub async fn deliver_async<C>(
    worker: &Worker,
    binding: &Binding<C>,
    payload: &Value,
    options: CallOptions,
) -> Result<Delivered, CallError> {
    if !binding.condition.holds_async(worker, payload).await? {
        return Ok(Delivered::Skipped);
    }
    let options = match &binding.metadata {
        Some(metadata) if !options.has_metadata() => options.metadata(metadata.clone()),
        _ => options,
    };
    worker.trigger_json_async(&binding.function_id, payload, &options).await.map(Delivered::Answered)
}
