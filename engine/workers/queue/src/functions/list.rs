//! What there is: topics and queues with their counts, dead messages with what happened to them. Reads only.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringway::{Context, Function, HandlerResult, TraceContext};
use ringway_store::{Scan, Store};
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{check_name, unreadable};
use crate::config::QueueSettings;
use crate::driver::{Core, Driver};
use crate::machine::Counts;
use crate::record::{self, AttemptRecord, DeadRecord, Mode, Place};
use crate::runner::read_parts;
use crate::topics::TOPIC;

/// Dead messages that are listed at once.
const LIMIT_MAX: usize = 1000;

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
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
struct TopicRequest {
    /// The topic or queue.
    #[serde(default, alias = "queue")]
    topic: String,
    /// How many of the newest to leave out. Default 0.
    #[serde(default)]
    offset: usize,
    /// How many to return. Default 50, at most 1000.
    #[serde(default)]
    limit: Option<usize>,
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

#[derive(Debug, Serialize, JsonSchema)]
struct DeadMessage {
    id: String,
    queue: String,
    function_id: Option<String>,
    /// The data; null where it lies in a blob.
    #[schemars(with = "Value")]
    payload: Option<Box<RawValue>>,
    /// The blob with the data, for `blob::get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<String>,
    /// The last error: its code and its message.
    error: String,
    /// When it died, in seconds since 1970.
    failed_at: u64,
    /// Attempts that failed.
    retries: u32,
    size_bytes: u64,
    /// The trace that it belongs to.
    trace_id: Option<String>,
    /// The last attempts, at most 20.
    attempts: Vec<Attempt>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Attempt {
    number: u32,
    /// When it failed, in milliseconds since 1970.
    at_ms: u64,
    code: String,
    message: String,
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
            Topic { name, broker_type: BROKER, subscriber_count }
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

pub(super) fn dead_messages(driver: &Driver, id: &str) -> Function {
    let driver = driver.clone();
    Function::json_async(id, move |_: Context, request: TopicRequest| {
        let driver = driver.clone();
        async move {
            check_name("topic", &request.topic, "topic_required")?;
            let name = request.topic;
            let (queues, store) = driver
                .ask(move |core, answer| answer.give(Ok((core.resolve(&name), Arc::clone(&core.store)))))
                .await?;
            read_dead(&*store, &queues, request.offset, request.limit.unwrap_or(50).min(LIMIT_MAX))
        }
    })
    .description("lists the dead messages of a queue or topic, the newest first")
    .idempotent()
}

fn read_dead(
    store: &dyn Store,
    queues: &[String],
    offset: usize,
    limit: usize,
) -> HandlerResult<Vec<DeadMessage>> {
    const CODE: &str = "dlq_messages_failed";
    let snapshot = store.snapshot().map_err(|error| store_failure(CODE, &error))?;
    let mut found = Vec::new();
    for queue in queues {
        let scan = Scan::table(record::DEAD).prefix(&record::queue_prefix(queue)).reverse();
        let entries = snapshot.scan(&scan.limit(offset.saturating_add(limit)));
        found.extend(entries.map_err(|error| store_failure(CODE, &error))?);
    }
    let mut listed = Vec::new();
    for entry in found.into_iter().skip(offset).take(limit) {
        let (place, _) = Place::parse(record::DEAD, &entry.key).map_err(|error| unreadable(CODE, &error))?;
        let dead = record::decode::<DeadRecord>(record::DEAD, &entry.key, &entry.value.bytes);
        let dead = dead.map_err(|error| unreadable(CODE, &error))?;
        let scan = Scan::table(record::ATTEMPT).prefix(&place.key());
        let attempts = snapshot.scan(&scan).map_err(|error| store_failure(CODE, &error))?;
        let attempts = attempts.iter().filter_map(|entry| attempt(&entry.key, &entry.value.bytes)).collect();
        let message = read_parts(store, &place).map_err(|error| unreadable(CODE, &error))?;
        // It may have been redriven since the snapshot.
        let Some((head, payload)) = message else { continue };
        let trace = head.trace.as_deref().and_then(|trace| trace.parse::<TraceContext>().ok());
        listed.push(DeadMessage {
            id: head.receipt.clone().unwrap_or_else(|| place.id()),
            queue: place.queue.to_string(),
            function_id: head.function,
            error: format!("{}: {}", dead.code, dead.message),
            failed_at: dead.at_ms / 1000,
            retries: dead.attempts,
            size_bytes: head.blob.map_or_else(
                || payload.as_ref().map_or(0, |payload| payload.get().len() as u64),
                |blob| blob.bytes,
            ),
            blob: head.blob.map(|blob| blob.id.to_string()),
            trace_id: trace.map(|trace| trace.trace_id.to_string()),
            payload,
            attempts,
        });
    }
    Ok(listed)
}

fn attempt(key: &[u8], value: &[u8]) -> Option<Attempt> {
    let (_, rest) = Place::parse(record::ATTEMPT, key).ok()?;
    let number = u32::from_be_bytes(rest.try_into().ok()?);
    let AttemptRecord { at_ms, code, message, .. } = record::decode(record::ATTEMPT, key, value).ok()?;
    Some(Attempt { number, at_ms, code, message })
}
