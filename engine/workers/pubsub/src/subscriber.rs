//! One subscription: its queue, and the delivery of one message after the other. It must not know topics of others.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use ringway_worker_kit::Binding;

use crate::config::{Bound, OnFull};
use crate::functions::SubscriptionView;
use crate::history::Message;

/// One subscription. It outlives the bindings under its id.
#[derive(Debug)]
pub(crate) struct Subscriber {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    binding: Arc<Binding<Bound>>,
    queue: VecDeque<Arc<Message>>,
    /// A future takes messages out.
    delivering: bool,
    /// The trigger is gone.
    over: bool,
    /// Messages whose publishers wait for room, in order.
    overflow: VecDeque<Waiting>,
    next_number: u64,
    delivered: u64,
    skipped: u64,
    dropped: u64,
    failed: u64,
    last_error: Option<String>,
}

/// A message whose publisher waits for room, and what that is woken by: each is woken once, when its own turn has come.
#[derive(Debug)]
struct Waiting {
    number: u64,
    message: Arc<Message>,
    waker: Option<Waker>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits; `true` if somebody has to begin delivering.
    Queued(bool),
    /// It was left out.
    Dropped,
    /// There is no room; the publisher is to wait with this number.
    Full(u64),
}

/// A message that waits for room, for as long as its publisher does.
#[derive(Debug)]
pub(crate) struct Blocked {
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) number: u64,
}

