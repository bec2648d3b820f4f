//! What every test stands on: an engine, a store, the queue, a client, and functions that tell what they were given.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, Context, Function, HandlerResult, Sampler, Worker};
use ringway_engine::Engine;
use ringway_store::{Embedded, Options};
use ringway_worker_queue::{Clock, Config, Queue};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a test waits for what must happen. A test that waits that long has failed.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) client: Worker,
    pub(crate) clock: Clock,
    queue: Option<Queue>,
    store: Option<Arc<Embedded>>,
    config: Config,
    address: String,
    folder: TempDir,
    _engine: Engine,
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
        Self::over(config, clock, &open)
    }

    /// Over a store of one's own.
    pub(crate) fn over(config: Config, clock: Clock, open: &dyn Fn(&Path) -> Arc<Embedded>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-queue-test-{}-{number}", std::process::id());
        let engine = Engine::builder().address(&address).start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let queue = Queue::start_with(&address, store.clone(), config.clone(), clock.clone()).unwrap();
        let client = Worker::builder("client").address(&address).connect().unwrap();
        client.wait_for("queue::enqueue", SOON).unwrap();
        let (queue, store) = (Some(queue), Some(store));
        Self { client, clock, queue, store, config, address, folder, _engine: engine }
    }

    pub(crate) fn queue(&self) -> &Queue {
        self.queue.as_ref().unwrap()
    }

    pub(crate) fn store(&self) -> &Embedded {
        self.store.as_ref().unwrap()
    }

    /// Ends queue and store, the latter as a crash of the process would, has something done meanwhile, and starts both
    /// again.
    pub(crate) fn restart_after(&mut self, meanwhile: impl FnOnce(&Embedded)) {
        self.queue = None;
        let store = Arc::into_inner(self.store.take().unwrap()).expect("the queue has let its store go");
        store.abandon();
        let store = open(self.folder.path());
        meanwhile(&store);
        let queue =
            Queue::start_with(&self.address, store.clone(), self.config.clone(), self.clock.clone()).unwrap();
        (self.queue, self.store) = (Some(queue), Some(store));
        self.client.wait_for("queue::enqueue", SOON).unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.restart_after(|_| ());
    }

    /// Another worker.
    pub(crate) fn worker(&self, name: &str) -> Worker {
        Worker::builder(name).address(&self.address).connect().unwrap()
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
        let mut spec = TriggerSpec::new(id, kind, FunctionId::new(function).unwrap());
        spec.config = config;
        self.client.register_trigger(spec)
    }
}

fn open(folder: &Path) -> Arc<Embedded> {
    let options = Options { segment_bytes: 48 << 20, ..Options::default() };
    Arc::new(Embedded::open(folder, options).unwrap().0)
}

/// The next thing that a function is given.
pub(crate) fn next(given: &Receiver<Given>) -> Given {
    given.recv_timeout(SOON).expect("the function is called")
}
