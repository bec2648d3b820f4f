//! The trigger types: `durable:subscriber` (a copy of what is published to a topic) and `queue` (what is enqueued without
//! a function). Bindings come and go; whoever has subscribed once is remembered. Used by the worker's start; it must not
//! know how a message is delivered.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use ringway::protocol::control::TriggerTypeSpec;
use ringway::{CallError, ErrorCode, Worker};
use ringway_worker_kit::Bindings;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::config::SubscriberSettings;
use crate::driver::{Core, Driver};
use crate::functions::{check_name, check_queue};
use crate::runner::{Target, Wants};

/// The trigger type of durable topics.
const SUBSCRIBER: &str = "durable:subscriber";

/// The trigger type of queues.
const QUEUE: &str = "queue";

/// Configuration of a `durable:subscriber` trigger. `condition` and `condition_function_id` stand beside it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct Subscriber {
    /// The topic.
    #[serde(default)]
    topic: String,
    /// How copies are delivered.
    #[serde(default)]
    queue_config: Option<SubscriberSettings>,
}

/// Configuration of a `queue` trigger. `condition` and `condition_function_id` stand beside it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct OfQueue {
    /// The queue.
    #[serde(default)]
    queue: String,
}

/// The live bindings of both types.
#[derive(Debug, Clone)]
pub(crate) struct Triggers {
    subscribers: Bindings<Subscriber>,
    queues: Bindings<OfQueue>,
    /// Bindings whose subscription was ended while they lived; only a new one subscribes again.
    ended: Arc<Mutex<Vec<Weak<ringway_worker_kit::Binding<Subscriber>>>>>,
}

fn read<T: serde::de::DeserializeOwned>(config: &Value) -> Result<T, CallError> {
    T::deserialize(config).map_err(|error| {
        CallError::new(ErrorCode::InvalidRegistration, format!("the trigger's config does not fit: {error}"))
    })
}

fn parse_subscriber(config: &Value) -> Result<Subscriber, CallError> {
    let read: Subscriber = read(config)?;
    check_name("topic", &read.topic, "topic_not_set").map_err(ringway::Failure::into_error)?;
    let settings = read.queue_config.clone().unwrap_or_default().over(Default::default());
    let wrong = |error: crate::config::SettingsError| {
        CallError::new(ErrorCode::InvalidRegistration, format!("queue_config: {error}"))
    };
    settings.check().map_err(wrong)?;
    Ok(read)
}

fn parse_queue(config: &Value) -> Result<OfQueue, CallError> {
    let read: OfQueue = read(config)?;
    check_queue(&read.queue).map_err(ringway::Failure::into_error)?;
    Ok(read)
}

impl Triggers {
    /// Registers both types; each change of a binding reaches the driver.
    pub(crate) fn register(worker: &Worker, driver: &Driver) -> Result<(), CallError> {
        let (subscribers, of_topics) = Bindings::provider(parse_subscriber);
        let (queues, of_queues) = Bindings::provider(parse_queue);
        let triggers = Self { subscribers, queues, ended: Arc::default() };
        let of_core = triggers.clone();
        driver.run(move |core| core.triggers = Some(of_core));
        let (of_subscribers, of_queue) = (triggers.clone(), triggers.clone());
        let listen = |triggers: Self| {
            let driver = driver.clone();
            move || {
                let triggers = triggers.clone();
                driver.run(move |core| triggers.apply(core));
            }
        };
        triggers.subscribers.on_change(listen(of_subscribers));
        triggers.queues.on_change(listen(of_queue));
        let spec = |id: &str, description: &str, schema: schemars::Schema| TriggerTypeSpec {
            id: id.to_owned(),
            description: description.to_owned(),
            configuration_schema: Some(schema.to_value()),
            ..TriggerTypeSpec::default()
        };
        let description =
            "a copy of everything that is published durably to a topic, also while its worker was away";
        worker.register_trigger_type(
            spec(SUBSCRIBER, description, schemars::schema_for!(Subscriber)),
            of_topics,
        )?;
        let description = "messages that were enqueued without a function";
        worker.register_trigger_type(spec(QUEUE, description, schemars::schema_for!(OfQueue)), of_queues)
    }

    /// Has no binding that lives now count for a subscription any more.
    pub(crate) fn end(&self, topic: &str, function: &str) {
        let all = self.subscribers.all();
        let its_own = all.iter().filter(|it| it.config.topic == topic && it.function_id == function);
        self.ended.lock().extend(its_own.map(Arc::downgrade));
    }

    fn is_ended(&self, binding: &Arc<ringway_worker_kit::Binding<Subscriber>>) -> bool {
        let mut ended = self.ended.lock();
        ended.retain(|ended| ended.strong_count() > 0);
        ended.iter().any(|ended| ended.as_ptr() == Arc::as_ptr(binding))
    }

    /// Makes what is bound now what holds.
    pub(crate) fn apply(&self, core: &mut Core) {
        let mut targets: HashMap<String, Vec<Target>> = HashMap::new();
        for binding in self.subscribers.all().iter().filter(|binding| !self.is_ended(binding)) {
            let settings = binding.config.queue_config.clone().unwrap_or_default();
            let queue = core.subscribe(&binding.config.topic, &binding.function_id, &settings);
            let wants: Arc<dyn Wants> = Arc::<ringway_worker_kit::Binding<Subscriber>>::clone(binding);
            let (function, metadata) = (binding.function_id.clone(), binding.metadata.clone());
            targets.entry(queue).or_default().push(Target { function, metadata, wants });
        }
        for binding in self.queues.all().iter() {
            let wants: Arc<dyn Wants> = Arc::<ringway_worker_kit::Binding<OfQueue>>::clone(binding);
            let (function, metadata) = (binding.function_id.clone(), binding.metadata.clone());
            let target = Target { function, metadata, wants };
            targets.entry(binding.config.queue.clone()).or_default().push(target);
        }
        core.bind(targets.into_iter().map(|(queue, all)| (queue, all.into())).collect());
    }
}
