//! Taking messages: `queue::enqueue`, iii's `engine::queue::enqueue`, and `iii::durable::publish`. A message that was
//! taken before, by its id or its idempotency key, is not taken again. Nothing is answered before it is on disk.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use ringway::{CallError, Context, ErrorCode, Failure, Function, HandlerResult};
use ringway_protocol::FunctionId;
use ringway_store::blobs::Pin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::{check_length, check_name, check_queue, receipt, unreadable, written};
use crate::blobs::{BlobRef, Shelf};
use crate::config::{QueueSettings, QueueType};
use crate::driver::{Answer, Claim, Core, Driver};
use crate::machine::{New, Refused};
use crate::record::{self, Head};
use crate::topics;

/// Bytes of a group's name.
const GROUP_BYTES_MAX: usize = 256;

/// Bytes of an id or an idempotency key.
const KEY_BYTES_MAX: usize = 512;

/// How long an idempotency key is kept unless its sender says so, in milliseconds: a day.
const RETENTION_MS: u64 = 86_400_000;

/// The code when a message could not be written.
const CODE: &str = "enqueue_error";

#[derive(Debug, Deserialize, JsonSchema)]
struct EnqueueRequest {
    /// The queue; it is made if there is none.
    #[serde(default)]
    queue: String,
    /// The function to call with the data; without it, whatever is bound to the queue by a `queue` trigger.
    #[serde(default)]
    function_id: Option<String>,
    /// What the function gets.
    #[serde(default)]
    #[schemars(with = "Value")]
    data: Option<Box<RawValue>>,
    /// Not to be delivered for so many milliseconds.
    #[serde(default)]
    delay_ms: Option<u64>,
    /// Not to be delivered before (RFC 3339).
    #[serde(default)]
    at: Option<String>,
    /// From 0 to 9, the highest first. Default 0.
    #[serde(default)]
    priority: u8,
    /// The message group of a fifo queue, or whose share of a standard one it takes.
    #[serde(default)]
    group: Option<String>,
    /// Of several messages of a queue with the same key only the first is taken, within the retention.
    #[serde(default)]
    idempotency_key: Option<String>,
    /// How long the key is kept, in milliseconds. Default a day.
    #[serde(default)]
    idempotency_retention_ms: Option<u64>,
    /// A dead letter if it has not begun within so many milliseconds.
    #[serde(default)]
    ttl_ms: Option<u64>,
    /// The id of the message, unique over all queues; one is made unless it is given.
    #[serde(default)]
    id: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct EngineEnqueue {
    /// The queue.
    #[serde(default)]
    queue: String,
    /// The function to call with the data.
    #[serde(default)]
    function_id: Option<String>,
    /// What the function gets.
    #[serde(default)]
    #[schemars(with = "Value")]
    data: Option<Box<RawValue>>,
    /// The id of the message.
    #[serde(default, rename = "messageReceiptId")]
    message_receipt_id: Option<String>,
    /// W3C trace context of the sender.
    #[serde(default)]
    traceparent: Option<String>,
    /// W3C baggage of the sender.
    #[serde(default)]
    baggage: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Enqueued {
    /// The message's id, for `queue::receipt`.
    id: String,
    /// As of `queue::receipt`.
    status: String,
    /// It had been taken before.
    duplicate: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct EngineEnqueued {
    /// The message's id.
    message_receipt_id: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct PublishRequest {
    /// The topic.
    #[serde(default)]
    topic: String,
    /// What the subscribers get.
    #[serde(default)]
    #[schemars(with = "Value")]
    data: Option<Box<RawValue>>,
}

/// A message before the queue's settings were looked at.
struct Wanted {
    queue: String,
    head: Head,
    data: Arc<RawValue>,
    delay_ms: u64,
    ttl_ms: Option<u64>,
    group: Option<String>,
    idempotency: Option<(String, u64)>,
    /// Keeps the blob of long data until the message holds it.
    pin: Option<Pin>,
}

impl Wanted {
    /// Has long data lie in a blob.
    async fn shelve(mut self, shelf: &Arc<Shelf>) -> HandlerResult<Self> {
        self.pin = shelf.put(&self.data).await?;
        self.head.blob = self.pin.as_ref().map(reference);
        Ok(self)
    }
}

fn reference(pin: &Pin) -> BlobRef {
    BlobRef { id: pin.id(), bytes: pin.bytes() }
}

/// Takes a blob away whose message was not taken.
fn let_go(core: &Core, pin: Option<Pin>) {
    let id = pin.as_ref().map(Pin::id);
    drop(pin);
    core.shelf.collect(id.into_iter().collect());
}

pub(super) fn enqueue(driver: &Driver, shelf: &Arc<Shelf>) -> Function {
    let (driver, shelf) = (driver.clone(), Arc::clone(shelf));
    Function::json_async("queue::enqueue", move |context: Context, request: EnqueueRequest| {
        let (driver, shelf) = (driver.clone(), Arc::clone(&shelf));
        async move {
            let wanted = read(&context, request)?.shelve(&shelf).await?;
            let mut taken = driver.ask(|core, answer| accept(core, wanted, answer)).await?;
            if taken.duplicate {
                let status = receipt::of(&driver, taken.id.clone()).await.map(|receipt| receipt.status);
                taken.status = status.unwrap_or("unknown").to_owned();
            }
            Ok(taken)
        }
    })
    .description("takes a message and answers when it is on disk")
}

pub(super) fn engine_enqueue(driver: &Driver, shelf: &Arc<Shelf>, id: &str) -> Function {
    let (driver, shelf) = (driver.clone(), Arc::clone(shelf));
    Function::json_async(id, move |context: Context, request: EngineEnqueue| {
        let (driver, shelf) = (driver.clone(), Arc::clone(&shelf));
        async move {
            let EngineEnqueue { traceparent, baggage, message_receipt_id, .. } = request;
            let plain = EnqueueRequest {
                queue: request.queue,
                function_id: request.function_id,
                data: request.data,
                id: message_receipt_id,
                delay_ms: None,
                at: None,
                priority: 0,
                group: None,
                idempotency_key: None,
                idempotency_retention_ms: None,
                ttl_ms: None,
            };
            let mut wanted = read(&context, plain)?.shelve(&shelf).await?;
            wanted.head.trace = traceparent.or(wanted.head.trace);
            wanted.head.baggage = baggage.or(wanted.head.baggage);
            let taken = driver.ask(|core, answer| accept(core, wanted, answer)).await?;
            Ok(EngineEnqueued { message_receipt_id: taken.id })
        }
    })
    .description("takes a message for a function, as the enqueue action asks for")
}

pub(super) fn publish(driver: &Driver, shelf: &Arc<Shelf>) -> Function {
    let (driver, shelf) = (driver.clone(), Arc::clone(shelf));
    Function::json_async("iii::durable::publish", move |context: Context, request: PublishRequest| {
        let (driver, shelf) = (driver.clone(), Arc::clone(&shelf));
        async move {
            check_name("topic", &request.topic, "topic_not_set")?;
            let mut head = head(&context, None);
            let data = or_null(request.data)?;
            let pin = shelf.put(&data).await?;
            head.blob = pin.as_ref().map(reference);
            driver.ask(move |core, answer| copy(core, &request.topic, (&head, &data), pin, answer)).await
        }
    })
    .description("publishes to every durable subscriber of a topic, those that are away included")
}

fn or_null(data: Option<Box<RawValue>>) -> HandlerResult<Arc<RawValue>> {
    Ok(data.map_or_else(|| to_raw_value(&Value::Null), Ok)?.into())
}

fn head(context: &Context, function: Option<String>) -> Head {
    let trace = context.trace();
    Head {
        function,
        enqueued_ms: 0,
        due_ms: 0,
        expires_ms: 0,
        priority: 0,
        lane: String::new(),
        receipt: None,
        trace: trace.is_valid().then(|| trace.to_string()),
        baggage: context.baggage().map(ringway::Baggage::format).filter(|baggage| !baggage.is_empty()),
        blob: None,
        data: None,
    }
}

fn read(context: &Context, request: EnqueueRequest) -> HandlerResult<Wanted> {
    check_queue(&request.queue)?;
    if let Some(function) = &request.function_id {
        FunctionId::new(function).map_err(|error| Failure::invalid(error.to_string()))?;
    }
    if request.priority > 9 {
        return Err(Failure::invalid(format!("wanted a priority from 0 to 9, found {}", request.priority)));
    }
    check_length("group", request.group.as_deref().unwrap_or_default(), GROUP_BYTES_MAX)?;
    for key in [&request.id, &request.idempotency_key].into_iter().flatten() {
        check_length("key", key, KEY_BYTES_MAX)?;
        if key.is_empty() {
            return Err(Failure::invalid(
                "wanted an id or idempotency key with at least one character, found none",
            ));
        }
    }
    let mut head = head(context, request.function_id);
    if let Some(at) = &request.at {
        if request.delay_ms.is_some() {
            return Err(Failure::invalid("wanted `delay_ms` or `at`, found both: leave one of them out"));
        }
        let time: Timestamp = at.parse().map_err(|error| {
            Failure::invalid(format!("wanted `at` as in 2030-01-31T08:00:00Z, found `{at}`: {error}"))
        })?;
        head.due_ms = u64::try_from(time.as_millisecond()).unwrap_or(0);
    }
    (head.priority, head.receipt) = (request.priority, request.id);
    let retention_ms = request.idempotency_retention_ms.unwrap_or(RETENTION_MS);
    Ok(Wanted {
        queue: request.queue,
        head,
        data: or_null(request.data)?,
        delay_ms: request.delay_ms.unwrap_or(0),
        ttl_ms: request.ttl_ms,
        group: request.group,
        idempotency: request.idempotency_key.map(|key| (key, retention_ms)),
        pin: None,
    })
}

/// Takes a message, or finds that it was taken before.
fn accept(core: &mut Core, mut wanted: Wanted, answer: Answer<Enqueued>) {
    let claims = claims(&wanted);
    if let Some(ticket) = claims.iter().find_map(|claim| core.claims.get(claim).copied()) {
        // Another one is being written; when that has ended, it is there, or has failed.
        return core.after(ticket, Box::new(move |core, _| accept(core, wanted, answer)));
    }
    match known(core, &claims) {
        Ok(None) => {}
        // How it stands is looked up by whoever asks, not here.
        Ok(Some(id)) => {
            let_go(core, wanted.pin);
            return answer.give(Ok(Enqueued { id, status: String::new(), duplicate: true }));
        }
        Err(failure) => {
            let_go(core, wanted.pin);
            return answer.give(Err(failure));
        }
    }
    let pin = wanted.pin.take();
    let delayed = wanted.delay_ms > 0 || wanted.head.due_ms > core.now_ms();
    let new = match prepare(core, wanted) {
        Ok(new) => new,
        Err(failure) => {
            let_go(core, pin);
            return answer.give(Err(failure));
        }
    };
    let receipt = new.head.receipt.clone();
    let (ticket, places) = match core.machine.enqueue(vec![new]) {
        Ok(taken) => taken,
        Err(refused) => {
            let_go(core, pin);
            return answer.give(Err(refusal(&refused)));
        }
    };
    for claim in claims.iter().cloned() {
        core.claims.insert(claim, ticket);
    }
    let id = receipt.or_else(|| places.first().map(record::Place::id)).unwrap_or_default();
    let then = move |core: &mut Core, outcome: Result<(), _>| {
        for claim in &claims {
            core.claims.remove(claim);
        }
        match &outcome {
            Ok(()) => drop(pin),
            Err(_) => let_go(core, pin),
        }
        let status = if delayed { "delayed" } else { "waiting" }.to_owned();
        answer.give(written(CODE, outcome).map(|()| Enqueued { id, status, duplicate: false }));
    };
    core.after(ticket, Box::new(then));
}

fn claims(wanted: &Wanted) -> Vec<Claim> {
    let receipt = wanted.head.receipt.as_ref().map(|id| (record::RECEIPT, id.as_bytes().to_vec()));
    let key = wanted.idempotency.as_ref();
    let key = key.map(|(key, _)| (record::IDEMPOTENCY, record::pair_key(&wanted.queue, key)));
    receipt.into_iter().chain(key).collect()
}

/// The id of the message that has taken one of these keys before.
fn known(core: &Core, claims: &[Claim]) -> HandlerResult<Option<String>> {
    for (table, key) in claims {
        let value =
            core.store.get(table, key).map_err(|error| ringway_worker_kit::store_failure(CODE, &error))?;
        let Some(value) = value else { continue };
        if *table == record::RECEIPT {
            return Ok(Some(String::from_utf8_lossy(key).into_owned()));
        }
        let read = record::decode::<record::IdempotencyRecord>(table, key, &value.bytes);
        let read = read.map_err(|error| unreadable(CODE, &error))?;
        if read.expires_ms > core.now_ms() {
            return Ok(Some(read.id));
        }
    }
    Ok(None)
}

/// What the settings of its queue make of a message.
fn prepare(core: &Core, wanted: Wanted) -> HandlerResult<New> {
    let now_ms = core.now_ms();
    let (settings, _) = core.machine.settings(&wanted.queue);
    let Wanted { queue, mut head, data, delay_ms, ttl_ms, group, idempotency, pin: _ } = wanted;
    head.lane = lane(&settings, &queue, group, &data)?;
    head.enqueued_ms = now_ms;
    if delay_ms > 0 {
        head.due_ms = now_ms.saturating_add(delay_ms);
    }
    let ttl_ms = ttl_ms.unwrap_or(settings.ttl_ms);
    if ttl_ms > 0 {
        head.expires_ms = now_ms.saturating_add(ttl_ms);
    }
    let idempotency = idempotency.map(|(key, retention_ms)| (key, now_ms.saturating_add(retention_ms)));
    Ok(New { queue, head, data, idempotency })
}

/// The lane in which a message stands.
fn lane(
    settings: &QueueSettings,
    queue: &str,
    group: Option<String>,
    data: &RawValue,
) -> HandlerResult<String> {
    if let Some(group) = group {
        return Ok(group);
    }
    if settings.kind == QueueType::Fifo {
        let Some(name) = &settings.message_group_field else { return Ok(String::new()) };
        return field(data, name)?.ok_or_else(|| {
            let text = format!(
                "wanted `{name}` in the data of a message for fifo queue `{queue}`, found none: set it, or name a `group`"
            );
            Failure::with_code("MESSAGE_GROUP_MISSING", text)
        });
    }
    match &settings.fairness {
        Some(fairness) => Ok(field(data, &fairness.key_field)?.unwrap_or_default()),
        None => Ok(String::new()),
    }
}

/// A field of the data as text; `None` if it is not there or null.
fn field(data: &RawValue, name: &str) -> HandlerResult<Option<String>> {
    // Data that is no object has no fields.
    let Ok(fields) = serde_json::from_str::<HashMap<String, &RawValue>>(data.get()) else { return Ok(None) };
    let Some(value) = fields.get(name) else { return Ok(None) };
    let text = match serde_json::from_str(value.get())? {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        other => other.to_string(),
    };
    check_length("group", &text, GROUP_BYTES_MAX)?;
    Ok(Some(text))
}

fn refusal(refused: &Refused) -> Failure {
    let code = match refused {
        Refused::Full { .. } => "QUEUE_FULL",
        Refused::TooMany { .. } => "QUEUE_LIMIT",
        Refused::Draining { .. } => "QUEUE_DRAINING",
        Refused::Behind => {
            let error = CallError::new(ErrorCode::Busy, refused.to_string()).with_user_code("QUEUE_BEHIND");
            return error.into();
        }
    };
    Failure::with_code(code, refused.to_string())
}

/// Gives each subscriber of a topic its copy; without any, keeps one for the first that comes.
fn copy(
    core: &mut Core,
    topic: &str,
    (head, data): (&Head, &Arc<RawValue>),
    pin: Option<Pin>,
    answer: Answer<()>,
) {
    let now_ms = core.now_ms();
    let subscribed = core.topics.queues(topic);
    let mut queues: Vec<(String, u64)> = Vec::with_capacity(subscribed.len().max(1));
    for (_, record) in subscribed {
        let delay_s = record.settings.delay_seconds.unwrap_or(0);
        queues.push((record.queue, delay_s.saturating_mul(1000)));
    }
    if queues.is_empty() {
        queues.push((topics::backlog(topic), 0));
    }
    let mut new = Vec::with_capacity(queues.len());
    for (queue, delay_ms) in queues {
        let (head, data) = (head.clone(), Arc::clone(data));
        let wanted =
            Wanted { queue, head, data, delay_ms, ttl_ms: None, group: None, idempotency: None, pin: None };
        match prepare(core, wanted) {
            Ok(copy) => new.push(copy),
            Err(failure) => {
                let_go(core, pin);
                return answer.give(Err(failure));
            }
        }
    }
    tracing::trace!(topic, copies = new.len(), now_ms, "published");
    match core.machine.enqueue(new) {
        Ok((ticket, _)) => {
            let then = move |core: &mut Core, outcome: Result<(), _>| {
                match &outcome {
                    Ok(()) => drop(pin),
                    Err(_) => let_go(core, pin),
                }
                answer.give(written("publish_error", outcome));
            };
            core.after(ticket, Box::new(then));
        }
        Err(refused) => {
            let_go(core, pin);
            answer.give(Err(refusal(&refused)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_enqueue_action_has_the_shape_of_iii() {
        let text = r#"{"queue":"q","function_id":"a::b","data":{"n":1},"messageReceiptId":"r","namespace":"x",
            "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","baggage":"a=b"}"#;
        let read: EngineEnqueue = serde_json::from_str(text).unwrap();
        assert_eq!((read.message_receipt_id.as_deref(), read.baggage.as_deref()), (Some("r"), Some("a=b")));
        let answer = serde_json::to_string(&EngineEnqueued { message_receipt_id: "r".into() }).unwrap();
        assert_eq!(answer, r#"{"messageReceiptId":"r"}"#);
    }

    #[test]
    fn a_group_is_read_from_the_data() {
        let fifo = QueueSettings {
            kind: QueueType::Fifo,
            message_group_field: Some("id".into()),
            ..QueueSettings::default()
        };
        let check = |group: Option<&str>, data: &str, expected: Option<&str>| {
            let data = RawValue::from_string(data.to_owned()).unwrap();
            let found = lane(&fifo, "q", group.map(str::to_owned), &data);
            assert_eq!(found.ok().as_deref(), expected, "{data}");
        };
        check(None, r#"{"id":"a"}"#, Some("a"));
        check(None, r#"{"id":7,"x":[{}]}"#, Some("7"));
        check(Some("own"), "null", Some("own"));
        check(None, r#"{"id":null}"#, None);
        check(None, "[1]", None);
    }
}
