//! Dead letters: let them live again, all or one, throw one away, mend its data.

use std::ops::Bound;

use ringway::{Context, Failure, Function, HandlerResult};
use ringway_store::Scan;
use ringway_worker_kit::store_failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::{check_name, receipt, unreadable, written};
use crate::blobs;
use crate::driver::{Answer, Core, Driver};
use crate::record::{self, DeadRecord, Head, Place, Writes};

/// Dead messages that are let live with one commit.
const AT_ONCE: usize = 256;

#[derive(Debug, Deserialize, JsonSchema)]
struct RedriveRequest {
    /// The queue or topic.
    #[serde(default, alias = "topic")]
    queue: String,
    /// The time from one message to the next, in milliseconds. Default 0: all at once.
    #[serde(default)]
    interval_ms: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Redriven {
    queue: String,
    redriven: usize,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct MessageRequest {
    /// The queue or topic.
    #[serde(default, alias = "topic")]
    queue: String,
    /// The id of the message.
    #[serde(default)]
    message_id: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct MessageAnswer {
    queue: String,
    message_id: String,
    /// 1 if it was dead, 0 if not.
    redriven: usize,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct EditRequest {
    /// The id of the message.
    #[serde(default)]
    message_id: String,
    /// What it is to hold.
    #[serde(default)]
    #[schemars(with = "Value")]
    data: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Edited {
    message_id: String,
}

pub(super) fn all(driver: &Driver) -> Vec<Function> {
    vec![
        redrive(driver),
        one(driver, "iii::queue::redrive_message", "redrive_message_failed", true)
            .description("lets one dead message live again, with all its attempts"),
        one(driver, "iii::queue::discard_message", "discard_message_failed", false)
            .description("throws one dead message away"),
        edit(driver),
    ]
}

fn redrive(driver: &Driver) -> Function {
    let driver = driver.clone();
    Function::json_async("iii::queue::redrive", move |_: Context, request: RedriveRequest| {
        let driver = driver.clone();
        async move {
            check_name("queue", &request.queue, "queue_not_set")?;
            driver
                .ask(move |core, answer| {
                    let mut left = core.resolve(&request.queue);
                    left.reverse();
                    let all = Redrive { name: request.queue, left, passed: None, redriven: 0 };
                    redrive_page(core, all, request.interval_ms, answer);
                })
                .await
        }
    })
    .description("lets all dead messages of a queue or topic live again, with all their attempts")
}

/// How far a redrive has come.
struct Redrive {
    name: String,
    left: Vec<String>,
    /// The last key that was read, so that a message that dies anew meanwhile is not taken twice.
    passed: Option<Vec<u8>>,
    redriven: usize,
}

fn redrive_page(core: &mut Core, mut all: Redrive, interval_ms: u64, answer: Answer<Redriven>) {
    let Some(queue) = all.left.last() else {
        return answer.give(Ok(Redriven { queue: all.name, redriven: all.redriven }));
    };
    let page = match page(core, queue, all.passed.as_deref()) {
        Ok(page) => page,
        Err(failure) => return answer.give(Err(failure)),
    };
    match page.last() {
        None => {
            all.left.pop();
            all.passed = None;
            redrive_page(core, all, interval_ms, answer);
        }
        Some((place, ..)) => {
            all.passed = Some(place.key());
            // Later pages wait behind earlier ones.
            let before = u64::try_from(all.redriven).unwrap_or(u64::MAX).saturating_mul(interval_ms);
            let start_ms = core.now_ms().saturating_add(before);
            let (ticket, count) = core.machine.revive(start_ms, page, interval_ms);
            let then = move |core: &mut Core, outcome| match written("redrive_failed", outcome) {
                Ok(()) => {
                    all.redriven += count;
                    redrive_page(core, all, interval_ms, answer);
                }
                Err(failure) => answer.give(Err(failure)),
            };
            core.after(ticket, Box::new(then));
        }
    }
}

type Dead = (Place, Head, DeadRecord);

fn page(core: &Core, queue: &str, passed: Option<&[u8]>) -> HandlerResult<Vec<Dead>> {
    const CODE: &str = "redrive_failed";
    let prefix = record::queue_prefix(queue);
    let mut after = prefix.clone();
    // The separator is a zero byte, so the prefix followed by nothing but 0xff bytes is behind every number.
    after.extend_from_slice(&[0xff; 9]);
    let from = passed.map_or(Bound::Included(&*prefix), Bound::Excluded);
    let scan = Scan::table(record::DEAD).range(from, Bound::Excluded(&after)).limit(AT_ONCE);
    let mut page = Vec::new();
    for entry in core.store.scan(&scan).map_err(|error| store_failure(CODE, &error))? {
        let (place, _) = Place::parse(record::DEAD, &entry.key).map_err(|error| unreadable(CODE, &error))?;
        let dead = record::decode(record::DEAD, &entry.key, &entry.value.bytes);
        let dead = dead.map_err(|error| unreadable(CODE, &error))?;
        match head(core, &place, CODE)? {
            Some(head) => page.push((place, head, dead)),
            None => tracing::error!(id = place.id(), "a dead message has no record; it is left as it is"),
        }
    }
    Ok(page)
}

/// The record of a message as it is on disk.
fn head(core: &Core, place: &Place, code: &str) -> HandlerResult<Option<Head>> {
    let key = place.key();
    let value = core.store.get(record::MESSAGE, &key).map_err(|error| store_failure(code, &error))?;
    let Some(value) = value else { return Ok(None) };
    record::decode(record::MESSAGE, &key, &value.bytes).map(Some).map_err(|error| unreadable(code, &error))
}

/// A dead message by its id; `None` if it is not dead.
fn find(core: &Core, id: &str, code: &str) -> HandlerResult<Option<Dead>> {
    let place = receipt::place(core, id)?;
    let key = place.key();
    let value = core.store.get(record::DEAD, &key).map_err(|error| store_failure(code, &error))?;
    let Some(value) = value.filter(|_| core.machine.is_dead(&place)) else { return Ok(None) };
    let dead = record::decode(record::DEAD, &key, &value.bytes).map_err(|error| unreadable(code, &error))?;
    Ok(head(core, &place, code)?.map(|head| (place, head, dead)))
}

fn one(driver: &Driver, id: &str, code: &'static str, live: bool) -> Function {
    let driver = driver.clone();
    Function::json_async(id, move |_: Context, request: MessageRequest| {
        let driver = driver.clone();
        async move {
            check_name("queue", &request.queue, "queue_not_set")?;
            if request.message_id.is_empty() {
                return Err(Failure::with_code("message_id_not_set", "wanted `message_id`, found none"));
            }
            driver.ask(move |core, answer| handle_one(core, request, code, live, answer)).await
        }
    })
}

fn handle_one(
    core: &mut Core,
    request: MessageRequest,
    code: &'static str,
    live: bool,
    answer: Answer<MessageAnswer>,
) {
    let MessageRequest { queue, message_id } = request;
    let reply = |redriven| MessageAnswer { queue: queue.clone(), message_id: message_id.clone(), redriven };
    let queues = core.resolve(&queue);
    // An id that stands for nothing is no error: nothing was dead under it.
    let found = find(core, &message_id, code).or_else(|failure| {
        let error = failure.into_error();
        if error.user_code.as_deref() == Some("NOT_FOUND") { Ok(None) } else { Err(Failure::from(error)) }
    });
    let dead = match found {
        Ok(Some(dead)) if queues.iter().any(|queue| **queue == *dead.0.queue) => dead,
        Ok(_) => return answer.give(Ok(reply(0))),
        Err(failure) => return answer.give(Err(failure)),
    };
    let now_ms = core.now_ms();
    let (ticket, count) = if live {
        core.machine.revive(now_ms, vec![dead], 0)
    } else {
        core.machine.discard(now_ms, vec![dead])
    };
    let reply = reply(count);
    core.after(ticket, Box::new(move |_, outcome| answer.give(written(code, outcome).map(|()| reply))));
}

fn edit(driver: &Driver) -> Function {
    const CODE: &str = "edit_failed";
    let driver = driver.clone();
    Function::json_async("queue::dlq::edit", move |_: Context, request: EditRequest| {
        let driver = driver.clone();
        async move {
            let data = match request.data {
                Some(data) => data,
                None => to_raw_value(&Value::Null)?,
            };
            let message_id = request.message_id;
            driver
                .ask(move |core, answer| match find(core, &message_id, CODE) {
                    Ok(Some((place, head, _))) => {
                        let freed = head.blob.map(|blob| blob.id);
                        let ticket = core.machine.write(edited(&place, head, data));
                        let then = move |core: &mut Core, outcome| {
                            core.shelf.collect(freed.into_iter().collect());
                            answer.give(written(CODE, outcome).map(|()| Edited { message_id }));
                        };
                        core.after(ticket, Box::new(then));
                    }
                    Ok(None) => {
                        let text = format!(
                            "wanted a dead message, `{message_id}` is not dead: see `queue::receipt`"
                        );
                        answer.give(Err(Failure::with_code("NOT_DEAD", text)));
                    }
                    Err(failure) => answer.give(Err(failure)),
                })
                .await
        }
    })
    .description("gives a dead message other data; redrive it afterwards")
}

fn edited(place: &Place, mut head: Head, data: Box<RawValue>) -> Writes {
    let mut writes = Writes::default();
    let was_long = head.is_long();
    if let Some(blob) = head.blob.take() {
        blobs::let_go(&mut writes, place, &blob.id);
    }
    if data.get().len() > record::INLINE_BYTES_MAX {
        writes.put_bytes(record::BODY, place.key(), record::encode_body(&data));
        head.data = None;
    } else {
        if was_long {
            writes.delete(record::BODY, place.key());
        }
        head.data = Some(data);
    }
    writes.put(record::MESSAGE, place.key(), &head);
    writes
}
