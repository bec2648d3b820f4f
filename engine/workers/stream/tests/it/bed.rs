//! What every test stands on: an engine, a store in a folder of its own, the worker, a client. It must not know what is
//! tested.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, CallOptions, Failure, Function, Message, StreamCall, Worker};
use ringway_engine::Engine;
use ringway_store::files::Files;
use ringway_store::{Embedded, Options, Scan, Store};
use ringway_worker_stream::{Clock, Config, Stream};
use serde_json::{Value, json};

use crate::trouble::{Trouble, Troubled};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where the clock of a test begins, in milliseconds since 1970.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// Engine, store, worker, client. Fields are dropped in order: who calls leaves before who serves.
pub(crate) struct Bed {
    pub(crate) client: Worker,
    stream: Option<Stream>,
    store: Option<Arc<Embedded>>,
    /// What the worker finds wrong with its store; nothing unless a test says so.
    pub(crate) trouble: Arc<Trouble>,
    pub(crate) clock: Clock,
    config: Config,
    options: Options,
    pub(crate) address: String,
    _engine: Engine,
    folder: tempfile::TempDir,
}

fn open(folder: &Path, options: Options) -> Arc<Embedded> {
    let (store, report) = Embedded::open(folder, options).unwrap();
    assert!(report.damage.is_empty(), "{report:?}");
    Arc::new(store)
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        Self::on(Options::default(), config)
    }

    pub(crate) fn on(options: Options, config: Config) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-stream-test-{}-{number}", std::process::id());
        let engine = Engine::builder().address(&address).start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_MS);
        let client = Worker::builder("client").address(&address).connect().unwrap();
        let mut bed = Self {
            client,
            stream: None,
            store: None,
            trouble: Arc::default(),
            clock,
            config,
            options,
            address,
            _engine: engine,
            folder,
        };
        bed.start();
        bed
    }

    /// Opens the store and starts the worker.
    pub(crate) fn start(&mut self) {
        let store = open(self.folder.path(), self.options.clone());
        self.store = Some(Arc::clone(&store));
        let store = Arc::new(Troubled { store, trouble: Arc::clone(&self.trouble) });
        let (config, clock) = (self.config.clone(), self.clock.clone());
        self.stream = Some(Stream::start_with_clock(&self.address, store, config, clock).unwrap());
        self.client.wait_for("stream::unsubscribe", PATIENCE).unwrap();
    }

    /// Ends the worker and closes the store.
    pub(crate) fn stop(&mut self) {
        drop(self.end());
    }

    /// Ends the worker, and gives the store.
    pub(crate) fn end(&mut self) -> Embedded {
        self.stream = None;
        // The threads of the worker have gone, and with them their hold on the store.
        let store = Arc::try_unwrap(self.store.take().unwrap()).expect("somebody still has the store");
        assert!(self.client.wait_until(PATIENCE, |catalog| {
            !catalog.functions.iter().any(|function| function.id.as_str() == "stream::get")
        }));
        store
    }

    /// From the next start on, files are these.
    pub(crate) fn use_files(&mut self, files: Arc<dyn Files>) {
        self.options.files = files;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &**self.store.as_ref().unwrap()
    }

    pub(crate) fn metrics(&self) -> ringway_store::Metrics {
        self.store.as_ref().unwrap().metrics()
    }

    /// Entries of a table.
    pub(crate) fn count(&self, table: &str) -> usize {
        self.store().scan(&Scan::table(table)).unwrap().len()
    }

    pub(crate) fn another(&self, name: &str) -> Worker {
        Worker::builder(name).address(&self.address).connect().unwrap()
    }

    pub(crate) fn try_call(&self, function: &str, request: Value) -> Result<Value, CallError> {
        let options = CallOptions::new().timeout(PATIENCE);
        self.client.trigger_json_with(&format!("stream::{function}"), &request, &options)
    }

    pub(crate) fn call(&self, function: &str, request: Value) -> Value {
        self.try_call(function, request.clone())
            .unwrap_or_else(|error| panic!("{function} of {request}: {error}"))
    }

    pub(crate) fn set(&self, item: &str, data: Value) -> Value {
        self.call("set", json!({"stream_name": "s", "group_id": "g", "item_id": item, "data": data}))
    }

    pub(crate) fn get(&self, item: &str) -> Value {
        self.call("get", json!({"stream_name": "s", "group_id": "g", "item_id": item}))
    }

    pub(crate) fn delete(&self, item: &str) -> Value {
        self.call("delete", json!({"stream_name": "s", "group_id": "g", "item_id": item}))
    }

    pub(crate) fn append(&self, data: Value) -> u64 {
        let done = self.call("append", json!({"stream_name": "s", "group_id": "g", "data": data}));
        done["offset"].as_u64().unwrap()
    }

    /// A reading of the log of the usual group.
    pub(crate) fn read(&self, mut more: Value) -> Value {
        (more["stream_name"], more["group_id"]) = (json!("s"), json!("g"));
        self.call("read", more)
    }

    pub(crate) fn info(&self) -> Value {
        self.call("info", json!({"stream_name": "s", "group_id": "g"}))
    }

    /// The user's code of a refusal, with the words in case it is not the one expected.
    pub(crate) fn refusal(&self, function: &str, request: Value) -> (String, CallError) {
        let error = self.try_call(function, request).unwrap_err();
        let code = error.user_code.clone().unwrap_or_else(|| error.code.as_str().to_owned());
        (code, error)
    }

    /// A call with streams of the usual group.
    pub(crate) fn open(&self, function: &str, mut request: Value) -> StreamCall {
        (request["stream_name"], request["group_id"]) = (json!("s"), json!("g"));
        let request = Message::json(&request).map_err(Failure::into_error).unwrap();
        let options = CallOptions::new().timeout(PATIENCE);
        self.client.handle(&format!("stream::{function}")).stream(&request, &options).unwrap()
    }

    /// Waits until something holds that is certain to come.
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The next item of a stream.
pub(crate) fn next(stream: &StreamCall) -> Value {
    serde_json::from_slice(stream.recv().unwrap().expect("the stream goes on").body()).unwrap()
}

/// A function that passes on what it is told.
pub(crate) fn hear(worker: &Worker, id: &str) -> mpsc::Receiver<Value> {
    let (tell, told) = mpsc::channel();
    let hear = move |_: &ringway::Context, event: Value| {
        tell.send(event).map_err(|_| Failure::new("nobody listens"))
    };
    worker.register(Function::json(id, hear)).unwrap();
    told
}

/// Binds a trigger.
pub(crate) fn bind(
    worker: &Worker,
    id: &str,
    kind: &str,
    function: &str,
    config: Value,
) -> Result<(), CallError> {
    let mut trigger = TriggerSpec::new(id, kind, FunctionId::new(function).unwrap());
    trigger.config = config;
    worker.register_trigger(trigger)
}
