//! The functions of the worker: what callers send becomes operations and ranges, what is found becomes their reply. Values
//! pass as they lie in the store, without being parsed. It must not know how anything is kept.

mod read;
mod watch;
mod write;

use std::sync::{Arc, Weak};

use ringway::{Function, HandlerResult};
use schemars::{JsonSchema, schema_for};
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
