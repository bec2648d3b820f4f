//! The other end of triggers and streams: a function that passes on what it is told, its binding, the next item. Used by
//! tests beside a bed. It must not know what is told.

use std::sync::mpsc;

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, Context, Failure, Function, StreamCall, Worker};
use serde_json::Value;

/// The next item of a stream.
///
/// # Panics
/// When the stream has failed or ended, or the item is no JSON.
#[must_use]
pub fn next(stream: &StreamCall) -> Value {
    serde_json::from_slice(stream.recv().unwrap().expect("the stream goes on").body()).unwrap()
}

/// Registers a function that passes on what it is told.
///
/// # Panics
/// When the worker refuses the function.
#[must_use]
pub fn hear(worker: &Worker, id: &str) -> mpsc::Receiver<Value> {
    let (tell, told) = mpsc::channel();
    let hear = move |_: &Context, event: Value| tell.send(event).map_err(|_| Failure::new("nobody listens"));
    worker.register(Function::json(id, hear)).unwrap();
    told
}

/// Binds a function to a trigger of a type.
///
/// # Errors
/// What whoever has the type says of the config.
///
/// # Panics
/// When the function's id is none.
pub fn bind(worker: &Worker, id: &str, kind: &str, function: &str, config: Value) -> Result<(), CallError> {
    let mut trigger = TriggerSpec::new(id, kind, FunctionId::new(function).unwrap());
    trigger.config = config;
    worker.register_trigger(trigger)
}
