//! The other end of triggers and streams: a function that passes on what it is told, its binding, the next item. Used by
//! tests beside a bed. It must not know what is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{
    CallError, CallOptions, Context, Failure, Function, SpanId, StreamCall, TraceContext, TraceId, Worker,
};
use serde_json::Value;

use crate::PATIENCE;

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

/// What a function is told, each with the trace that it is told in. It can be kept from working.
#[derive(Debug)]
pub struct Traced {
    told: mpsc::Receiver<(Value, TraceId)>,
    works: Arc<AtomicBool>,
}

impl Traced {
    /// Has the function work from now on, or fail.
    pub fn works(&self, works: bool) {
        self.works.store(works, Ordering::SeqCst);
    }

    /// The next event, and its trace.
    ///
    /// # Panics
    /// When none comes.
    #[must_use]
    pub fn next(&self) -> (Value, TraceId) {
        self.told.recv_timeout(PATIENCE).unwrap()
    }
}

/// As [`hear`], with traces.
///
/// # Panics
/// When the worker refuses the function.
#[must_use]
pub fn hear_traced(worker: &Worker, id: &str) -> Traced {
    let (tell, told) = mpsc::channel();
    let works = Arc::new(AtomicBool::new(true));
    let does_it = Arc::clone(&works);
    let hear = move |context: &Context, event: Value| {
        if !does_it.load(Ordering::SeqCst) {
            return Err(Failure::new("it was told not to work"));
        }
        tell.send((event, context.trace().trace_id)).map_err(|_| Failure::new("nobody listens"))
    };
    worker.register(Function::json(id, hear)).unwrap();
    Traced { told, works }
}

/// How to call within a trace of one's own, and that trace.
#[must_use]
pub fn in_trace(number: u8) -> (CallOptions, TraceId) {
    let trace_id = TraceId::from_bytes([number; 16]);
    let parent = TraceContext { trace_id, span_id: SpanId::from_bytes([number; 8]), flags: 1 };
    (CallOptions::new().parent(parent), trace_id)
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
