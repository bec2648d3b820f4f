//! Browsing dead messages: by offset as iii does, or by filter, page after page. Reads only, on the caller's thread.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringway::{Context, Failure, Function, HandlerResult, TraceContext};
use ringway_store::{Scan, Snapshot, Store};
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::check_name;
use super::letters::{self, Chosen, Filter, Letter};
use crate::driver::Driver;
use crate::record::{self, AttemptRecord, Head, Place};

/// Dead messages that are listed at once.
const LIMIT_MAX: usize = 1000;

/// Dead messages that are listed unless the request says how many.
const LIMIT: usize = 50;

/// Dead messages that are read at once while one looks for those that fit.
const PAGE: usize = 256;

const CODE: &str = "dlq_messages_failed";

#[derive(Debug, Default, Deserialize, JsonSchema)]
struct OffsetRequest {
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

#[derive(Debug, Deserialize, JsonSchema)]
struct PageRequest {
    /// The queue or topic.
    #[serde(default, alias = "topic")]
    queue: String,
    /// The `cursor` of the page before. Default none: the newest.
    #[serde(default)]
    cursor: Option<String>,
    /// How many to return. Default 50, at most 1000.
    #[serde(default)]
    limit: Option<usize>,
    /// Only such as these.
    #[serde(flatten)]
    filter: Filter,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Page {
    messages: Vec<DeadMessage>,
    /// For the next page; null if there is none.
    cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct DeadMessage {
    id: String,
    queue: String,
    function_id: Option<String>,
    /// Null if it cannot be read, and where it lies in a blob.
    #[schemars(with = "Value")]
    payload: Box<RawValue>,
    /// The blob with the data, for `blob::get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    blob: Option<String>,
    /// The bytes of a payload that is not JSON, or of the record that it lies in, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// Why a part of it cannot be read. It can be discarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// The code of the last error.
    code: Option<String>,
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

/// The queues that a name stands for, and a view of the store.
async fn look(driver: &Driver, name: String) -> HandlerResult<(Vec<String>, Box<dyn Snapshot>)> {
    check_name("topic", &name, "topic_required")?;
    let (queues, store): (_, Arc<dyn Store>) = driver
        .ask(move |core, answer| answer.give(Ok((core.resolve(&name), Arc::clone(&core.store)))))
        .await?;
    let snapshot = store.snapshot().map_err(|error| store_failure(CODE, &error))?;
    Ok((queues, snapshot))
}

pub(super) fn by_offset(driver: &Driver, id: &str) -> Function {
    let driver = driver.clone();
    Function::json_async(id, move |_: Context, request: OffsetRequest| {
        let driver = driver.clone();
        async move {
            let (queues, snapshot) = look(&driver, request.topic).await?;
            let limit = request.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
            let end = request.offset.saturating_add(limit);
            let mut found = Vec::new();
            for queue in &queues {
                found.extend(letters::places(&*snapshot, queue, None, true, end, CODE)?);
            }
            let mut listed = Vec::new();
            for place in found.into_iter().skip(request.offset).take(limit) {
                if let Some(letter) = letters::read(&*snapshot, &place, CODE)? {
                    listed.push(describe(&*snapshot, letter)?);
                }
            }
            Ok(listed)
        }
    })
    .description("lists the dead messages of a queue or topic, the newest first")
    .idempotent()
}

pub(super) fn by_filter(driver: &Driver, id: &str) -> Function {
    let driver = driver.clone();
    Function::json_async(id, move |_: Context, request: PageRequest| {
        let driver = driver.clone();
        async move {
            let chosen = request.filter.read()?;
            let after = request.cursor.as_deref().map(|cursor| {
                let wrong = || Failure::invalid(format!("wanted the `cursor` of a page, found `{cursor}`"));
                Place::from_id(cursor).ok_or_else(wrong)
            });
            let after = after.transpose()?;
            let (queues, snapshot) = look(&driver, request.queue).await?;
            let limit = request.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
            page(&*snapshot, &queues, &chosen, after.as_ref(), limit)
        }
    })
    .description(
        "lists dead messages of a queue or topic that a filter lets pass, the newest first, page after page",
    )
    .idempotent()
}

fn page(
    snapshot: &dyn Snapshot,
    queues: &[String],
    chosen: &Chosen,
    after: Option<&Place>,
    limit: usize,
) -> HandlerResult<Page> {
    let mut messages = Vec::new();
    let mut end: Option<Place> = None;
    for queue in queues.iter().skip_while(|queue| after.is_some_and(|after| ***queue < *after.queue)) {
        let mut passed = after.filter(|after| *after.queue == **queue).map(|after| after.seq);
        loop {
            let places = letters::places(snapshot, queue, passed, true, PAGE, CODE)?;
            let Some(last) = places.last() else { break };
            passed = Some(last.seq);
            for place in &places {
                let letter = letters::read(snapshot, place, CODE)?;
                let Some(letter) = letter.filter(|letter| chosen.fits(&letter.dead)) else { continue };
                if messages.len() == limit {
                    // One more fits, so that there is a next page.
                    return Ok(Page { messages, cursor: end.as_ref().map(Place::id) });
                }
                messages.push(describe(snapshot, letter)?);
                end = Some(place.clone());
            }
        }
    }
    Ok(Page { messages, cursor: None })
}

/// What is told of a message, with whatever of it can be read.
fn describe(snapshot: &dyn Snapshot, letter: Letter) -> HandlerResult<DeadMessage> {
    let Letter { dead, mut problems } = letter;
    let place = dead.place;
    let failed = |error| store_failure(CODE, &error);
    let attempts = snapshot.scan(&Scan::table(record::ATTEMPT).prefix(&place.key())).map_err(failed)?;
    let attempts = attempts.iter().filter_map(|entry| attempt(&entry.key, &entry.value.bytes)).collect();
    let (payload, bytes) = payload(snapshot, &place, dead.head.as_ref(), &mut problems);
    let head = dead.head.as_ref();
    let blob = head.and_then(|head| head.blob);
    let found = payload.as_ref().map(|data| data.get().len()).or_else(|| bytes.as_ref().map(Vec::len));
    let size_bytes = blob.map_or_else(|| found.unwrap_or(0) as u64, |blob| blob.bytes);
    let trace = head.and_then(|head| head.trace.as_deref()?.parse::<TraceContext>().ok());
    let payload = match payload {
        Some(payload) => payload,
        None => to_raw_value(&Value::Null)?,
    };
    let of_record = dead.record.as_ref();
    Ok(DeadMessage {
        id: head.and_then(|head| head.receipt.clone()).unwrap_or_else(|| place.id()),
        queue: place.queue.to_string(),
        function_id: head.and_then(|head| head.function.clone()),
        code: of_record.map(|record| record.code.clone()),
        error: of_record.map_or_else(String::new, |record| format!("{}: {}", record.code, record.message)),
        failed_at: of_record.map_or(0, |record| record.at_ms / 1000),
        retries: of_record.map_or(0, |record| record.attempts),
        size_bytes,
        trace_id: trace.map(|trace| trace.trace_id.to_string()),
        payload,
        blob: blob.map(|blob| blob.id.to_string()),
        payload_base64: bytes.map(|bytes| STANDARD.encode(bytes)),
        unreadable: (!problems.is_empty()).then(|| problems.join("; ")),
        attempts,
    })
}

/// The data, or else the bytes that should have been it.
fn payload(
    snapshot: &dyn Snapshot,
    place: &Place,
    head: Option<&Head>,
    problems: &mut Vec<String>,
) -> (Option<Box<RawValue>>, Option<Vec<u8>>) {
    if let Some(data) = head.and_then(|head| head.data.clone()) {
        return (Some(data), None);
    }
    let key = place.key();
    let mut get = |table: &str| {
        snapshot.get(table, &key).unwrap_or_else(|error| {
            problems.push(error.to_string());
            None
        })
    };
    let body = get(record::BODY);
    // The data of a message without a body lies in the record that cannot be read.
    let lies_in = if body.is_none() && head.is_none() { get(record::MESSAGE) } else { None };
    match body {
        Some(value) => match record::decode_body(&key, &value.bytes) {
            Ok(data) => (Some(data), None),
            Err(error) => {
                problems.push(error.to_string());
                // Without the version before it.
                (None, Some(value.bytes.get(1..).unwrap_or_default().to_vec()))
            }
        },
        None => {
            if head.is_some_and(Head::is_long) {
                problems.push("its data is not there".to_owned());
            }
            (None, lies_in.map(|value| value.bytes.to_vec()))
        }
    }
}

fn attempt(key: &[u8], value: &[u8]) -> Option<Attempt> {
    let (_, rest) = Place::parse(record::ATTEMPT, key).ok()?;
    let number = u32::from_be_bytes(rest.try_into().ok()?);
    let AttemptRecord { at_ms, code, message, .. } = record::decode(record::ATTEMPT, key, value).ok()?;
    Some(Attempt { number, at_ms, code, message })
}
