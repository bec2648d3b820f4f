//! Who gets what is published. A message goes into the queue of every subscription that wants its topic, under one lock, so
//! that all of them see the same order; each queue is then emptied one message at a time. It must not know its functions' ids.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use ringway::{CallOptions, TraceContext, Worker};
use ringway_worker_kit::{Binding, Bindings, Delivered, Spawner, deliver_async};
use serde_json::Value;

use crate::config::{Bound, Config};
use crate::functions::SubscriptionView;
use crate::history::{History, Message};
use crate::subscriber::{Blocked, Ended, Pushed, Subscriber};

/// All subscriptions of one worker.
pub(crate) struct Broker {
    config: Config,
    bindings: Bindings<Bound>,
    spawner: Spawner,
    /// The worker, until it is shut down.
    worker: Mutex<Option<Worker>>,
    topics: Mutex<Topics>,
}

#[derive(Debug, Default)]
struct Topics {
    by_id: BTreeMap<String, Arc<Subscriber>>,
    exact: HashMap<String, Vec<Arc<Subscriber>>>,
    /// Each with the binding that says which topics it wants.
    wild: Vec<(Arc<Binding<Bound>>, Arc<Subscriber>)>,
    history: History,
}

impl Topics {
    fn index(&mut self) {
        self.exact.clear();
        self.wild.clear();
        for subscriber in self.by_id.values() {
            let binding = subscriber.binding();
            match binding.config.pattern.exact() {
                Some(topic) => self.exact.entry(topic.to_owned()).or_default().push(Arc::clone(subscriber)),
                None => self.wild.push((binding, Arc::clone(subscriber))),
            }
        }
    }

    fn wanting(&self, topic: &str) -> Vec<Arc<Subscriber>> {
        let exact = self.exact.get(topic).into_iter().flatten();
        let wild = self.wild.iter().filter(|(binding, _)| binding.config.pattern.matches(topic));
        exact.chain(wild.map(|(_, subscriber)| subscriber)).map(Arc::clone).collect()
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Broker {
    pub(crate) fn new(config: Config, bindings: Bindings<Bound>, spawner: Spawner) -> Arc<Self> {
        Arc::new(Self { config, bindings, spawner, worker: Mutex::default(), topics: Mutex::default() })
    }

    pub(crate) fn attach(&self, worker: Worker) {
        *self.worker.lock() = Some(worker);
    }

    pub(crate) fn detach(&self) -> Option<Worker> {
        self.worker.lock().take()
    }

    /// Follows the triggers that are bound. A subscription that is bound anew keeps what waited for it, and is given nothing
    /// that it had before.
    pub(crate) fn follow_bindings(self: &Arc<Self>) {
        let mut topics = self.topics.lock();
        let live = self.bindings.all();
        let mut before = std::mem::take(&mut topics.by_id);
        for binding in live.iter() {
            let subscriber = before.remove(&binding.id).unwrap_or_else(|| {
                let Bound { pattern, config } = &binding.config;
                let first = topics.history.last(config.replay, |topic| pattern.matches(topic));
                Arc::new(Subscriber::new(binding, first))
            });
            if !Arc::ptr_eq(&subscriber.binding(), binding) {
                subscriber.swap(binding);
            }
            if subscriber.begin() {
                self.spawner.spawn(Arc::clone(self).deliver(Arc::clone(&subscriber)));
            }
            topics.by_id.insert(binding.id.clone(), subscriber);
        }
        for (subscription, gone) in before {
            let left = gone.end();
            if left > 0 {
                tracing::warn!(target: "ringway", subscription, left, "a subscriber left before it had all messages");
            }
        }
        topics.index();
    }

    /// Puts a message into all queues that want it. Where one was full whose publishers wait, that comes back.
    pub(crate) fn publish(self: &Arc<Self>, topic: String, data: Value, trace: TraceContext) -> Vec<Blocked> {
        let bytes = topic.len() + size(&data);
        let message = Arc::new(Message { topic, data, bytes, trace });
        let mut topics = self.topics.lock();
        topics.history.keep(&message, self.config.replay_max, self.config.replay_bytes_max);
        let mut full = Vec::new();
        for subscriber in topics.wanting(&message.topic) {
            match subscriber.push(&message) {
                Pushed::Queued(true) => self.spawner.spawn(Arc::clone(self).deliver(subscriber)),
                Pushed::Queued(false) | Pushed::Dropped => {}
                Pushed::Full(number) => full.push(Blocked { subscriber, number }),
            }
        }
        full
    }

    /// Empties a queue, one message after the other.
    async fn deliver(self: Arc<Self>, subscriber: Arc<Subscriber>) {
        while let Some((message, binding)) = subscriber.pop() {
            let worker = self.worker.lock().clone();
            let Some(worker) = worker else { return };
            let options = CallOptions::new().parent(message.trace);
            let ended = match deliver_async(&worker, &binding, &message.data, options).await {
                Ok(Delivered::Answered(_)) => Ended::Delivered,
                Ok(Delivered::Skipped) => Ended::Skipped,
                Err(error) => {
                    let subscription = &binding.id;
                    tracing::warn!(target: "ringway", subscription, topic = message.topic, %error, "a subscriber failed");
                    Ended::Failed(error.to_string())
                }
            };
            subscriber.note(ended);
        }
    }

    pub(crate) fn list(&self) -> Vec<SubscriptionView> {
        self.topics.lock().by_id.values().map(|subscriber| subscriber.view()).collect()
    }
}

/// About how much memory a value takes, in bytes.
fn size(value: &Value) -> usize {
    let held = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.iter().map(|(name, field)| name.len() + size(field)).sum(),
    };
    held + size_of::<Value>()
}
