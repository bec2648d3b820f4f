//! The last messages of each topic, for subscriptions that want them. In memory, within limits. It must not know subscribers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use ringway::TraceContext;
use serde_json::Value;

/// A message as it was published.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) data: Value,
    /// About how much memory it takes.
    pub(crate) bytes: usize,
    /// Where whoever published it stands in its trace; what subscribers do belongs there too.
    pub(crate) trace: TraceContext,
}

/// The last messages, by their number and by topic.
#[derive(Debug, Default)]
pub(crate) struct History {
    by_number: BTreeMap<u64, Arc<Message>>,
    by_topic: HashMap<String, VecDeque<u64>>,
    bytes: usize,
    next: u64,
}

impl History {
    pub(crate) fn keep(&mut self, message: &Arc<Message>, per_topic_max: usize, bytes_max: usize) {
        if per_topic_max == 0 || message.bytes > bytes_max {
            return;
        }
        let number = self.next;
        self.next += 1;
        self.by_number.insert(number, Arc::clone(message));
        self.bytes += message.bytes;
        let of_topic = self.by_topic.entry(message.topic.clone()).or_default();
        of_topic.push_back(number);
        if of_topic.len() > per_topic_max
            && let Some(oldest) = of_topic.front().copied()
        {
            self.forget(oldest);
        }
        while self.bytes > bytes_max {
            let Some(oldest) = self.by_number.keys().next().copied() else { break };
            self.forget(oldest);
        }
    }

    /// The oldest of its topic.
    fn forget(&mut self, number: u64) {
        let Some(message) = self.by_number.remove(&number) else { return };
        self.bytes -= message.bytes;
        if let Some(of_topic) = self.by_topic.get_mut(&message.topic) {
            of_topic.pop_front();
            if of_topic.is_empty() {
                self.by_topic.remove(&message.topic);
            }
        }
    }

    /// The last `count` messages whose topic is wanted, in the order in which they came. Costs a look at each that is kept.
    pub(crate) fn last(&self, count: usize, wanted: impl Fn(&str) -> bool) -> Vec<Arc<Message>> {
        let newest = self.by_number.values().rev().filter(|message| wanted(&message.topic)).take(count);
        let mut found: Vec<_> = newest.map(Arc::clone).collect();
        found.reverse();
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(topic: &str, number: usize, bytes: usize) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.to_owned(),
            data: json!(number),
            bytes,
            trace: TraceContext::default(),
        })
    }

    fn numbers(found: &[Arc<Message>]) -> Vec<u64> {
        found.iter().map(|message| message.data.as_u64().unwrap()).collect()
    }

    #[test]
    fn the_last_of_each_topic_are_kept_in_order() {
        let mut history = History::default();
        for number in 0..10 {
            history.keep(&message(if number % 2 == 0 { "even" } else { "odd" }, number, 10), 3, 1000);
        }
        assert_eq!(numbers(&history.last(9, |_| true)), [4, 5, 6, 7, 8, 9]);
        assert_eq!(numbers(&history.last(2, |topic| topic == "even")), [6, 8]);
    }

    #[test]
    fn bytes_are_bounded() {
        let mut history = History::default();
        for number in 0..10 {
            history.keep(&message(&number.to_string(), number, 30), 3, 100);
        }
        assert_eq!(numbers(&history.last(9, |_| true)), [7, 8, 9]);
        assert_eq!((history.bytes, history.by_topic.len()), (90, 3));
        history.keep(&message("large", 11, 101), 3, 100);
        assert_eq!(numbers(&history.last(9, |_| true)), [7, 8, 9]);
    }
}
