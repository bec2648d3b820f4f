//! What every test stands on: an engine, a store, the queue, a client, and functions that tell what they were given.

use std::ops::Deref;
use std::sync::mpsc::{Receiver, channel};

use ringway::{CallError, Context, Function, HandlerResult, Sampler, Worker};
use ringway_store::{Embedded, Options};
use ringway_worker_bed::Bed;
pub(crate) use ringway_worker_bed::PATIENCE as SOON;
use ringway_worker_queue::{Clock, Config, Queue};
use serde_json::{Value, json};

/// Everything that runs.
pub(crate) struct Stage(Bed<Queue>);

impl Deref for Stage {
    type Target = Bed<Queue>;

    fn deref(&self) -> &Bed<Queue> {
        &self.0
    }
}

/// What a function was given.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) data: Value,
    pub(crate) metadata: Value,
    pub(crate) trace_id: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Config::default(), Clock::system())
    }

    /// With settings of queues.
    pub(crate) fn configured(queues: Value) -> Self {
        let config = serde_json::from_value(json!({ "queue_configs": queues })).unwrap();
        Self::with(config, Clock::system())
    }

    pub(crate) fn with(config: Config, clock: Clock) -> Self {
        Self::over(config, clock, Options { segment_bytes: 48 << 20, ..Options::default() })
    }

    /// Over a store with these options.
    pub(crate) fn over(config: Config, clock: Clock, options: Options) -> Self {
        let mut bed = Bed::new("queue", "enqueue", move |address, store, clock| {
            Queue::start_with(address, store, config.clone(), clock)
        });
        (bed.clock, bed.options) = (clock, options);
        bed.start();
        Self(bed)
    }

    /// Ends queue and store, the latter as a crash of the process would, has something done meanwhile, and starts both
    /// again.
    pub(crate) fn restart_after(&mut self, meanwhile: impl FnOnce(&Embedded)) {
        self.0.end().abandon();
        self.0.start_after(meanwhile);
    }

    pub(crate) fn restart(&mut self) {
        self.restart_after(|_| ());
    }

    /// Another worker, whose calls are traced.
    pub(crate) fn traced(&self, name: &str, sampler: Sampler) -> Worker {
        Worker::builder(name).address(&self.address).sampler(sampler).connect().unwrap()
    }

    pub(crate) fn call(&self, id: &str, request: Value) -> Value {
        self.client.trigger_json(id, &request).unwrap()
    }

    pub(crate) fn fail(&self, id: &str, request: Value) -> CallError {
        self.client.trigger_json(id, &request).unwrap_err()
    }

    /// Enqueues and returns the id.
    pub(crate) fn enqueue(&self, request: Value) -> String {
        self.call("queue::enqueue", request)["id"].as_str().unwrap().to_owned()
    }

    /// Waits until a message has a status, and returns its receipt.
    pub(crate) fn until(&self, id: &str, status: &str) -> Value {
        let started = std::time::Instant::now();
        loop {
            let receipt = self.call("queue::receipt", json!({ "id": id }));
            if receipt["status"] == status {
                return receipt;
            }
            let ended = receipt["ended_ms"].is_number();
            assert!(started.elapsed() < SOON && !ended, "wanted {status}, found {receipt}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn stats(&self, queue: &str) -> Value {
        self.call("queue::stats", json!({ "topic": queue }))
    }

    /// Registers a function with a worker; what it was given comes out of the channel, before it answers.
    pub(crate) fn serve(
        worker: &Worker,
        id: &str,
        answer: impl Fn(&Given) -> HandlerResult<Value> + Send + Sync + 'static,
    ) -> Receiver<Given> {
        let (give, given) = channel();
        let call = move |context: &Context, data: Value| {
            let metadata = context.metadata().cloned().unwrap_or_default();
            let it = Given { data, metadata, trace_id: context.trace().trace_id.to_string() };
            let _nobody_listens = give.send(it.clone());
            answer(&it)
        };
        worker.register(Function::json(id, call).pooled()).unwrap();
        given
    }

    /// Registers a function that succeeds.
    pub(crate) fn accept(&self, id: &str) -> Receiver<Given> {
        Self::serve(&self.client, id, |_| Ok(Value::Null))
    }

    /// Binds a trigger.
    pub(crate) fn bind(&self, id: &str, kind: &str, function: &str, config: Value) -> Result<(), CallError> {
        ringway_worker_bed::bind(&self.client, id, kind, function, config)
    }
}

/// The next thing that a function is given.
pub(crate) fn next(given: &Receiver<Given>) -> Given {
    given.recv_timeout(SOON).expect("the function is called")
}
