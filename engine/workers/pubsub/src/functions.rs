//! The functions of this worker: `publish`, and `pubsub::list`. It must not know how messages are delivered.

use std::sync::Arc;

use ringway::{Context, Failure, Function};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::broker::Broker;
use crate::pattern::TOPIC_BYTES_MAX;

/// What is published, and where.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PublishRequest {
    /// The topic; segments are cut at `.` and `/`.
    #[serde(default)]
    pub topic: Option<String>,
    /// What subscribers are given, as it is. Default: null.
    #[serde(default)]
    pub data: Value,
}

/// Nothing is wanted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListRequest {}

/// The subscriptions that are bound, by id.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ListResponse {
    /// The subscriptions.
    pub subscriptions: Vec<SubscriptionView>,
}

/// A subscription. Messages are counted since it was bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubscriptionView {
    /// The trigger's id.
    pub id: String,
    /// What it wants.
    pub topic: String,
    /// The function that is called.
    pub function_id: String,
    /// Messages that wait.
    pub waiting: usize,
    /// Messages whose publishers wait for room.
    pub blocked: usize,
    /// Whether one is being delivered.
    pub delivering: bool,
    /// Messages that the function has taken.
    pub delivered: u64,
    /// Messages that its condition did not want.
    pub skipped: u64,
    /// Messages left out because the queue was full.
    pub dropped: u64,
    /// Messages with which the function failed.
    pub failed: u64,
    /// How it failed last, if it has not taken one since.
    pub last_error: Option<String>,
}

/// What is registered, over one broker.
pub(crate) fn all(broker: &Arc<Broker>) -> Vec<Function> {
    vec![publish(Arc::clone(broker)), list(Arc::clone(broker))]
}

fn publish(broker: Arc<Broker>) -> Function {
    Function::json_async("publish", move |context: Context, request: PublishRequest| {
        // Into the queues where the call arrives, so that they see the messages of one publisher in its order.
        let published = checked(request).map(|(topic, data)| broker.publish(topic, data, context.trace()));
        async move {
            for blocked in published? {
                blocked.admitted().await;
            }
            Ok(())
        }
    })
    .description(
        "Gives a message to every subscription that wants its topic; answers when it is in their queues",
    )
}

fn checked(request: PublishRequest) -> Result<(String, Value), Failure> {
    let topic = request.topic.unwrap_or_default();
    if topic.is_empty() {
        return Err(Failure::with_code(
            "topic_not_set",
            "`topic` is missing or empty; where to publish is wanted",
        ));
    }
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(Failure::invalid(format!(
            "`topic` has {} bytes, at most {TOPIC_BYTES_MAX} are taken",
            topic.len()
        )));
    }
    Ok((topic, request.data))
}

fn list(broker: Arc<Broker>) -> Function {
    let handler = move |_: &_, _: Option<ListRequest>| Ok(ListResponse { subscriptions: broker.list() });
    Function::json("pubsub::list", handler)
        .description("The subscriptions that are bound: what waits, was delivered, left out, failed")
        .idempotent()
}
