//! What every test stands on: an engine, a store in a folder of its own, the worker, a client. It must not know what is
//! tested.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringway::{CallError, CallOptions, Worker};
use ringway_engine::Engine;
use ringway_store::{Embedded, Options, Store};
use ringway_worker_state::{Clock, Config, State};
use serde_json::{Value, json};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where the clock of a test begins, in milliseconds since 1970.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// Engine, store, worker, client. Fields are dropped in order: who calls leaves before who serves.
pub(crate) struct Bed {
    pub(crate) client: Worker,
    state: Option<State>,
    store: Option<Arc<Embedded>>,
    pub(crate) clock: Clock,
    config: Config,
    options: Options,
    wrap: Box<Wrap>,
    pub(crate) address: String,
    _engine: Engine,
    folder: tempfile::TempDir,
}

/// What stands between the worker and the store.
type Wrap = dyn Fn(Arc<Embedded>) -> Arc<dyn Store> + Send + Sync;

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
        Self::on(Options::default(), config, |store| store)
    }

    /// On a store with these options, and whatever stands before it.
    pub(crate) fn on(
        options: Options,
        config: Config,
        wrap: impl Fn(Arc<Embedded>) -> Arc<dyn Store> + Send + Sync + 'static,
    ) -> Self {
        let wrap = Box::new(wrap);
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = format!("@ringway-state-test-{}-{number}", std::process::id());
        let engine = Engine::builder().address(&address).start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_MS);
        let client = Worker::builder("client").address(&address).connect().unwrap();
        let mut bed = Self {
            client,
            state: None,
            store: None,
            clock,
            config,
            options,
            wrap,
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
        let (config, clock) = (self.config.clone(), self.clock.clone());
        self.state = Some(State::start_with_clock(&self.address, (self.wrap)(store), config, clock).unwrap());
        self.client.wait_for("state::watch", PATIENCE).unwrap();
    }

    /// From the next start on this stands between the worker and the store.
    pub(crate) fn wrap(&mut self, wrap: impl Fn(Arc<Embedded>) -> Arc<dyn Store> + Send + Sync + 'static) {
        self.wrap = Box::new(wrap);
    }

    /// Ends the worker and closes the store.
    pub(crate) fn stop(&mut self) {
        self.state = None;
        let store = self.store.take().unwrap();
        // The threads of the worker have gone, and with them their hold on the store.
        let store = Arc::try_unwrap(store);
        assert!(store.is_ok(), "somebody still has the store");
        assert!(self.client.wait_until(PATIENCE, |catalog| {
            !catalog.functions.iter().any(|function| function.id.as_str() == "state::get")
        }));
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

    pub(crate) fn another(&self, name: &str) -> Worker {
        Worker::builder(name).address(&self.address).connect().unwrap()
    }

    pub(crate) fn try_call(&self, function: &str, request: Value) -> Result<Value, CallError> {
        let options = CallOptions::new().timeout(PATIENCE);
        self.client.trigger_json_with(&format!("state::{function}"), &request, &options)
    }

    pub(crate) fn call(&self, function: &str, request: Value) -> Value {
        self.try_call(function, request.clone())
            .unwrap_or_else(|error| panic!("{function} of {request}: {error}"))
    }

    pub(crate) fn set(&self, scope: &str, key: &str, value: Value) -> Value {
        self.call("set", json!({"scope": scope, "key": key, "value": value}))
    }

    pub(crate) fn get(&self, scope: &str, key: &str) -> Value {
        self.call("get", json!({"scope": scope, "key": key}))
    }

    pub(crate) fn revision(&self, scope: &str, key: &str) -> u64 {
        let found = self.call("get", json!({"scope": scope, "key": key, "with_revision": true}));
        found["revision"].as_u64().unwrap()
    }

    /// The user's code of a refusal, with the words in case it is not the one expected.
    pub(crate) fn refusal(&self, function: &str, request: Value) -> (String, CallError) {
        let error = self.try_call(function, request).unwrap_err();
        let code = error.user_code.clone().unwrap_or_else(|| error.code.as_str().to_owned());
        (code, error)
    }
}
