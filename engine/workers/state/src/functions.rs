//! The functions of the worker: what callers send becomes operations and ranges, what is found becomes their reply. Values
//! pass as they lie in the store, without being parsed. It must not know how anything is kept.

mod read;
mod watch;
mod write;

use std::sync::{Arc, Weak};

use ringway::protocol::CallError;
use ringway::{Encoding, ErrorCode, Failure, Function, HandlerResult, Message};
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::core::Core;
use crate::error::WriteError;

/// All functions of the worker.
pub(crate) fn all(core: &Weak<Core>) -> Vec<Function> {
    let mut all = write::all(core);
    all.extend(read::all(core));
    all.push(watch::function(core));
    all
}

/// The worker's core, as long as the worker has not ended.
fn of(core: &Weak<Core>) -> HandlerResult<Arc<Core>> {
    core.upgrade().ok_or_else(|| WriteError::Leaving.into_failure("LEAVING"))
}

fn schema<T: JsonSchema>() -> Option<Value> {
    Some(schema_for!(T).to_value())
}

/// The schema of any JSON.
fn anything() -> Option<Value> {
    Some(Value::Bool(true))
}

/// Reads a request in JSON.
fn read_json<T: DeserializeOwned>(encoding: Encoding, body: &[u8]) -> HandlerResult<T> {
    expect_json(encoding)?;
    // No body at all means that nothing was said.
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| unfit(&error))
}

fn expect_json(encoding: Encoding) -> HandlerResult<()> {
    match encoding {
        Encoding::Json | Encoding::None => Ok(()),
        other => {
            let text = format!("this function takes json, the request is {other}");
            Err(CallError::new(ErrorCode::UnsupportedEncoding, text).into())
        }
    }
}

fn unfit(error: &serde_json::Error) -> Failure {
    Failure::invalid(format!("the request does not fit: {error}"))
}

fn json_text(text: &[u8]) -> Message {
    Message::new(Encoding::Json, text)
}
