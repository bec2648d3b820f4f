//! Functions that a client registers and somebody else serves over HTTP. They are the client's, and go with it; each call is
//! handed to the worker `http-functions`, which knows what may be called and how. It must not know HTTP.
//!
//! What is wrong with such a function is told to whoever calls it, with iii's codes: a registration is never answered, and a
//! rejection with a code that an SDK does not know may end its connection.

use std::sync::{Arc, Weak};

use ringway::{CallError, CallOptions, Context, ErrorCode, Function, HandlerResult, Message};
use serde_json::{Value, json};

use super::Session;

/// What makes the requests.
const CALL: &str = "http-functions::call";

/// A function that is called as its `invocation` says.
pub(super) fn function(id: &str, invocation: Value, client: Weak<Session>) -> Function {
    let about = Arc::new(json!({"function_id": id, "invocation": invocation}));
    let id = Arc::<str>::from(id);
    Function::json_text_async(&Arc::clone(&id), move |context, message| {
        // Whoever observes it sees its calls as those of any other function of the client.
        let client = client.upgrade();
        let begun = client.as_ref().and_then(|client| client.begun(&id, &context, &message));
        let called = call(Arc::clone(&about), context, message);
        async move {
            let result = called.await.map_err(ringway::Failure::into_error);
            if let (Some(client), Some(begun)) = (client, begun) {
                client.ended(&begun, result.as_ref());
            }
            Ok(result?)
        }
    })
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
