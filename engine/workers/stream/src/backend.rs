//! Streams that somebody else keeps: a function with a name such as `stream::get(todos)` is called instead of the store, as at
//! iii. Asked by the functions before each operation. It must not know what such a function does.

use ringway::{CallOptions, Context, Failure, HandlerResult, Message};
use serde_json::Value;

/// The function that does this instead of the store, if somebody serves it. Costs a look at the catalog.
pub(crate) fn of(context: &Context, operation: &str, stream: &str) -> Option<String> {
    let id = format!("stream::{operation}({stream})");
    // Names that no function can have need not be looked for.
    ringway::protocol::FunctionId::new(&id).ok()?;
    (context.worker().handle(&id).replicas() > 0).then_some(id)
}

/// Passes a request on as it came.
pub(crate) async fn ask(context: &Context, id: &str, request: &Message) -> HandlerResult<Value> {
    let request: Value = serde_json::from_slice(request.body())?;
    Ok(context.worker().trigger_json_async(id, &request, &CallOptions::new()).await?)
}

/// A field that the answer has to have.
pub(crate) fn field<'a>(id: &str, answer: &'a Value, name: &str) -> HandlerResult<&'a Value> {
    answer.get(name).ok_or_else(|| {
        Failure::with_code(
            "JSON_ERROR",
            format!("`{id}` answered {answer}, an object with `{name}` was wanted"),
        )
    })
}
