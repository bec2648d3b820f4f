//! Functions that a client registers and somebody else serves over HTTP. They are the client's, and go with it; each call is
//! handed to the worker `http-functions`, which knows what may be called and how. It must not know HTTP.
//!
//! What is wrong with such a function is told to whoever calls it, with iii's codes: a registration is never answered, and a
//! rejection with a code that an SDK does not know may end its connection.

use std::sync::Arc;

use ringway::{CallError, CallOptions, Context, ErrorCode, Function, HandlerResult, Message};
use serde_json::{Value, json};

/// What makes the requests.
const CALL: &str = "http-functions::call";

/// A function that is called as its `invocation` says.
pub(super) fn function(id: &str, invocation: Value) -> Function {
    let about = Arc::new(json!({"function_id": id, "invocation": invocation}));
    Function::json_text_async(id, move |context, message| call(Arc::clone(&about), context, message))
}

async fn call(about: Arc<Value>, context: Context, message: Message) -> HandlerResult<Message> {
    let mut options = CallOptions::new().metadata(Value::clone(&about)).parent(context.trace());
    if let Some(deadline_ns) = context.deadline_ns() {
        options = options.deadline_ns(deadline_ns);
    }
    if let Some(baggage) = context.baggage() {
        options = options.baggage(baggage.clone());
    }
    match context.worker().handle(CALL).call_async_with(&message, &options).await {
        Err(error) if error.code == ErrorCode::NotFound => {
            let text = "functions over HTTP are turned off: `workers.http-functions` in `ringway.yaml` turns them on";
            Err(CallError::new(ErrorCode::NotFound, text).into())
        }
        result => Ok(result?),
    }
}
