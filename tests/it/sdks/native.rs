//! The native worker among the actors: the same functions, on Ringway's own SDK. It must not know who calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, CallOptions, Context, Enqueue, Failure, Function, HandlerResult, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::stage::attach;

#[derive(Deserialize, JsonSchema)]
struct Terms {
    a: f64,
    b: f64,
}

#[derive(Serialize, JsonSchema)]
struct Sum {
    sum: f64,
}

/// What `call` is asked with.
#[derive(Deserialize, JsonSchema)]
struct Asked {
    function: String,
    #[serde(default)]
    data: Value,
    metadata: Option<Value>,
    action: Option<Action>,
    timeout_ms: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Action {
    Void,
    Enqueue { queue: String },
}

/// Attaches it and registers its functions.
pub(crate) fn start(address: &str, name: &'static str) -> Worker {
    let worker = attach(address, name);
    let channels = super::native_channels::functions(name);
    let functions = [plain(name), calling(name), remembering(name), channels].into_iter().flatten();
    worker.register_all(functions.collect()).expect("the functions are registered");
    worker
}

fn plain(name: &'static str) -> Vec<Function> {
    let id = |id: &str| format!("{name}::{id}");
    vec![
        Function::json(&id("identity"), move |_, _: Value| {
            Ok(json!({ "name": name, "sdk": "ringway", "pid": std::process::id() }))
        }),
        Function::json(&id("echo"), |context, input: Value| {
            let (data, caller) = unstamped(input);
            Ok(json!({ "data": data, "caller": caller, "metadata": context.metadata() }))
        }),
        Function::json(&id("add"), |_, Terms { a, b }: Terms| Ok(Sum { sum: a + b })),
        Function::json(&id("fail"), |_, data: Value| -> HandlerResult<Value> {
            let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
            Err(Failure::with_code(text("code"), text("message")))
        }),
        Function::json(&id("silent"), |_, _: Value| Ok(Value::Null)),
        Function::json(&id("wait"), |_, data: Value| {
            std::thread::sleep(Duration::from_millis(data["ms"].as_u64().unwrap_or_default()));
            Ok(json!({ "waited": data["ms"] }))
        })
        .pooled(),
    ]
}

fn calling(name: &'static str) -> Vec<Function> {
    let id = |id: &str| format!("{name}::{id}");
    vec![
        Function::json(&id("call"), |context, asked: Asked| {
            Ok(match call(context, &asked) {
                Ok(answer) => json!({ "ok": answer }),
                Err(error) => {
                    let code = error.user_code.unwrap_or_else(|| error.code.as_str().to_owned());
                    json!({ "error": { "code": code, "message": error.message } })
                }
            })
        })
        .pooled(),
        Function::json(&id("relay"), move |context, data: Value| {
            let mut names = vec![json!(name)];
            if let Some((next, path)) = data["path"].as_array().and_then(|path| path.split_first()) {
                let next = next.as_str().unwrap_or_default();
                let answer = context.worker().trigger_json(next, &json!({ "path": path }))?;
                names.extend(answer.as_array().cloned().unwrap_or_default());
            }
            Ok(Value::Array(names))
        })
        .pooled(),
    ]
}

fn call(context: &Context, asked: &Asked) -> Result<Value, CallError> {
    let worker = context.worker();
    match &asked.action {
        None => {
            let mut options = CallOptions::new();
            if let Some(metadata) = &asked.metadata {
                options = options.metadata(metadata.clone());
            }
            if let Some(ms) = asked.timeout_ms {
                options = options.timeout(Duration::from_millis(ms));
            }
            worker.trigger_json_with(&asked.function, &asked.data, &options)
        }
        Some(Action::Void) => worker.send_json(&asked.function, &asked.data).map(|()| Value::Null),
        Some(Action::Enqueue { queue }) => {
            let receipt = worker.enqueue(&asked.function, &asked.data, &Enqueue::to(queue.as_str()))?;
            Ok(json!({ "messageReceiptId": receipt.id() }))
        }
    }
}

fn remembering(name: &'static str) -> Vec<Function> {
    let id = |id: &str| format!("{name}::{id}");
    let notes: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = Arc::clone(&notes);
    let triggers: Arc<Mutex<HashMap<String, String>>> = Arc::default();
    let bound = Arc::clone(&triggers);
    vec![
        Function::json(&id("note"), move |context, input: Value| {
            // A queue tells native workers of the delivery; what the trigger said is within.
            let metadata = match context.delivery() {
                Some(_) => context.metadata().and_then(|delivery| delivery.get("trigger")),
                None => context.metadata(),
            };
            kept.lock().push(json!({ "data": unstamped(input).0, "metadata": metadata }));
            Ok(Value::Null)
        }),
        Function::json(&id("noted"), move |_, _: Value| Ok(json!({ "notes": *notes.lock() }))),
        Function::json(&id("bind"), move |context, data: Value| {
            let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
            let function =
                FunctionId::new(&text("function")).map_err(|error| Failure::invalid(error.to_string()))?;
            let mut trigger = TriggerSpec::new(format!("native-{}", text("key")), text("type"), function);
            trigger.config = data["config"].clone();
            trigger.metadata = Some(data["metadata"].clone()).filter(|metadata| !metadata.is_null());
            bound.lock().insert(text("key"), trigger.id.clone());
            context.worker().register_trigger(trigger)?;
            Ok(Value::Null)
        })
        .pooled(),
        Function::json(&id("unbind"), move |context, data: Value| {
            if let Some(id) = triggers.lock().remove(data["key"].as_str().unwrap_or_default()) {
                context.worker().unregister_trigger(&id)?;
            }
            Ok(Value::Null)
        })
        .pooled(),
    ]
}

/// An object as whoever called has sent it, and who that was.
fn unstamped(mut input: Value) -> (Value, Option<Value>) {
    let caller = input.as_object_mut().and_then(|fields| fields.remove("_caller_worker_id"));
    (input, caller)
}
