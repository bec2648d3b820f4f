//! How to change which functions over HTTP there are. It must not know how they are kept.

use std::sync::{Arc, Weak};

use ringway::{Context, Failure, Function, HandlerResult, Message};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::registry::{Registration, Registry};

/// What `http-functions::register` answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Registered {
    registered: bool,
}

/// What `http-functions::unregister` takes.
#[derive(Debug, Deserialize, JsonSchema)]
struct Unregister {
    function_id: String,
    /// `default` unless given.
    #[serde(default)]
    namespace: Option<String>,
}

/// What `http-functions::unregister` answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Removed {
    removed: bool,
}

/// Nothing is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
struct Nothing {}

/// What `http-functions::list` answers.
#[derive(Debug, Serialize, JsonSchema)]
struct Listed {
    functions: Vec<Registration>,
}

/// All functions of the worker.
pub(crate) fn all(registry: &Arc<Registry>) -> Vec<Function> {
    let registry = Arc::downgrade(registry);
    let (adding, removing, listing, calling) =
        (Weak::clone(&registry), Weak::clone(&registry), Weak::clone(&registry), registry);
    let register = move |_: &Context, registration: Registration| {
        of(&adding)?.register(registration)?;
        Ok(Registered { registered: true })
    };
    let unregister = move |_: &Context, asked: Unregister| {
        let namespace = asked.namespace.as_deref().unwrap_or(ringway::protocol::naming::NAMESPACE_DEFAULT);
        Ok(Removed { removed: of(&removing)?.unregister(namespace, &asked.function_id)? })
    };
    let list = move |_: &Context, _: Option<Nothing>| Ok(Listed { functions: of(&listing)?.all() });
    let call = move |context: Context, message: Message| {
        let calling = Weak::clone(&calling);
        async move { of(&calling)?.call_once(context, message).await }
    };
    vec![
        Function::raw_async("http-functions::call", call)
            .internal()
            .description("Calls a function over HTTP as `invocation` in the metadata says"),
        Function::json("http-functions::register", register)
            .pooled()
            .description("Registers a function that is served over HTTP, in place of the one of that id"),
        Function::json("http-functions::unregister", unregister)
            .pooled()
            .description("Takes a function that is served over HTTP away"),
        Function::json("http-functions::list", list)
            .pooled()
            .idempotent()
            .description("Lists the functions that are served over HTTP"),
    ]
}

fn of(registry: &Weak<Registry>) -> HandlerResult<Arc<Registry>> {
    registry.upgrade().ok_or_else(|| Failure::with_code("LEAVING", "the worker is being shut down"))
}
