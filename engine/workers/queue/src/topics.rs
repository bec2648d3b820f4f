//! Topics: who gets a copy of what is published, which is remembered while they are away, and what is bound at the moment.
//! The first subscriber of a topic gets the queue in which messages waited before there was one. Used by the driver's
//! thread; it must not know how copies are delivered.

use std::collections::{BTreeMap, HashMap};

use crate::machine::Tables;
use crate::record::{self, SubscriptionRecord, Unreadable, Writes};

/// What the names of the queues of topics begin with, which no other queue's may.
pub(crate) const TOPIC: &str = "topic/";

/// Subscriptions by topic, then by function.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    all: BTreeMap<String, BTreeMap<String, SubscriptionRecord>>,
}

/// The queue in which messages of a topic wait before it has a subscriber.
pub(crate) fn backlog(topic: &str) -> String {
    format!("{TOPIC}{topic}")
}

impl Topics {
    /// Reads the subscriptions back, with those that cannot be read.
    ///
    /// # Errors
    /// When the table cannot be read on.
    pub(crate) fn recover(tables: &dyn Tables) -> Result<(Self, Vec<Unreadable>), Unreadable> {
        let mut topics = Self::default();
        let mut unreadable = Vec::new();
        tables.each(record::SUBSCRIPTION, &mut |key, value| match read_key(key).and_then(
            |(topic, function)| Ok((topic, function, record::decode(record::SUBSCRIPTION, key, value)?)),
        ) {
            Ok((topic, function, record)) => {
                topics.all.entry(topic).or_default().insert(function, record);
            }
            Err(error) => unreadable.push(error),
        })?;
        Ok((topics, unreadable))
    }

    /// The subscription of a function, made or changed as it says; with what is to be written, if anything is.
    pub(crate) fn subscribe(
        &mut self,
        topic: &str,
        function: &str,
        settings: &crate::config::SubscriberSettings,
    ) -> (SubscriptionRecord, Option<Writes>) {
        let of_topic = self.all.entry(topic.to_owned()).or_default();
        // The backlog goes to whoever comes first, and stays with him.
        let taken = of_topic.values().any(|other| other.queue == backlog(topic));
        let own = || if taken { format!("{}/{function}", backlog(topic)) } else { backlog(topic) };
        let queue = of_topic.get(function).map_or_else(own, |known| known.queue.clone());
        let record = SubscriptionRecord { queue, settings: settings.clone() };
        if of_topic.get(function) == Some(&record) {
            return (record, None);
        }
        of_topic.insert(function.to_owned(), record.clone());
        let mut writes = Writes::default();
        writes.put(record::SUBSCRIPTION, record::pair_key(topic, function), &record);
        (record, Some(writes))
    }

    /// Ends a subscription for good; with what is to be written, if there was one.
    pub(crate) fn unsubscribe(
        &mut self,
        topic: &str,
        function: &str,
    ) -> Option<(SubscriptionRecord, Writes)> {
        let record = self.all.get_mut(topic)?.remove(function)?;
        let mut writes = Writes::default();
        writes.delete(record::SUBSCRIPTION, record::pair_key(topic, function));
        Some((record, writes))
    }

    /// The queues that get a copy of what is published.
    pub(crate) fn queues(&self, topic: &str) -> Vec<(String, SubscriptionRecord)> {
        let subscribed = self.all.get(topic).into_iter().flatten();
        subscribed.map(|(function, record)| (function.clone(), record.clone())).collect()
    }

    /// Every subscription: topic, function, record.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &SubscriptionRecord)> {
        let of_topic = |(topic, all)| {
            let all: &BTreeMap<String, SubscriptionRecord> = all;
            let topic: &String = topic;
            all.iter().map(move |(function, record)| (topic.as_str(), function.as_str(), record))
        };
        self.all.iter().flat_map(of_topic)
    }

    /// The queues that a name stands for: a queue of that name, and those of the topic.
    pub(crate) fn resolve(&self, name: &str, known: impl Fn(&str) -> bool) -> Vec<String> {
        let mut queues: Vec<String> = self.queues(name).into_iter().map(|(_, record)| record.queue).collect();
        queues.extend([name.to_owned(), backlog(name)].into_iter().filter(|name| known(name)));
        queues.sort();
        queues.dedup();
        queues
    }

    /// Functions by topic, for counts.
    pub(crate) fn count(&self) -> HashMap<String, usize> {
        self.all.iter().map(|(topic, functions)| (topic.clone(), functions.len())).collect()
    }
}

fn read_key(key: &[u8]) -> Result<(String, String), Unreadable> {
    let wrong = || Unreadable::new(record::SUBSCRIPTION, key, "wanted a topic, a zero byte and a function");
    let text = std::str::from_utf8(key).map_err(|_| wrong())?;
    let (topic, function) = text.split_once('\0').ok_or_else(wrong)?;
    Ok((topic.to_owned(), function.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_goes_to_the_first_and_stays_with_him() {
        let mut topics = Topics::default();
        let settings = Default::default();
        let (first, writes) = topics.subscribe("t", "a::a", &settings);
        assert_eq!((first.queue.as_str(), writes.is_some()), ("topic/t", true));
        let (second, _) = topics.subscribe("t", "b::b", &settings);
        assert_eq!(second.queue, "topic/t/b::b");
        let (again, writes) = topics.subscribe("t", "a::a", &settings);
        assert_eq!((again, writes.is_none()), (first, true));
        assert_eq!(topics.resolve("t", |_| false), ["topic/t", "topic/t/b::b"]);
        assert!(topics.unsubscribe("t", "a::a").is_some());
        assert_eq!(topics.queues("t").len(), 1);
    }
}
