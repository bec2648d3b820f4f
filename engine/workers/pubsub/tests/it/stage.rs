//! An engine, the pub/sub worker, and subscribers that write down what they are given. It must not know what is tested.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use ringway::protocol::FunctionId;
use ringway::protocol::control::TriggerSpec;
use ringway::{CallError, Function, Worker};
use ringway_engine::{Engine, Otlp};
use ringway_worker_pubsub::{Config, PubSub};
use serde_json::{Value, json};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What each function was given, and which are held up.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    state: Mutex<HashMap<String, (Vec<Value>, bool)>>,
    changed: Condvar,
}

impl Diary {
    fn write(&self, name: &str, payload: Value) {
        let mut state = self.state.lock().unwrap();
        state.entry(name.to_owned()).or_default().0.push(payload);
        self.changed.notify_all();
        while state[name].1 {
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Holds a function up from now on, or lets it go on.
    pub(crate) fn hold(&self, name: &str, held: bool) {
        self.state.lock().unwrap().entry(name.to_owned()).or_default().1 = held;
        self.changed.notify_all();
    }

    /// Waits for this many calls of a function, and gives what it was given.
    pub(crate) fn of(&self, name: &str, count: usize) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        loop {
            let found = state.get(name).map(|(found, _)| found.clone()).unwrap_or_default();
            if found.len() >= count {
                return found;
            }
            let left = until.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("{name}: {count} are awaited, found {found:?}"));
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// Everything that a test needs.
pub(crate) struct Stage {
    pub(crate) address: String,
    _engine: Engine,
    _pubsub: PubSub,
    pub(crate) worker: Worker,
    pub(crate) diary: Arc<Diary>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let address =
            format!("@ringway-pubsub-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let engine = Engine::builder().address(&address).otlp(Otlp::Off).start().unwrap();
        let pubsub = PubSub::start(&address, Config { replay_max: 4, ..Config::default() }).unwrap();
        let worker = Worker::builder("diary").address(&address).connect().unwrap();
        worker.wait_for("publish", PATIENCE).unwrap();
        Self { address, _engine: engine, _pubsub: pubsub, worker, diary: Arc::default() }
    }

    /// Registers a function of this name that writes into the diary, and subscribes it.
    pub(crate) fn subscribe(&self, name: &str, config: Value) -> Result<(), CallError> {
        let (diary, own) = (Arc::clone(&self.diary), name.to_owned());
        let id = format!("test::{name}");
        self.worker.register(Function::json(&id, move |_, payload: Value| {
            diary.write(&own, payload);
            Ok(())
        }))?;
        self.bind(name, config)
    }

    /// Subscribes a function that is registered, in place of its subscription of before.
    pub(crate) fn bind(&self, name: &str, config: Value) -> Result<(), CallError> {
        let function = FunctionId::new(&format!("test::{name}")).unwrap();
        let mut trigger = TriggerSpec::new(name, "subscribe", function);
        trigger.config = config;
        self.worker.register_trigger(trigger)
    }

    pub(crate) fn publish(&self, topic: &str, data: Value) {
        self.worker.trigger_json("publish", &json!({"topic": topic, "data": data})).unwrap();
    }

    /// A subscription, as soon as it is as wanted.
    pub(crate) fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.look(name, |found| found.cloned().filter(|found| wanted(found)))
    }

    /// Waits until a subscription is no longer bound.
    pub(crate) fn until_gone(&self, name: &str) {
        self.look(name, |found| found.is_none().then_some(()));
    }

    fn look<T>(&self, name: &str, wanted: impl Fn(Option<&Value>) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            let listed = self.worker.trigger_json("pubsub::list", &json!({})).unwrap();
            let found = listed["subscriptions"].as_array().unwrap().iter().find(|found| found["id"] == name);
            if let Some(found) = wanted(found) {
                return found;
            }
            assert!(Instant::now() < until, "{name} never came so far: {listed}");
            std::thread::yield_now();
        }
    }
}
