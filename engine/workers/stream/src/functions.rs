//! The functions of the worker: what callers send becomes acts and reads, what is found becomes their reply. Values pass as
//! they lie in the store, without being parsed. It must not know how anything is kept.

mod items;
mod list;
mod log;
mod subscribe;
mod tail;

use std::sync::{Arc, Weak};

use ringway::{CallError, Encoding, ErrorCode, Failure, Function, HandlerResult, Message};
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::core::Core;
use crate::error::Refusal;
use crate::place::Place;
use crate::record::Item;
use crate::requests::Text;

/// All functions of the worker.
pub(crate) fn all(core: &Weak<Core>) -> Vec<Function> {
    let mut all = items::all(core);
    all.extend(list::all(core));
    all.extend(log::all(core));
    all.push(tail::function(core));
    all.extend(subscribe::all(core));
    all
}

/// The worker's core, as long as the worker has not ended.
fn of(core: &Weak<Core>) -> HandlerResult<Arc<Core>> {
    core.upgrade().ok_or_else(|| Refusal::Leaving.into_failure("LEAVING"))
}

/// A group, or what is wrong with its names.
fn place(stream: &str, group: &str, code: &str) -> HandlerResult<Place> {
    Place::new(stream, group).map_err(|text| Failure::with_code(code, text))
}

fn schema<T: JsonSchema>() -> Option<Value> {
    Some(schema_for!(T).to_value())
}

/// The schema of any JSON.
fn anything() -> Option<Value> {
    Some(Value::Bool(true))
}

/// Reads a request in JSON.
fn read_json<T: DeserializeOwned>(message: &Message) -> HandlerResult<T> {
    match message.encoding() {
        Encoding::Json | Encoding::None => {}
        other => {
            let text = format!("this function takes json, the request is {other}");
            return Err(CallError::new(ErrorCode::UnsupportedEncoding, text).into());
        }
    }
    // No body at all means that nothing was said.
    let body = if message.body().is_empty() { b"{}" } else { message.body() };
    serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(format!("the request does not fit: {error}")))
}

fn json_text(text: &[u8]) -> Message {
    Message::new(Encoding::Json, text)
}

/// The data of a request that has to have some.
fn needed(data: Option<Text>) -> HandlerResult<Arc<[u8]>> {
    match data {
        Some(data) => Ok(data.get().as_bytes().into()),
        None => Err(Failure::invalid("the request has no `data`: any JSON was wanted, null for nothing")),
    }
}

/// An item's JSON text, or null.
fn text_of(item: Option<&Item>) -> &[u8] {
    item.map_or(b"null", Item::json)
}

fn limit(wanted: Option<usize>) -> HandlerResult<usize> {
    use crate::limits::{PAGE_ENTRIES, PAGE_ENTRIES_MAX};
    match wanted.unwrap_or(PAGE_ENTRIES) {
        limit @ 1..=PAGE_ENTRIES_MAX => Ok(limit),
        limit => Err(Failure::invalid(format!("limit is {limit}, 1 to {PAGE_ENTRIES_MAX} was wanted"))),
    }
}
