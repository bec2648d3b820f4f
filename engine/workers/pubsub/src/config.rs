//! What can be set: for the worker in `ringway.yaml`, for a subscription in its trigger. It must not know how it is done.

use ringway::{CallError, ErrorCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::pattern::Pattern;

/// The longest queue of a subscription, in messages.
pub const QUEUE_MAX: usize = 1_000_000;

/// The pub/sub worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Messages of each topic that are kept in memory for subscriptions with `replay`. Default: 64.
    pub replay_max: usize,
    /// Bytes of payloads that are kept for that, of all topics together; the oldest go first. Default: 16777216 (16 MiB).
    pub replay_bytes_max: usize,
    /// How long a subscriber's function may take, in milliseconds. Default: 30000.
    pub timeout_ms: u64,
    /// Threads on which calls of functions are begun and ended; none is held while a function runs. Default: 4.
    #[schemars(range(min = 1, max = 1024))]
    pub threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { replay_max: 64, replay_bytes_max: 16 << 20, timeout_ms: 30_000, threads: 4 }
    }
}

/// What happens when a subscriber's queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The message that has waited longest is left out, and counted.
    #[default]
    DropOldest,
    /// The new message is left out for this subscriber, and counted.
    DropNewest,
    /// `publish` answers when there is room.
    Block,
}

/// The configuration of a `subscribe` trigger.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscribeConfig {
    /// The topic. Segments are cut at `.` and `/`; a segment `*` stands for any one, `#` at the end for the rest.
    pub topic: String,
    /// Messages that may wait for the function, from 1 to 1,000,000. Default: 1000.
    #[serde(default = "thousand")]
    pub queue_max: usize,
    /// What happens to a message that comes when so many wait. Default: `drop_oldest`.
    #[serde(default)]
    pub on_full: OnFull,
    /// How many of the last messages that fit are delivered first, as far as they are kept. Default: 0.
    #[serde(default)]
    pub replay: usize,
    /// A function that is asked whether a message is wanted. Default: none.
    #[serde(default)]
    pub condition_function_id: Option<Value>,
    /// An expression that says whether a message is wanted. Default: none.
    #[serde(default)]
    pub condition: Option<Value>,
}

const fn thousand() -> usize {
    1000
}

/// A subscription as it was bound: checked.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) pattern: Pattern,
    pub(crate) config: SubscribeConfig,
}

impl Bound {
    pub(crate) fn parse(value: &Value) -> Result<Self, CallError> {
        let wrong = |message: String| CallError::new(ErrorCode::InvalidRegistration, message);
        let config: SubscribeConfig = serde_json::from_value(value.clone())
            .map_err(|error| wrong(format!("the configuration of a subscription does not fit: {error}")))?;
        if config.queue_max == 0 || config.queue_max > QUEUE_MAX {
            return Err(wrong(format!("`queue_max` is {}, wanted is 1 to {QUEUE_MAX}", config.queue_max)));
        }
        Ok(Self { pattern: Pattern::parse(&config.topic)?, config })
    }
}
