//! An engine, a store, a clock that a test sets, the cron worker, and a worker whose function writes down what it is given. It
//! must not know what is tested.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, Failure, Function, Worker};
use ringway_engine::{Engine, Otlp};
use ringway_store::{Embedded, Options, Store};
use ringway_worker_cron::{Clock, Config, Cron};
use serde_json::{Value, json};
use std::sync::{Condvar, Mutex};

/// 2026-01-01T00:00:00Z, in milliseconds.
pub(crate) const START: i64 = 1_767_225_600_000;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the function was given, and whether it is held up.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    state: Mutex<(Vec<Value>, bool)>,
    changed: Condvar,
    pub(crate) fails: AtomicBool,
}

impl Diary {
    fn write(&self, payload: Value) -> Result<(), Failure> {
        let mut state = self.state.lock().unwrap();
        state.0.push(payload);
        self.changed.notify_all();
        while state.1 {
            state = self.changed.wait(state).unwrap();
        }
        if self.fails.load(Ordering::Relaxed) { Err(Failure::new("as wished")) } else { Ok(()) }
    }

    /// Holds the function up from now on, or lets it end.
    pub(crate) fn hold(&self, held: bool) {
        self.state.lock().unwrap().1 = held;
        self.changed.notify_all();
    }

    /// Waits for this many calls, and gives the slots of all.
    pub(crate) fn slots(&self, count: usize) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        while state.0.len() < count {
            let left = until.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("{count} calls are awaited, found {:?}", state.0));
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        state.0.iter().map(|payload| payload["scheduled_time"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn payloads(&self) -> Vec<Value> {
        self.state.lock().unwrap().0.clone()
    }
}

/// Everything that a test needs.
pub(crate) struct Stage {
    pub(crate) address: String,
    _engine: Engine,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Option<Arc<dyn Store>>,
    /// The real store, where another is around it.
    pub(crate) inner: Option<Arc<dyn Store>>,
    pub(crate) clock: Clock,
    pub(crate) cron: Option<Cron>,
    pub(crate) worker: Worker,
    pub(crate) diary: Arc<Diary>,
    pub(crate) config: Config,
}

pub(crate) fn open(folder: &std::path::Path) -> Arc<dyn Store> {
    let options = Options { segment_bytes: 64 << 20, ..Options::default() };
    Arc::new(Embedded::open(folder, options).unwrap().0)
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::over(|store| store)
    }

    /// With a store around the real one.
    pub(crate) fn over(wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self::with(Config { shutdown_ms_max: 0, ..Config::default() }, wrap)
    }

    /// With a configuration as well.
    pub(crate) fn with(config: Config, wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let address =
            format!("@ringway-cron-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let engine = Engine::builder().address(&address).otlp(Otlp::Off).start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let inner = open(folder.path());
        let store = wrap(Arc::clone(&inner));
        let clock = Clock::manual(START);
        let cron = Cron::start_with(&address, Arc::clone(&store), config.clone(), clock.clone()).unwrap();
        let worker = Worker::builder("diary").address(&address).connect().unwrap();
        let diary = Arc::new(Diary::default());
        let writer = Arc::clone(&diary);
        worker
            .register(Function::json("test::tick", move |_, payload: Value| writer.write(payload)))
            .unwrap();
        worker.wait_for("cron::list", PATIENCE).unwrap();
        Self {
            address,
            _engine: engine,
            folder,
            store: Some(store),
            inner: Some(inner),
            clock,
            cron: Some(cron),
            worker,
            diary,
            config,
        }
    }

    pub(crate) fn bind(&self, id: &str, config: Value) -> Result<(), CallError> {
        let mut trigger = TriggerSpec::new(id, "cron", FunctionId::new("test::tick").unwrap());
        trigger.config = config;
        self.worker.register_trigger(trigger)?;
        self.job(id);
        Ok(())
    }

    /// Takes a trigger back, and waits until the worker has heard of it.
    pub(crate) fn unbind(&self, id: &str) {
        self.worker.unregister_trigger(id).unwrap();
        let until = Instant::now() + PATIENCE;
        loop {
            let listed = self.call("cron::list", &json!({})).unwrap();
            if !listed["jobs"].as_array().unwrap().iter().any(|job| job["id"] == id) {
                return;
            }
            assert!(Instant::now() < until, "{id} stays: {listed}");
            std::thread::yield_now();
        }
    }

    /// Ends the worker and its store, and starts both again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }

    pub(crate) fn stop(&mut self) {
        self.cron = None;
        drop(self.store.take());
        let store = self.inner.take().unwrap();
        let until = Instant::now() + PATIENCE;
        // A call under way may hold the store a moment longer.
        while Arc::strong_count(&store) > 1 {
            assert!(Instant::now() < until, "somebody keeps the store");
            std::thread::yield_now();
        }
    }

    pub(crate) fn start(&mut self) {
        let store = open(self.folder.path());
        self.store = Some(Arc::clone(&store));
        self.inner = Some(Arc::clone(&store));
        let cron = Cron::start_with(&self.address, store, self.config.clone(), self.clock.clone()).unwrap();
        self.cron = Some(cron);
    }

    pub(crate) fn call(&self, id: &str, request: &Value) -> Result<Value, CallError> {
        self.worker.trigger_json(id, request)
    }

    /// Sets the clock, in seconds after the start.
    pub(crate) fn set(&self, seconds: i64) {
        self.clock.set(START + seconds * 1000);
    }

    /// A job, as soon as it is bound.
    pub(crate) fn job(&self, id: &str) -> Value {
        self.until(|job| job["id"] == id, id)
    }

    /// A job, as soon as nothing of it runs or waits.
    pub(crate) fn settled(&self, id: &str) -> Value {
        self.until(|job| job["id"] == id && job["running"] == 0 && job["waiting"] == 0, id)
    }

    /// A job, as soon as it is as wanted.
    pub(crate) fn until(&self, wanted: impl Fn(&Value) -> bool, what: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let listed = self.call("cron::list", &json!({}));
            let jobs = listed.as_ref().map(|listed| listed["jobs"].as_array().unwrap().clone());
            if let Some(job) = jobs.unwrap_or_default().into_iter().find(|job| wanted(job)) {
                return job;
            }
            assert!(Instant::now() < until, "{what} never came: {listed:?}");
            std::thread::yield_now();
        }
    }
}

/// A slot's name, in seconds after the start.
pub(crate) fn slot(seconds: i64) -> String {
    jiff::Timestamp::from_millisecond(START + seconds * 1000).unwrap().to_string()
}
