//! What a handler knows when a queue delivers to it. Read from the metadata of the call, which the queue writes. It must
//! not know whether that is true: whoever acts on a lease asks the queue, which checks the token.

use serde::Deserialize;

use crate::context::Context;

/// A delivery of a queue: which message, which attempt, under which lease.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Delivery {
    /// The queue.
    pub queue: String,
    /// The message's id: the same at every attempt.
    pub message_id: String,
    /// Its message group, or whose share of the queue it takes.
    #[serde(default)]
    pub group: Option<String>,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// How many there are at most.
    pub attempts_max: u32,
    /// Rises with each attempt, over restarts too: whoever keeps the highest that he saw can refuse a late one.
    pub fencing_token: u64,
    /// When it was enqueued, in milliseconds since 1970.
    pub enqueued_at_ms: u64,
}

impl Context {
    /// The delivery that this call is, if a queue made it. Costs a copy of its texts. How long the attempt may take says
    /// [`Context::remaining`].
    #[must_use]
    pub fn delivery(&self) -> Option<Delivery> {
        Delivery::deserialize(self.metadata()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_a_queue_writes_is_a_delivery() {
        let whole = json!({
            "queue": "q", "message_id": "q:1", "group": "g", "attempt": 2, "attempts_max": 4, "status": "retry",
            "fencing_token": 9, "enqueued_at_ms": 5, "trigger": { "x": 1 },
        });
        let read = Delivery::deserialize(&whole).unwrap();
        assert_eq!((read.attempt, read.group.as_deref(), read.fencing_token), (2, Some("g"), 9));
        assert!(Delivery::deserialize(&json!({ "attempt": 1 })).is_err());
    }
}
