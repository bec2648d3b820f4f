//! Calling what is bound. It must not know why, nor how often it is tried.

use ringway::{CallError, CallOptions, Worker};
use serde_json::Value;

use crate::bindings::Binding;

/// How long to wait after so many attempts have failed, in milliseconds: `first` for none yet, then twice as long each
/// time, and at most `max`.
#[must_use]
pub fn pause_ms(first: u64, max: u64, failures: u32) -> u64 {
    let factor = 1_u64.checked_shl(failures).unwrap_or(u64::MAX);
    first.saturating_mul(factor).min(max)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_its_limit() {
        let pauses = [0, 1, 2, 3, 9, 63, 64, u32::MAX].map(|failures| pause_ms(100, 30_000, failures));
        assert_eq!(pauses, [100, 200, 400, 800, 30_000, 30_000, 30_000, 30_000]);
        assert_eq!(pause_ms(0, 30_000, 64), 0);
    }
}
