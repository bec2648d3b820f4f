//! What surrounds the messages: settings and modes of queues, subscriptions, which functions are there, and what users are
//! told about all of it. Used by the functions, the triggers and the driver; it must not know how a message is delivered.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::queue::{BOUND, State};
use super::{Counts, Machine, Pending, Standing, Ticket};
use crate::config::QueueSettings;
use crate::record::{self, Mode, Place, Writes};

/// How long until a function is looked for again when nobody could say whether it is there, in milliseconds.
const LOOK_AGAIN_MS: u64 = 1000;

impl Machine {
    /// Changes settings or mode of a queue, and writes both down.
    pub(crate) fn configure(&mut self, now_ms: u64, name: &str, record: &record::SettingsRecord) -> Ticket {
        let mut writes = Writes::default();
        writes.put(record::SETTINGS, name.as_bytes().to_vec(), record);
        self.records.insert(name.to_owned(), record.clone());
        let settings = record.settings.clone().unwrap_or_else(|| self.config.of(name));
        self.apply(now_ms, name, settings);
        let queue = self.queue(name);
        self.queues[queue].mode = record.mode;
        self.run(queue, now_ms);
        self.keep(writes)
    }

    /// Changes the settings of a queue. What changes how messages stand in lanes is for an empty queue.
    pub(crate) fn apply(&mut self, now_ms: u64, name: &str, settings: QueueSettings) {
        let queue = self.queue(name);
        self.queues[queue].settings = settings;
        self.queues[queue].refresh_all(now_ms);
        self.run(queue, now_ms);
    }

    /// The settings that a queue has without any by function.
    pub(crate) fn settings_of_file(&self, name: &str) -> QueueSettings {
        self.config.of(name)
    }

    /// What was set of a queue by function.
    pub(crate) fn record(&self, name: &str) -> record::SettingsRecord {
        self.records.get(name).cloned().unwrap_or_default()
    }

    /// Writes down what holds in memory already: until it is on disk, whatever the store says meanwhile.
    pub(crate) fn keep(&mut self, writes: Writes) -> Ticket {
        let again = writes.clone();
        self.commit(Pending::Kept { writes: again, ended: None }, writes)
    }

    /// Ends a subscription with what is to be written for that: when it is on disk, everything ends that is still to be
    /// delivered of its queue and came before, what is still being written included.
    pub(crate) fn end_subscription(&mut self, name: &str, mut writes: Writes) -> Ticket {
        let (queue, below) = (self.queue(name), self.numbers.next_seq());
        writes.put(record::ENDED, name.as_bytes().to_vec(), &below);
        let again = writes.clone();
        self.commit(Pending::Kept { writes: again, ended: Some((queue, below)) }, writes)
    }

    /// Whether a queue was ever used or set.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Gives the queue of a subscription the settings that its trigger asks for. Its type stays while it holds messages,
    /// which stand in lanes by it.
    pub(crate) fn subscribed(&mut self, now_ms: u64, subscription: &record::SubscriptionRecord) {
        let name = &subscription.queue;
        let mut settings = subscription.settings.over(self.config.of(name));
        let (old, _) = self.settings(name);
        if settings.kind != old.kind && !self.is_empty(name) {
            tracing::warn!(
                queue = name,
                "its `type` cannot change while it holds messages, and stays as it is"
            );
            settings.kind = old.kind;
        }
        self.apply(now_ms, name, settings);
    }

    /// Settings and mode of a queue; those of a queue that was never used are those of its name.
    pub(crate) fn settings(&self, name: &str) -> (QueueSettings, Mode) {
        match self.names.get(name) {
            Some(queue) => (self.queues[*queue].settings.clone(), self.queues[*queue].mode),
            None => (self.config.of(name), Mode::Active),
        }
    }

    /// Says what is bound to a queue, for messages that name no function: of each binding, the functions that it needs.
    pub(crate) fn set_bound(&mut self, now_ms: u64, name: &str, bindings: &[Vec<String>]) {
        let queue = self.queue(name);
        let number = |functions: &Vec<String>| functions.iter().map(|id| self.function(id)).collect();
        self.queues[queue].bindings = bindings.iter().map(number).collect();
        if !bindings.is_empty() {
            self.queues[queue].unpark(BOUND, now_ms);
            self.run(queue, now_ms);
        }
    }

    /// Functions that were not there and may be looked for.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.absent.iter().map(|number| self.functions[*number as usize].to_string()).collect()
    }

    /// A function that was not there is there.
    pub(crate) fn found(&mut self, now_ms: u64, function: &str) {
        let Some(number) = self.function_numbers.get(function).copied() else { return };
        if self.absent.remove(&number) {
            for queue in 0..self.queues.len() {
                self.queues[queue].unpark(number, now_ms);
                if self.queues[queue].bindings.iter().flatten().any(|needed| *needed == number) {
                    self.queues[queue].unpark(BOUND, now_ms);
                }
                self.run(queue, now_ms);
            }
        }
    }

    /// It could not be said whether a function is there: it is looked for once more.
    pub(crate) fn not_looked_for(&mut self, now_ms: u64, function: &str) {
        if let Some(number) = self.function_numbers.get(function).filter(|it| self.absent.contains(*it)) {
            self.looks.insert((now_ms.saturating_add(LOOK_AGAIN_MS), *number));
        }
    }

    /// How a message stands that is to be delivered.
    pub(crate) fn standing(&self, place: &Place) -> Option<Standing> {
        let queue = &self.queues[*self.names.get(&place.queue)?];
        let entry = queue.entries.get(&place.seq)?;
        let running = matches!(entry.state, State::Running | State::Ending);
        Some(Standing { running, attempts: entry.attempts, due_ms: entry.due_ms })
    }

    /// Names of the queues, in order.
    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        self.names.keys().cloned().collect()
    }

    /// Counts of a queue.
    pub(crate) fn counts(&self, name: &str) -> Counts {
        let Some(queue) = self.names.get(name).map(|queue| &self.queues[*queue]) else {
            return Counts::default();
        };
        Counts {
            waiting: queue.count(State::Waiting),
            delayed: queue.count(State::Delayed),
            parked: queue.count(State::Parked),
            running: queue.count(State::Running),
            dead: queue.dead,
        }
    }

    /// Whether a queue holds messages or is about to.
    pub(crate) fn is_empty(&self, name: &str) -> bool {
        self.names
            .get(name)
            .is_none_or(|queue| self.queues[*queue].entries.is_empty() && self.queues[*queue].arriving == 0)
    }
}
