//! What there is: topics and queues with their counts, and which of them have dead messages. Reads only; it must not know
//! what the dead messages are.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringway::{Context, Function, HandlerResult};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::check_name;
use crate::config::QueueSettings;
use crate::driver::{Core, Driver};
use crate::machine::Counts;
use crate::record::Mode;
use crate::topics::TOPIC;

/// What iii calls the kind of transport.
const BROKER: &str = "ringway";

#[derive(Debug, Default, Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Debug, Serialize, JsonSchema)]
struct Topic {
    name: String,
    broker_type: &'static str,
    /// Functions that get what comes: durable subscribers of a topic, bindings of a queue.
    subscriber_count: usize,
    /// Whether it takes and gives.
    mode: Mode,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
struct TopicRequest {
    /// The topic or queue.
    #[serde(default, alias = "queue")]
    topic: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Stats {
    /// Messages that are to be delivered, those under way included.
    depth: usize,
    /// Calls that may be under way at once.
    consumer_count: usize,
    dlq_depth: usize,
    /// The settings; of a topic with several subscribers, those of the first.
    config: QueueSettings,
    mode: Mode,
    /// The store takes nothing at the moment, so that nothing is delivered from any queue until it does.
    stalled: bool,
    waiting: usize,
    delayed: usize,
    /// Messages whose function is not there.
    parked: usize,
    running: usize,
    /// Calls of `queue::wait` for messages of it.
    waiters: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct DeadTopic {
    topic: String,
    broker_type: &'static str,
    message_count: usize,
}

/// Queues of the machine under the names that users know them by.
fn by_name(core: &Core) -> BTreeMap<String, Vec<Arc<str>>> {
    let owner: BTreeMap<&str, &str> =
        core.topics.iter().map(|(topic, _, record)| (record.queue.as_str(), topic)).collect();
    let mut named: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
    for queue in core.machine.names() {
        let topic = owner.get(&*queue).copied();
        let name = topic.or_else(|| queue.strip_prefix(TOPIC)).unwrap_or(&queue).to_owned();
        named.entry(name).or_default().push(queue);
    }
    named
}

/// A function that reads the core and changes nothing.
fn asked<Request, Reply>(
    driver: &Driver,
    id: &str,
    answer: fn(&Core, Request) -> HandlerResult<Reply>,
) -> Function
where
    Request: DeserializeOwned + JsonSchema + Send + 'static,
    Reply: Serialize + JsonSchema + Send + 'static,
{
    let driver = driver.clone();
    Function::json_async(id, move |_: Context, request: Request| {
        let driver = driver.clone();
        async move { driver.ask(move |core, give| give.give(answer(core, request))).await }
    })
    .idempotent()
}

pub(super) fn topics(driver: &Driver, id: &str) -> Function {
    asked(driver, id, |core, _: Option<Nothing>| {
        let subscribers = core.topics.count();
        let topic = |(name, queues): (String, Vec<Arc<str>>)| {
            let bound: usize = queues.iter().map(|queue| core.bound_to(queue)).sum();
            let subscriber_count = subscribers.get(&name).copied().unwrap_or(bound);
            // The queue in which a topic's messages wait before it has a subscriber is the first.
            let mode = queues.first().map_or(Mode::Active, |queue| core.machine.settings(queue).1);
            Topic { name, broker_type: BROKER, subscriber_count, mode }
        };
        Ok(by_name(core).into_iter().map(topic).collect::<Vec<_>>())
    })
    .description("lists queues and topics")
}

pub(super) fn stats(driver: &Driver, id: &str) -> Function {
    asked(driver, id, |core, request: TopicRequest| {
        check_name("topic", &request.topic, "topic_required")?;
        Ok(stats_of(core, &request.topic))
    })
    .description("counts the messages of a queue or topic")
}

fn stats_of(core: &Core, name: &str) -> Stats {
    let queues = core.resolve(name);
    let counts: Vec<Counts> = queues.iter().map(|queue| core.machine.counts(queue)).collect();
    let sum = |count: fn(&Counts) -> usize| counts.iter().map(count).sum::<usize>();
    let first = queues.first().map_or(name, String::as_str);
    let (config, mode) = core.machine.settings(first);
    let (waiting, delayed, parked, running) =
        (sum(|of| of.waiting), sum(|of| of.delayed), sum(|of| of.parked), sum(|of| of.running));
    Stats {
        depth: waiting + delayed + parked + running,
        consumer_count: config.concurrency,
        dlq_depth: sum(|of| of.dead),
        config,
        mode,
        stalled: core.machine.is_stalled(),
        waiting,
        delayed,
        parked,
        running,
        waiters: core.waits.count(&queues),
    }
}

pub(super) fn dead_topics(driver: &Driver, id: &str) -> Function {
    asked(driver, id, |core, _: Option<Nothing>| {
        let topic = |(topic, queues): (String, Vec<Arc<str>>)| {
            let message_count: usize = queues.iter().map(|queue| core.machine.counts(queue).dead).sum();
            (message_count > 0).then_some(DeadTopic { topic, broker_type: BROKER, message_count })
        };
        Ok(by_name(core).into_iter().filter_map(topic).collect::<Vec<_>>())
    })
    .description("lists queues and topics that have dead messages")
}
