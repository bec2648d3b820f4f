//! `stream::set`, `get`, `delete`, `update` and `send`. Those that change something wait as futures, so that as many callers
//! as there are share one commit. See the parent for what this must not know.

use std::sync::{Arc, Weak};

use ringway::{Context, Failure, Function, HandlerResult, Message, TraceContext};
use serde_json::{Value, json};

use super::{anything, json_text, needed, of, place, read_json, schema, text_of};
use crate::core::{self, Core};
use crate::place::Place;
use crate::plan::{Act, Outcome};
use crate::record::Kind;
use crate::requests::{Delete, Get, Send, Set, Update};
use crate::{backend, reader};

pub(super) fn all(core: &Weak<Core>) -> Vec<Function> {
    let own = Weak::clone;
    let (setter, getter, deleter, updater, sender) = (own(core), own(core), own(core), own(core), own(core));
    let changed = Some(json!({
        "type": "object", "properties": {"old_value": {}, "new_value": {}, "version": {"type": "integer"}},
    }));
    vec![
        Function::raw_async("stream::set", move |context, message| set(own(&setter), context, message))
            .schema(schema::<Set>(), changed.clone())
            .description("Writes an item; answers the old and the new value when it is on disk"),
        Function::raw_async("stream::get", move |context, message| get(own(&getter), context, message))
            .idempotent()
            .schema(schema::<Get>(), anything())
            .description("Reads an item; nothing at all where there is none"),
        Function::raw_async("stream::delete", move |context, message| {
            delete(own(&deleter), context, message)
        })
        .schema(schema::<Delete>(), Some(json!({"type": "object", "properties": {"old_value": {}}})))
        .description("Removes an item and answers what it was"),
        Function::raw_async("stream::update", move |context, message| {
            update(own(&updater), context, message)
        })
        .schema(schema::<Update>(), changed)
        .description("Applies operations to an item, as one change"),
        Function::raw_async("stream::send", move |context, message| send(own(&sender), context, message))
            .schema(schema::<Send>(), anything())
            .description("Tells triggers and subscribers of a group something, without changing an item"),
    ]
}

/// Where something is done, for whom, and the code of what goes wrong.
struct Task<'a> {
    core: &'a Weak<Core>,
    place: &'a Place,
    trace: TraceContext,
    code: &'a str,
}

async fn one(Task { core, place, trace, code }: Task<'_>, act: Act) -> HandlerResult<Outcome> {
    let outcomes = core::write(core, place, &[act], trace).await;
    let outcomes = outcomes.map_err(|refusal| refusal.into_failure(code))?;
    Ok(outcomes.into_iter().next().unwrap_or_default())
}

/// Tells of a change that somebody else's function has made.
async fn note(task: Task<'_>, item: String, kind: Kind, value: &Value) -> HandlerResult<()> {
    let data: Arc<[u8]> = serde_json::to_vec(value)?.into();
    one(task, Act::Note { kind, item: Some(item.into()), name: None, data }).await?;
    Ok(())
}

async fn set(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_SET_ERROR";
    let set: Set = read_json(&message)?;
    let place = place(&set.stream_name, &set.group_id, CODE)?;
    let task = Task { core: &core, place: &place, trace: context.trace(), code: CODE };
    if let Some(id) = backend::of(&context, "set", &set.stream_name) {
        let answer = backend::ask(&context, &id, &message).await?;
        changed_elsewhere(task, set.item_id, &id, &answer).await?;
        return Message::json(&answer);
    }
    drop(message);
    let ttl_ms = set.ttl_ms.or(of(&core)?.config.rules(&set.stream_name).ttl_ms);
    if ttl_ms == Some(0) {
        return Err(Failure::invalid(
            "ttl_ms is 0, at least 1 was wanted: leave it out for an item that stays",
        ));
    }
    let (data, item) = (needed(set.data)?, set.item_id.into());
    let done = one(task, Act::Set { item, data, ttl_ms, if_version: set.if_version }).await?;
    Ok(json_text(&written(&done)))
}

/// Tells of what a function has answered that sets or updates instead of the store.
async fn changed_elsewhere(task: Task<'_>, item: String, id: &str, answer: &Value) -> HandlerResult<()> {
    let new = backend::field(id, answer, "new_value")?;
    let kind = match answer.get("old_value") {
        None | Some(Value::Null) => Kind::Create,
        Some(_) => Kind::Update,
    };
    note(task, item, kind, new).await
}

