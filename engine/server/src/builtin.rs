//! The engine's own worker: an ordinary worker on the public SDK, attached to the engine's own socket, that serves what the
//! engine can tell. Questions are answered from the catalog and the store under their locks; whatever changes something
//! goes to the control thread.

use std::sync::Arc;

use ringway::{CallError, Context, Failure, Function, HandlerResult, Worker};
use ringway_engine_core::LISTING_FUNCTIONS;
use ringway_protocol::naming;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::relay;
use crate::shared::Shared;

mod changes;
mod ingest;
mod memory;
mod records;
mod status;
mod traces;
mod triggers;
mod workers;

use changes::Changes;
use records::Records;
pub(crate) use status::activity;

/// The engine's worker and the threads that tell of changes and records.
#[derive(Debug)]
pub(crate) struct Builtin {
    pub(crate) worker: Worker,
    changes: Changes,
    records: Records,
}

impl Builtin {
    /// Attaches the engine's worker and registers its functions.
    pub(crate) fn start(shared: &Arc<Shared>, address: &str) -> Result<Self, CallError> {
        let worker = Worker::builder(naming::ENGINE_WORKER_NAME)
            .address(address)
            .id(shared.engine_id)
            .runtime("engine")
            .description("the engine's own functions")
            .without_reconnect()
            // A call that is passed on lasts as long as its caller lets it.
            .default_timeout(None)
            .zone_of({
                let shared = Arc::downgrade(shared);
                move |worker| relay::zone_of(&*shared.upgrade()?, worker)
            })
            .connect()?;
        worker.register_all(functions(shared))?;
        relay::serve(&worker, shared)?;
        let changes = Changes::start(&worker, shared)?;
        let records = Records::start(&worker, shared)?;
        Ok(Self { worker, changes, records })
    }

    /// Leaves.
    pub(crate) fn stop(self) {
        self.records.stop();
        self.changes.stop();
        self.worker.shut_down();
    }
}

fn functions(shared: &Arc<Shared>) -> Vec<Function> {
    let mut functions: Vec<Function> = LISTING_FUNCTIONS.iter().map(|id| listing(shared, id)).collect();
    functions.extend([
        triggers::register(shared),
        triggers::unregister(shared),
        status::health(shared),
        status::metrics(shared),
        traces::list(shared),
        traces::tree(shared),
        traces::group_by(shared),
        traces::clear(shared),
        traces::logs(shared),
        traces::clear_logs(shared),
        workers::register(shared),
        memory::list(shared),
        ingest::ingest(shared),
    ]);
    functions
}

fn listing(shared: &Arc<Shared>, id: &'static str) -> Function {
    answer(shared, id, move |shared, context, input| {
        let mut answer = shared.core.read().query(Some(context.caller()), id, &input)?;
        if id == naming::WORKERS_INFO {
            status::add_activity(context.worker(), &mut answer["worker"]);
        }
        Ok(answer)
    })
    .description("a list of what the engine knows, as its caller may see it")
}

/// Makes a function that answers a question about the engine.
fn answer(
    shared: &Arc<Shared>,
    id: &str,
    handler: impl Fn(&Shared, &Context, Value) -> HandlerResult<Value> + Send + Sync + 'static,
) -> Function {
    let shared = Arc::clone(shared);
    let call = move |context: &Context, input: Value| handler(&shared, context, input);
    Function::json::<Value, Value>(id, call).pooled().idempotent().internal()
}

/// Reads a question. Null is one without fields.
fn read<T: DeserializeOwned>(input: Value) -> HandlerResult<T> {
    let input = if input.is_null() { Value::Object(serde_json::Map::new()) } else { input };
    serde_json::from_value(input).map_err(|error| Failure::invalid(error.to_string()))
}