impl Blocked {
    /// Waits until the message is in the queue, or the subscription has ended.
    pub(crate) async fn admitted(self) {
        poll_fn(|context| {
            let mut state = self.subscriber.state.lock();
            let waiting = state.overflow.iter_mut().find(|waiting| waiting.number == self.number);
            let Some(waiting) = waiting else { return Poll::Ready(()) };
            waiting.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Blocked {
    /// A publisher that has given up takes its message back.
    fn drop(&mut self) {
        self.subscriber.state.lock().overflow.retain(|waiting| waiting.number != self.number);
    }
}

/// How a delivery ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Delivered,
    Skipped,
    Failed(String),
}

impl State {
    fn queue_max(&self) -> usize {
        self.binding.config.config.queue_max
    }

    /// Lets in whom there is room for; gives what they are woken by.
    fn admit(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.queue.len() < self.queue_max() {
            let Some(Waiting { number: _, message, waker }) = self.overflow.pop_front() else { break };
            self.queue.push_back(message);
            wakers.extend(waker);
        }
        wakers
    }

    /// Leaves out what there is no room for, as the trigger says. Where publishers are to wait, what is in stays.
    fn trim(&mut self) {
        let excess = self.queue.len().saturating_sub(self.queue_max());
        match self.binding.config.config.on_full {
            OnFull::Block => return,
            OnFull::DropOldest => drop(self.queue.drain(..excess)),
            OnFull::DropNewest => self.queue.truncate(self.queue.len() - excess),
        }
        self.dropped += excess as u64;
    }
}

impl Subscriber {
    /// A subscription with messages that wait for it from the start.
    pub(crate) fn new(binding: &Arc<Binding<Bound>>, first: Vec<Arc<Message>>) -> Self {
        let mut state = State {
            binding: Arc::clone(binding),
            queue: first.into(),
            delivering: false,
            over: false,
            overflow: VecDeque::new(),
            next_number: 0,
            delivered: 0,
            skipped: 0,
            dropped: 0,
            failed: 0,
            last_error: None,
        };
        state.trim();
        Self { state: Mutex::new(state) }
    }

    pub(crate) fn binding(&self) -> Arc<Binding<Bound>> {
        Arc::clone(&self.state.lock().binding)
    }

    /// Goes on by another binding: what waits, waits on, and what is being delivered comes to its end first. Publishers
    /// who wait are let in where the new binding has room, or nobody wait.
    pub(crate) fn swap(&self, binding: &Arc<Binding<Bound>>) {
        let mut state = self.state.lock();
        state.binding = Arc::clone(binding);
        let wakers = if binding.config.config.on_full == OnFull::Block {
            state.admit()
        } else {
            let overflow = std::mem::take(&mut state.overflow);
            let (messages, wakers): (Vec<_>, Vec<_>) =
                overflow.into_iter().map(|waiting| (waiting.message, waiting.waker)).unzip();
            state.queue.extend(messages);
            wakers.into_iter().flatten().collect()
        };
        state.trim();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends it; gives how many still waited.
    pub(crate) fn end(&self) -> usize {
        let mut state = self.state.lock();
        state.over = true;
        let overflow = std::mem::take(&mut state.overflow);
        let left = std::mem::take(&mut state.queue).len() + overflow.len();
        drop(state);
        overflow.into_iter().filter_map(|waiting| waiting.waker).for_each(Waker::wake);
        left
    }

    /// Puts a message into the queue, behind those that wait for room.
    pub(crate) fn push(&self, message: &Arc<Message>) -> Pushed {
        let mut state = self.state.lock();
        if state.over {
            return Pushed::Dropped;
        }
        if state.queue.len() >= state.queue_max() {
            let on_full = state.binding.config.config.on_full;
            match on_full {
                OnFull::Block => {
                    let number = state.next_number;
                    state.next_number += 1;
                    let waiting = Waiting { number, message: Arc::clone(message), waker: None };
                    state.overflow.push_back(waiting);
                    return Pushed::Full(number);
                }
                OnFull::DropOldest => drop(state.queue.pop_front()),
                OnFull::DropNewest => {}
            }
            state.dropped += 1;
            if state.dropped.is_power_of_two() {
                let (subscription, dropped) = (&state.binding.id, state.dropped);
                tracing::warn!(target: "ringway", subscription, dropped, "a subscriber is too slow; messages are left out");
            }
            if on_full == OnFull::DropNewest {
                return Pushed::Dropped;
            }
        }
        state.queue.push_back(Arc::clone(message));
        Pushed::Queued(!std::mem::replace(&mut state.delivering, true))
    }

    /// Whether somebody has to begin delivering what waits from the start.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        !state.queue.is_empty() && !std::mem::replace(&mut state.delivering, true)
    }

    /// The next message and the binding to deliver it by, for whoever delivers; none ends that.
    pub(crate) fn pop(&self) -> Option<(Arc<Message>, Arc<Binding<Bound>>)> {
        let mut state = self.state.lock();
        let next = state.queue.pop_front();
        state.delivering = next.is_some();
        let wakers = state.admit();
        let binding = Arc::clone(&state.binding);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        next.map(|message| (message, binding))
    }

    pub(crate) fn note(&self, ended: Ended) {
        let mut state = self.state.lock();
        match ended {
            Ended::Delivered => (state.delivered, state.last_error) = (state.delivered + 1, None),
            Ended::Skipped => state.skipped += 1,
            Ended::Failed(error) => (state.failed, state.last_error) = (state.failed + 1, Some(error)),
        }
    }

    pub(crate) fn view(&self) -> SubscriptionView {
        let state = self.state.lock();
        SubscriptionView {
            id: state.binding.id.clone(),
            topic: state.binding.config.pattern.text().to_owned(),
            function_id: state.binding.function_id.clone(),
            waiting: state.queue.len(),
            blocked: state.overflow.len(),
            delivering: state.delivering,
            delivered: state.delivered,
            skipped: state.skipped,
            dropped: state.dropped,
            failed: state.failed,
            last_error: state.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use ringway_worker_kit::Condition;
    use serde_json::json;

    use super::*;

    fn binding(queue_max: usize) -> Arc<Binding<Bound>> {
        let config = json!({"topic": "t", "queue_max": queue_max, "on_full": "block"});
        Arc::new(Binding {
            id: "s".to_owned(),
            function_id: "a::b".to_owned(),
            config: Bound::parse(&config).unwrap(),
            condition: Condition::Always,
            metadata: None,
        })
    }

    fn message(number: u64) -> Arc<Message> {
        Arc::new(Message {
            topic: "t".to_owned(),
            data: json!(number),
            bytes: 8,
            trace: ringway::TraceContext::default(),
        })
    }

    #[derive(Debug, Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_publisher_that_waits_is_woken_once_when_its_turn_has_come() {
        let subscriber = Arc::new(Subscriber::new(&binding(1), Vec::new()));
        assert_eq!(subscriber.push(&message(0)), Pushed::Queued(true));
        let counters: Vec<Arc<Counter>> = (0..4).map(|_| Arc::default()).collect();
        let mut waiting: Vec<_> = (0..4)
            .map(|number| {
                assert_eq!(subscriber.push(&message(number + 1)), Pushed::Full(number));
                Box::pin(Blocked { subscriber: Arc::clone(&subscriber), number }.admitted())
            })
            .collect();
        let mut poll = |at: usize| {
            let waker = Waker::from(Arc::clone(&counters[at]));
            waiting[at].as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        };
        assert!((0..4).all(|at| !poll(at) && !poll(at)), "nobody is in");
        let woken =
            || -> Vec<usize> { counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).collect() };
        subscriber.pop().unwrap();
        assert_eq!((woken(), poll(0)), (vec![1, 0, 0, 0], true));
        subscriber.pop().unwrap();
        assert_eq!((woken(), poll(1)), (vec![1, 1, 0, 0], true));
        subscriber.swap(&binding(2));
        assert_eq!((woken(), poll(2)), (vec![1, 1, 1, 0], true));
        assert_eq!(subscriber.end(), 3);
        assert_eq!((woken(), poll(3)), (vec![1, 1, 1, 1], true));
    }

    #[test]
    fn one_who_gives_up_leaves_the_turn_of_the_others_alone() {
        let subscriber = Arc::new(Subscriber::new(&binding(1), vec![message(0)]));
        assert_eq!(subscriber.push(&message(1)), Pushed::Full(0));
        assert_eq!(subscriber.push(&message(2)), Pushed::Full(1));
        drop(Blocked { subscriber: Arc::clone(&subscriber), number: 0 });
        assert!(subscriber.begin());
        let next = || subscriber.pop().map(|(message, _)| message.data.clone());
        assert_eq!([next(), next(), next()], [Some(json!(0)), Some(json!(2)), None]);
    }
}