async fn get(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_GET_ERROR";
    let get: Get = read_json(&message)?;
    if let Some(id) = backend::of(&context, "get", &get.stream_name) {
        let answer = backend::ask(&context, &id, &message).await?;
        return if answer.is_null() { Ok(Message::empty()) } else { Message::json(&answer) };
    }
    let place = place(&get.stream_name, &get.group_id, CODE)?;
    let item =
        reader::item(&*of(&core)?, &place, &get.item_id).map_err(|refusal| refusal.into_failure(CODE))?;
    if !get.with_version {
        return Ok(item.map_or_else(Message::empty, |item| json_text(item.json())));
    }
    let mut text = b"{\"data\":".to_vec();
    text.extend_from_slice(text_of(item.as_ref()));
    text.extend_from_slice(
        format!(",\"version\":{}", item.as_ref().map_or(0, |item| item.version)).as_bytes(),
    );
    if let Some(expires) = item.and_then(|item| item.expires_at_ms) {
        text.extend_from_slice(format!(",\"expires_at_ms\":{expires}").as_bytes());
    }
    text.push(b'}');
    Ok(json_text(&text))
}

async fn delete(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_DELETE_ERROR";
    let delete: Delete = read_json(&message)?;
    let place = place(&delete.stream_name, &delete.group_id, CODE)?;
    let task = Task { core: &core, place: &place, trace: context.trace(), code: CODE };
    if let Some(id) = backend::of(&context, "delete", &delete.stream_name) {
        let answer = backend::ask(&context, &id, &message).await?;
        let old = backend::field(&id, &answer, "old_value")?;
        if !old.is_null() {
            note(task, delete.item_id, Kind::Delete, old).await?;
        }
        return Message::json(&answer);
    }
    drop(message);
    let act = Act::Delete { item: delete.item_id.into(), if_version: delete.if_version };
    let done = one(task, act).await?;
    let mut text = b"{\"old_value\":".to_vec();
    text.extend_from_slice(text_of(done.old.as_ref()));
    text.push(b'}');
    Ok(json_text(&text))
}

async fn update(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_UPDATE_ERROR";
    let update: Update = read_json(&message)?;
    let place = place(&update.stream_name, &update.group_id, CODE)?;
    let task = Task { core: &core, place: &place, trace: context.trace(), code: CODE };
    if let Some(id) = backend::of(&context, "update", &update.stream_name) {
        let answer = backend::ask(&context, &id, &message).await?;
        changed_elsewhere(task, update.item_id, &id, &answer).await?;
        return Message::json(&answer);
    }
    drop(message);
    let (found, max) = (update.ops.len(), of(&core)?.config.ops_max);
    if found > max {
        return Err(Failure::invalid(format!(
            "{found} operations, at most {max} are taken at once (ops_max)"
        )));
    }
    let act = Act::Update {
        item: update.item_id.into(),
        ops: update.ops,
        all_or_nothing: update.all_or_nothing,
        if_version: update.if_version,
    };
    let done = one(task, act).await?;
    Ok(json_text(&written(&done)))
}

/// The values before and after, what could not be done, the version.
fn written(done: &Outcome) -> Vec<u8> {
    let mut text = b"{\"old_value\":".to_vec();
    text.extend_from_slice(text_of(done.old.as_ref()));
    text.extend_from_slice(b",\"new_value\":");
    text.extend_from_slice(text_of(done.new.as_ref()));
    if !done.errors.is_empty() {
        text.extend_from_slice(b",\"errors\":");
        // Codes and texts of our own always become JSON.
        text.extend_from_slice(&serde_json::to_vec(&done.errors).unwrap_or_else(|_| b"[]".to_vec()));
    }
    let version = done.new.as_ref().map_or(0, |item| item.version);
    text.extend_from_slice(format!(",\"version\":{version}}}").as_bytes());
    text
}

async fn send(core: Weak<Core>, context: Context, message: Message) -> HandlerResult<Message> {
    const CODE: &str = "STREAM_SEND_ERROR";
    let send: Send = read_json(&message)?;
    drop(message);
    let place = place(&send.stream_name, &send.group_id, CODE)?;
    let task = Task { core: &core, place: &place, trace: context.trace(), code: CODE };
    let data: Arc<[u8]> = send.data.map_or_else(|| (*b"null").into(), |data| data.get().as_bytes().into());
    let act =
        Act::Note { kind: Kind::Event, item: send.id.map(Into::into), name: Some(send.kind.into()), data };
    one(task, act).await?;
    Message::json(&Value::Null)
}
