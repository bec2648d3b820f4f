//! The pub/sub worker: `publish` gives a message to every subscription that wants its topic. Each subscription has a bounded
//! queue of its own, so that a slow subscriber delays nobody else. In memory: what must not be lost belongs in a queue.
//!
//! Where to start: `broker` has publish and delivery, `subscriber` the queue, `pattern` what topics mean. This crate must not
//! know the engine.

#![forbid(unsafe_code)]

pub mod config;

pub mod functions;

mod pattern;

mod history;

mod subscriber;

mod broker;

use std::sync::Arc;
use std::time::Duration;

use ringway::protocol::control::TriggerTypeSpec;
use ringway::{CallError, Worker};
use ringway_worker_kit::{Bindings, Crew};

pub use config::Config;
pub use pattern::TOPIC_BYTES_MAX;

use broker::Broker;
use config::{Bound, SubscribeConfig};

/// The trigger type that this worker provides.
pub const TRIGGER_TYPE: &str = "subscribe";

/// Why the worker could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The engine refused it, or there is none.
    #[error(transparent)]
    Engine(#[from] CallError),
    /// The system gives no more threads.
    #[error("the pub/sub worker could not be set up: {0}")]
    System(#[from] std::io::Error),
}

/// The pub/sub worker. Dropping it, or shutting it down, ends it; what waits in queues is lost then.
#[derive(Debug)]
pub struct PubSub {
    broker: Arc<Broker>,
    _crew: Crew,
}

impl PubSub {
    /// Attaches to the engine at an address and serves the trigger type `subscribe` and the functions `publish` and
    /// `pubsub::list`.
    ///
    /// # Errors
    /// [`StartError`]: the engine refuses, or the system.
    pub fn start(address: &str, config: Config) -> Result<Self, StartError> {
        let crew = Crew::start("ringway-pubsub", config.threads)?;
        let (bindings, provider) = Bindings::provider(Bound::parse);
        let timeout = Duration::from_millis(config.timeout_ms);
        let broker = Broker::new(config, bindings.clone(), crew.spawner());
        let worker = Worker::builder("pubsub")
            .address(address)
            .description("Gives what is published to those who subscribed")
            .default_timeout(Some(timeout))
            .connect()?;
        broker.attach(worker.clone());
        // From here on, dropping it ends it.
        let pubsub = Self { broker, _crew: crew };
        let listener = Arc::downgrade(&pubsub.broker);
        bindings.on_change(move || {
            if let Some(broker) = listener.upgrade() {
                broker.follow_bindings();
            }
        });
        worker.register_all(functions::all(&pubsub.broker))?;
        worker.register_trigger_type(
            TriggerTypeSpec {
                id: TRIGGER_TYPE.to_owned(),
                description: "Calls a function with what is published to a topic".to_owned(),
                configuration_schema: Some(schemars::schema_for!(SubscribeConfig).to_value()),
                request_schema: None,
                response_schema: None,
            },
            provider,
        )?;
        Ok(pubsub)
    }

    /// Ends it, as dropping it does.
    pub fn shut_down(self) {
        drop(self);
    }
}

impl Drop for PubSub {
    fn drop(&mut self) {
        if let Some(worker) = self.broker.detach() {
            worker.shut_down();
        }
    }
}
